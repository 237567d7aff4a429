//! A real etcd for the rows that need one: a child process in a folder of its own, with etcd's own defaults (it waits for the
//! disk), killed, wiped and started again. Where the machine has none, the run says which rows it has left out.
//!
//! The tests have one of their own, which does not wait for the disk; and `svc-tests` would switch on features of the
//! channel whose cost other rows would then measure.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::report;

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Another process may take a port before etcd does.
const PORT_TRIES: u32 = 5;

const KEEPALIVE: &str = r#"grpc_method="LeaseKeepAlive""#;

/// A running etcd. Dropping it kills it and removes its data.
#[derive(Debug)]
pub(crate) struct Etcd {
    binary: PathBuf,
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    peer_port: u16,
}

impl Etcd {
    /// Starts one and waits until it answers. `None`, and a word on stderr, where there is no binary.
    pub(crate) async fn start(rows: &str) -> Result<Option<Etcd>, Box<dyn Error>> {
        let Some(binary) = find() else {
            report::progress(&format!(
                "{rows}: not measured, no etcd here: run `make tools`, or name one in ETCD_BINS"
            ));
            return Ok(None);
        };
        // Beside the build, not in /tmp: that may be memory, and etcd waits for the disk.
        let parent = report::folder()?;
        let folder = tempfile::Builder::new().prefix("etcd-").tempdir_in(parent)?;
        let mut etcd = Etcd { binary, child: None, folder, port: 0, peer_port: 0 };
        for attempt in 1.. {
            (etcd.port, etcd.peer_port) = (free_port()?, free_port()?);
            match etcd.start_again().await {
                Ok(()) => break,
                Err(_) if attempt < PORT_TRIES => etcd.wipe()?,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(etcd))
    }

    /// Starts it after [`Etcd::wipe`] and waits until it answers a read.
    pub(crate) async fn start_again(&mut self) -> Result<(), Box<dyn Error>> {
        let log = File::create(self.folder.path().join("log"))?;
        let client = format!("http://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command
            .args(["--name", "bench", "--log-level", "error", "--data-dir"])
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg(format!("--initial-cluster=bench={peer}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn()?);
        match timeout(START_LIMIT, self.answers()).await {
            Ok(answer) => answer,
            Err(_) => Err(self.trouble("does not answer")),
        }
    }

    async fn answers(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            if self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
                return Err(self.trouble("has ended"));
            }
            // The port first: a client would wait longer and longer between its attempts.
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok()
                && let Ok(mut client) = self.client().await
                && client.get("is anybody there", None).await.is_ok()
            {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn trouble(&self, what: &str) -> Box<dyn Error> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        format!("{} {what}: {log}", self.binary.display()).into()
    }

    /// Kills it as SIGKILL does and removes its data.
    pub(crate) fn wipe(&mut self) -> io::Result<()> {
        self.kill();
        match std::fs::remove_dir_all(self.folder.path().join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; there is nothing to do about either error then.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where it listens, as `http://host:port`; the same over restarts.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client of etcd-client's own making, as users of raw etcd have it.
    pub(crate) async fn client(&self) -> Result<Client, etcd_client::Error> {
        // Boxed, since it is a large future.
        Box::pin(Client::connect([self.url()], None)).await
    }

    /// Messages that it has received on keepalive streams.
    pub(crate) async fn keepalives(&self) -> Result<f64, Box<dyn Error>> {
        self.counted("grpc_server_msg_received_total", KEEPALIVE).await
    }

    /// Keepalive streams that are open.
    pub(crate) async fn keepalive_streams(&self) -> Result<f64, Box<dyn Error>> {
        let begun = self.counted("grpc_server_started_total", KEEPALIVE).await?;
        Ok(begun - self.counted("grpc_server_handled_total", KEEPALIVE).await?)
    }

    /// CPU time of its process in seconds, user and system.
    pub(crate) async fn cpu_seconds(&self) -> Result<f64, Box<dyn Error>> {
        self.counted("process_cpu_seconds_total", "").await
    }

    /// The sum of its metrics whose lines begin with `name` and have `label` in them.
    async fn counted(&self, name: &str, label: &str) -> Result<f64, Box<dyn Error>> {
        let mut page = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        page.write_all(b"GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").await?;
        let mut answer = String::new();
        page.read_to_string(&mut answer).await?;
        let lines: Vec<&str> =
            answer.lines().filter(|line| line.starts_with(name) && line.contains(label)).collect();
        if lines.is_empty() {
            return Err(format!("etcd has no metric {name} {label}").into());
        }
        Ok(lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `ETCD_BINS` first, then what `make tools` has unpacked: a 3.5 before a 3.4.
fn find() -> Option<PathBuf> {
    let named = std::env::var_os("ETCD_BINS").unwrap_or_default();
    let named =
        std::env::split_paths(&named).map(|path| if path.is_dir() { path.join("etcd") } else { path });
    let tools = std::env::var_os("SVC_TOOLS").map_or_else(|| report::target().join("tools"), PathBuf::from);
    let unpacked = ["etcd-3.5", "etcd-3.4"].map(|version| tools.join(version).join("bin").join("etcd"));
    named.filter(|path| !path.as_os_str().is_empty()).chain(unpacked).find(|path| runs(path))
}

fn runs(binary: &Path) -> bool {
    let version = Command::new(binary).arg("--version").stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.status.success())
}

/// Below the range from which the system takes the ports of outgoing connections, so that an etcd that is down for a while
/// finds its port free when it comes back.
fn free_port() -> io::Result<u16> {
    let mut busy = None;
    for _ in 0..100 {
        let port = fastrand::u16(11_000..31_000);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => busy = Some(error),
        }
    }
    Err(busy.unwrap_or_else(|| io::Error::other("no free port")))
}
