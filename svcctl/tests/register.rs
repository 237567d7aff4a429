//! `svcctl register -- COMMAND`: the binary with a command of the shell's, on an embedded etcd.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use embedded_etcd::EmbeddedEtcd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SERVING: &str = "/services/legacy/l-1";
const DRAINING: &str = "/services-draining/legacy/l-1";

/// Far more than any step takes; only a failure waits so long.
const LIMIT: Duration = Duration::from_secs(30);

/// An etcd on a port, and a client of it.
struct Store {
    _etcd: EmbeddedEtcd,
    url: String,
    client: etcd_client::Client,
}

impl Store {
    async fn start() -> Store {
        let etcd = EmbeddedEtcd::start().await;
        let address = etcd.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let url = format!("http://{address}");
        let client = etcd_client::Client::connect([&url], None).await.expect("it is up");
        Store { _etcd: etcd, url, client }
    }

    async fn state(&mut self, key: &str) -> Option<String> {
        let found = self.client.get(key, None).await.expect("etcd is up");
        let value: serde_json::Value = serde_json::from_slice(found.kvs().first()?.value()).expect("JSON");
        value["state"].as_str().map(ToOwned::to_owned)
    }

    /// Waits until a key is there, or is gone.
    async fn until(&mut self, key: &str, there: bool, wrapped: &Wrapped) {
        let begin = Instant::now();
        while self.state(key).await.is_some() != there {
            assert!(begin.elapsed() < LIMIT, "{key}: there: {there}? It says {:?}", wrapped.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn is_empty(&mut self) -> bool {
        let options = etcd_client::GetOptions::new().with_prefix();
        self.client.get("/services", Some(options)).await.expect("etcd is up").kvs().is_empty()
    }
}

/// A running `svcctl register legacy --id l-1 ... [-- COMMAND]`; killed with its command when it is dropped.
struct Wrapped {
    child: Child,
    said: Heard,
    printed: Heard,
}

/// What was written to a pipe, as it comes.
struct Heard {
    text: Arc<Mutex<String>>,
    /// Ends with the pipe.
    reader: JoinHandle<()>,
}

impl Heard {
    fn from(pipe: impl std::io::Read + Send + 'static) -> Heard {
        let text = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                into.lock().expect("no panic").push_str(&format!("{line}\n"));
            }
        });
        Heard { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }
}

impl Wrapped {
    fn start(store: &Store, options: &[&str], command: &[&str]) -> Wrapped {
        let mut child = Command::new(env!("CARGO_BIN_EXE_svcctl"))
            .args([
                "register",
                "legacy",
                "--id",
                "l-1",
                "--address",
                "127.0.0.1:9",
                "--endpoints",
                &store.url,
            ])
            .args(if options.contains(&"--notice") { &[][..] } else { &["--notice", "300ms"] })
            .args(options)
            .args(if command.is_empty() { &[][..] } else { &["--"] })
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = Heard::from(child.stderr.take().expect("it is piped"));
        let printed = Heard::from(child.stdout.take().expect("it is piped"));
        Wrapped { child, said, printed }
    }

    fn said(&self) -> String {
        self.said.text()
    }

    /// Waits until the command has printed a line.
    async fn prints(&self, line: &str) {
        self.until(line, || self.printed.text().lines().any(|printed| printed == line)).await;
    }

    /// Waits until svcctl has said this.
    async fn says(&self, part: &str) {
        self.until(part, || self.said().contains(part)).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < LIMIT, "no {what:?}; it says {:?}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits until it has ended, and all that it and its command said was heard.
    async fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            let heard = self.said.reader.is_finished() && self.printed.reader.is_finished();
            if let Some(status) = self.child.try_wait().expect("it is our child").filter(|_| heard) {
                return status;
            }
            assert!(begin.elapsed() < LIMIT, "it has not ended; it says {:?}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        // After a test that failed: asked twice, it takes its command along at once. One that does not obey is killed.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            self.signal(Signal::SIGTERM);
            let begin = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(5) {
                std::thread::yield_now();
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid is an i32"));
    kill(pid, signal).expect("we have not waited for it");
}

/// The pid that a command has written.
async fn pid(file: &Path) -> u32 {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
            return pid;
        }
        assert!(begin.elapsed() < LIMIT, "no pid: {text:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A command that says `up`, then what signals it gets, and ends with 7 at SIGTERM.
const TELLS: [&str; 3] = [
    "sh",
    "-c",
    "trap 'echo hup' HUP; trap 'echo int' INT; trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.02; done",
];

#[tokio::test]
async fn a_command_is_told_to_end_when_it_has_left_clients_sight_and_its_code_is_ours() {
    let mut store = Store::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("done");
    let script = format!(
        "trap 'echo term; while [ ! -e {} ]; do sleep 0.02; done; exit 7' TERM; while :; do sleep 0.02; done",
        file.display()
    );
    let mut wrapped = Wrapped::start(&store, &["--check", "none"], &["sh", "-c", &script]);
    store.until(SERVING, true, &wrapped).await;
    wrapped.says("legacy/l-1 registered at 127.0.0.1:9").await;
    wrapped.signal(Signal::SIGTERM);
    wrapped.prints("term").await;
    assert_eq!(store.state(SERVING).await, None, "clients knew before the command did");
    assert!(store.state(DRAINING).await.is_some(), "its record is there as long as it is");
    std::fs::write(&file, "").expect("a file");
    assert_eq!(wrapped.ended().await.code(), Some(7), "{}", wrapped.said());
    assert!(store.is_empty().await, "it said goodbye");
    let said = wrapped.said();
    // The shell may have a word for the end of what it had started.
    let ours: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("legacy/l-1 ")).collect();
    assert_eq!(ours, ["registered at 127.0.0.1:9", "leaving", "deregistered"]);
}

#[tokio::test]
async fn a_second_signal_and_signals_that_do_not_stop_are_handed_on_at_once() {
    let mut store = Store::start().await;
    let mut wrapped = Wrapped::start(&store, &["--check", "none", "--notice", "1h"], &TELLS);
    wrapped.prints("up").await;
    store.until(SERVING, true, &wrapped).await;
    wrapped.signal(Signal::SIGHUP);
    wrapped.prints("hup").await;
    assert_eq!(store.state(SERVING).await.as_deref(), Some("serving"), "that was the command's affair");
    wrapped.signal(Signal::SIGINT);
    store.until(SERVING, false, &wrapped).await;
    wrapped.signal(Signal::SIGINT);
    wrapped.prints("int").await;
    wrapped.signal(Signal::SIGTERM);
    wrapped.prints("term").await;
    assert_eq!(wrapped.ended().await.code(), Some(7), "{}", wrapped.said());
    assert!(store.is_empty().await);
}

#[tokio::test]
async fn a_command_that_is_killed_takes_its_record_along() {
    let mut store = Store::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", file.display());
    // A lease that would keep the record for long.
    let mut wrapped = Wrapped::start(&store, &["--check", "none", "--ttl", "10m"], &["sh", "-c", &script]);
    store.until(SERVING, true, &wrapped).await;
    send(pid(&file).await, Signal::SIGKILL);
    store.until(SERVING, false, &wrapped).await;
    assert_eq!(wrapped.ended().await.code(), Some(128 + 9), "{}", wrapped.said());
    assert!(store.is_empty().await);
}

#[tokio::test]
async fn a_command_that_ends_by_itself_ends_it_with_its_code() {
    let mut store = Store::start().await;
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 128 + 15)] {
        // Its check never passes: nobody listens there.
        let mut wrapped = Wrapped::start(&store, &[], &["sh", "-c", script]);
        assert_eq!(wrapped.ended().await.code(), Some(code), "{script}: {}", wrapped.said());
        assert!(store.is_empty().await, "{script}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_said_as_shells_say_it() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("no-program");
    std::fs::write(&file, "").expect("a file");
    for (command, code) in [("/nowhere/at-all", 127), (file.to_str().expect("UTF-8"), 126)] {
        let mut wrapped = Wrapped::start(&store, &[], &[command]);
        assert_eq!(wrapped.ended().await.code(), Some(code), "{}", wrapped.said());
        assert!(wrapped.said().contains(&format!("cannot start {command}")), "{}", wrapped.said());
    }
}

#[tokio::test]
async fn what_a_shell_has_started_hears_of_the_end_too() {
    let mut store = Store::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let mut wrapped = Wrapped::start(&store, &["--check", "none"], &["sh", "-c", &script]);
    store.until(SERVING, true, &wrapped).await;
    let child = Pid::from_raw(i32::try_from(pid(&file).await).expect("a pid is an i32"));
    wrapped.signal(Signal::SIGTERM);
    let status = wrapped.ended().await;
    assert_eq!(status.code(), Some(128 + 15), "{}", wrapped.said());
    assert_eq!(status.signal(), None, "we were not killed ourselves");
    let begin = Instant::now();
    // Until whoever adopted it has waited for it, it is there as a zombie.
    while kill(child, None).is_ok() && !is_zombie(child) {
        assert!(begin.elapsed() < LIMIT, "{child} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_zombie(pid: Pid) -> bool {
    let told = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    told.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).trim().starts_with('Z'))
}

#[tokio::test]
async fn start_1_a_command_is_registered_once_its_check_passes_and_out_while_it_fails() {
    let mut store = Store::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("beat");
    // It is well while a file says so; the file is its heartbeat.
    let script = format!("while :; do [ -e {0}.well ] && date > {0}; sleep 0.05; done", file.display());
    let check = format!("ttl=2s:{}", file.display());
    let mut wrapped =
        Wrapped::start(&store, &["--check", &check, "--interval", "50ms"], &["sh", "-c", &script]);
    let well = folder.path().join("beat.well");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(store.is_empty().await, "it is not well yet: {}", wrapped.said());
    for _ in 0..2 {
        std::fs::write(&well, "").expect("a file");
        store.until(SERVING, true, &wrapped).await;
        std::fs::remove_file(&well).expect("it is there");
        store.until(DRAINING, true, &wrapped).await;
        assert_eq!(store.state(SERVING).await, None);
    }
    wrapped.signal(Signal::SIGTERM);
    assert_eq!(wrapped.ended().await.code(), Some(128 + 15), "{}", wrapped.said());
    assert!(store.is_empty().await);
}

#[tokio::test]
async fn an_address_alone_says_goodbye_at_ctrl_c() {
    let mut store = Store::start().await;
    let mut one = Wrapped::start(&store, &["--check", "none"], &[]);
    store.until(SERVING, true, &one).await;
    one.signal(Signal::SIGINT);
    assert_eq!(one.ended().await.code(), Some(0), "{}", one.said());
    assert!(store.is_empty().await);
    assert_eq!(one.printed.text(), "", "it has no result");
}

#[tokio::test]
async fn an_address_alone_that_is_asked_twice_does_not_wait_for_its_notice() {
    let mut store = Store::start().await;
    for signals in [[Signal::SIGTERM; 2], [Signal::SIGINT; 2], [Signal::SIGINT, Signal::SIGTERM]] {
        let mut one = Wrapped::start(&store, &["--check", "none", "--notice", "1h"], &[]);
        // Its record is there a moment before it knows; asked in between, it gives no notice.
        one.says("registered at").await;
        one.signal(signals[0]);
        store.until(DRAINING, true, &one).await;
        let begin = Instant::now();
        one.signal(signals[1]);
        assert_eq!(one.ended().await.code(), Some(0), "{signals:?}: {}", one.said());
        println!("{signals:?}: ended {} ms after the second", begin.elapsed().as_millis());
        assert!(store.is_empty().await, "{signals:?}: it said goodbye");
    }
}
