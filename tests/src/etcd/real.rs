//! A real etcd as a child process: one node, in a folder of its own, on loopback.

use std::fs::{self, File};
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::binaries::Binary;
use super::{Options, PORT_PAUSE, PORT_TRIES};
use crate::ports::free_port;

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The process, its ports and its folder. Dropping it kills the process and removes the folder.
#[derive(Debug)]
pub(super) struct Real {
    binary: &'static Binary,
    options: Options,
    folder: TempDir,
    /// One of a cluster; `None` is a cluster by itself.
    member: Option<Member>,
    state: Mutex<State>,
}

/// What a member of a cluster is told of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) peer_port: u16,
    pub(super) advertised_peer: String,
    pub(super) initial_cluster: String,
}

#[derive(Debug)]
struct State {
    child: Option<Child>,
    client_port: u16,
    peer_port: u16,
    tls_port: Option<u16>,
    /// Part of what etcd makes its cluster id of.
    token: u32,
}

impl Real {
    /// Starts one and waits until it answers.
    pub(super) async fn start(binary: &'static Binary, options: &Options) -> Self {
        let real = Self::new(binary, options, None);
        for attempt in 1.. {
            match real.try_start().await {
                Ok(()) => break,
                // Most likely another process took one of the ports in between.
                Err(_) if attempt < PORT_TRIES => {
                    let mut state = real.state();
                    (state.client_port, state.peer_port) = (free_port(), free_port());
                    state.tls_port = options.tls.as_ref().map(|_| free_port());
                }
                Err(error) => panic!("etcd {} does not start: {error}\n{}", binary.version, real.log_tail()),
            }
        }
        real
    }

    /// Starts a member and waits until it answers, for which enough of the others have to be started too.
    pub(super) async fn start_member(binary: &'static Binary, options: &Options, member: Member) -> Self {
        let real = Self::new(binary, options, Some(member));
        if let Err(error) = real.try_start().await {
            panic!("etcd {} does not start: {error}\n{}", binary.version, real.log_tail());
        }
        real
    }

    fn new(binary: &'static Binary, options: &Options, member: Option<Member>) -> Self {
        Self {
            binary,
            options: options.clone(),
            folder: tempfile::tempdir().expect("a folder for etcd's data"),
            state: Mutex::new(State {
                child: None,
                client_port: free_port(),
                peer_port: member.as_ref().map_or_else(free_port, |member| member.peer_port),
                tls_port: options.tls.as_ref().map(|_| free_port()),
                token: 0,
            }),
            member,
        }
    }

    /// Minor and patch.
    pub(super) fn version(&self) -> (u32, u32) {
        let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
        let mut parts = self.binary.version.split('.').skip(1).map(|part| digits(part).parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    pub(super) fn version_text(&self) -> &'static str {
        &self.binary.version
    }

    pub(super) fn port(&self) -> u16 {
        self.state().client_port
    }

    pub(super) fn tls_port(&self) -> Option<u16> {
        self.state().tls_port
    }

    /// Starts it again on its port with the data it has.
    pub(super) async fn start_again(&self) {
        for attempt in 1.. {
            match self.try_start().await {
                Ok(()) => return,
                Err(_) if attempt < PORT_TRIES => tokio::time::sleep(PORT_PAUSE).await,
                Err(error) => {
                    panic!("etcd {} does not start again: {error}\n{}", self.binary.version, self.log_tail())
                }
            }
        }
    }

    async fn try_start(&self) -> io::Result<()> {
        self.kill();
        self.spawn()?;
        let url = format!("http://127.0.0.1:{}", self.port());
        let answers = async {
            loop {
                if let Some(status) = self.exited() {
                    return Err(io::Error::other(format!("it ended with {status}")));
                }
                if let Ok(mut client) = etcd_client::Client::connect([&url], None).await {
                    match client.get("is anybody there", None).await {
                        Ok(_) => return Ok(()),
                        // With users switched on it refuses us, which is an answer too.
                        Err(etcd_client::Error::GRpcStatus(status)) if refuses_a_stranger(&status) => {
                            return Ok(());
                        }
                        Err(_) => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, answers).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other(format!("no answer within {START_LIMIT:?}"))),
        }
    }

    pub(super) fn spawn(&self) -> io::Result<()> {
        let mut state = self.state();
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut client = format!("http://127.0.0.1:{}", state.client_port);
        if let Some(port) = state.tls_port {
            client += &format!(",https://127.0.0.1:{port}");
        }
        let peer = format!("http://127.0.0.1:{}", state.peer_port);
        let alone = format!("test={peer}");
        let (name, advertised, cluster) = match &self.member {
            None => ("test", &peer, &alone),
            Some(member) => (member.name.as_str(), &member.advertised_peer, &member.initial_cluster),
        };
        // The smallest lease TTL is one and a half election timeouts, in whole seconds: 1 s for one that is alone. A cluster
        // on a busy machine must not elect a leader for every hiccup; these are etcd's defaults.
        let (heartbeat, election) = if self.member.is_none() { ("50", "300") } else { ("100", "1000") };
        let mut command = Command::new(&self.binary.etcd);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command
            // Without it a 3.4 refuses to start on arm64.
            .env("ETCD_UNSUPPORTED_ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "" })
            .args(["--name", name, "--logger", "zap", "--log-level", "warn"])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", advertised])
            .arg(format!("--initial-cluster={cluster}"))
            .arg(format!("--initial-cluster-token=test-{}", state.token))
            .args(["--heartbeat-interval", heartbeat, "--election-timeout", election])
            .arg(self.binary.progress_flag)
            .arg(format!("{}ms", self.options.progress_interval.as_millis()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // As light as bcrypt allows: what it costs is none of the tests' business.
        command.args(["--bcrypt-cost", "4"]);
        command.arg("--auth-token-ttl").arg(self.options.token_ttl.as_secs().to_string());
        if let Some(bytes) = self.options.quota_bytes {
            command.arg("--quota-backend-bytes").arg(bytes.to_string());
        }
        if let Some(tls) = &self.options.tls {
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
            if let Some(ca) = &tls.clients {
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            }
        }
        if self.binary.has_no_fsync {
            command.arg("--unsafe-no-fsync");
        }
        // Last, since of a flag that comes twice the last counts.
        command.args(&self.options.arguments);
        state.child = Some(command.spawn()?);
        Ok(())
    }

    /// SIGKILL, and waits for the end of the process.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.state().child.take() {
            // It may have ended by itself; there is nothing to do about either error then.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it and removes its data.
    pub(super) fn wipe(&self, another_cluster: bool) {
        self.kill();
        if another_cluster {
            self.state().token += 1;
        }
        match fs::remove_dir_all(self.folder.path().join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("removing etcd's data: {error}"),
            _ => {}
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let state = self.state();
        let child = state.child.as_ref().expect("etcd is running");
        crate::process::send(child, signal);
    }

    pub(super) fn exited(&self) -> Option<std::process::ExitStatus> {
        self.state().child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    /// The last lines that etcd wrote.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

fn refuses_a_stranger(status: &tonic::Status) -> bool {
    status.message().contains("user name is empty")
}

impl Drop for Real {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the end of etcd {}'s log ---\n{}", self.binary.version, self.log_tail());
        }
    }
}
