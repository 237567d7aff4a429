//! How `svcctl demo` ends when it does not reach its end: nothing may be left behind. (That it reaches its end is
//! what `make demo` shows, which the gate runs.)

mod binaries;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use svc_tests::etcd::TestEtcd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use binaries::folder;

/// Longer than any part of the demo that is waited for here.
const LIMIT: Duration = Duration::from_secs(60);

fn demo(binary: &Path, etcd: Option<&str>) -> Command {
    let mut command = Command::new(binary);
    command.arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // It must never find what an operator's shell points at.
    command.env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").env("SVC_PREFIX", "/not-for-the-demo");
    match etcd {
        Some(url) => command.env("DEMO_ETCD", url),
        None => command.env_remove("DEMO_ETCD"),
    };
    command
}

/// Reads its stdout up to a line that holds `part`.
async fn until_told(demo: &mut Child, part: &str) -> BufReader<tokio::process::ChildStdout> {
    let mut out = BufReader::new(demo.stdout.take().expect("it is piped"));
    let mut told = String::new();
    timeout(LIMIT, async {
        while !told.contains(part) {
            let read = out.read_line(&mut told).await.expect("UTF-8");
            assert!(read > 0, "it ended before {part:?}: {told}");
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{part:?} is not told: {told}"));
    out
}

/// The command lines of the running processes that hold `marker`, this test's own aside.
fn actors(marker: &str) -> Vec<String> {
    // A bare Linux has no ps, and macOS no /proc.
    let lines: Vec<String> = match std::fs::read_dir("/proc") {
        Ok(all) => all
            .filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect(),
        Err(_) => {
            let output =
                std::process::Command::new("ps").args(["-eo", "args"]).output().expect("there is a ps");
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
    };
    lines.into_iter().filter(|line| line.contains(marker)).collect()
}

svc_tests::etcd_tests! {
    async fn an_interrupted_demo_leaves_no_key_and_no_process(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.put("/somebody/else", "stays", None).await.expect("etcd is up");
        let mut demo = demo(&folder().join("svcctl"), Some(&etcd.url())).spawn().expect("it starts");
        let mut out = until_told(&mut demo, "killed with SIGKILL").await;
        let keys = etcd.client().await.get("/svcctl-demo-", prefix()).await.expect("etcd is up");
        assert!(!keys.kvs().is_empty(), "it runs on the given etcd, under a prefix of its own");
        let marker = keys.kvs()[0].key_str().expect("UTF-8").split('/').nth(1).expect("a prefix").to_owned();
        assert!(!actors(&marker).is_empty(), "greeters run");

        let pid = Pid::from_raw(demo.id().expect("it runs").try_into().expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let mut rest = String::new();
        while out.read_line(&mut rest).await.expect("UTF-8") > 0 {}
        let status = timeout(LIMIT, demo.wait()).await.expect("it ends").expect("it is our child");
        assert_eq!(status.code(), Some(1), "{rest}");
        assert!(rest.lines().last().is_some_and(|last| last.contains("not ok: interrupted")), "{rest}");
        let left = etcd.client().await.get("/", prefix()).await.expect("etcd is up");
        let left: Vec<_> = left.kvs().iter().map(|pair| pair.key_str().expect("UTF-8").to_owned()).collect();
        assert_eq!(left, ["/somebody/else"], "and nothing of anybody else's is gone");
        for _ in 0..100 {
            if actors(&marker).is_empty() {
                break;
            }
            // A killed process is listed until it is reaped.
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(actors(&marker), Vec::<String>::new());
        let logs = rest.lines().find_map(|line| line.split_once("words are in ")).expect("the logs are named").1;
        assert!(Path::new(logs).join("greeter-1.log").is_file(), "{rest}");
        std::fs::remove_dir_all(logs).expect("a folder of the demo's");
    }
}

fn prefix() -> Option<etcd_client::GetOptions> {
    Some(etcd_client::GetOptions::new().with_prefix())
}

#[tokio::test]
async fn an_etcd_that_cannot_be_reached_is_said_before_anything_starts() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = demo(&folder().join("svcctl"), Some(&free)).output();
    let output = timeout(LIMIT, output).await.expect("it ends").expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains(&free), "{err}");
}

#[tokio::test]
async fn a_wrong_url_is_refused() {
    for (url, part) in [("ftp://127.0.0.1:2379", "scheme"), ("nonsense", "endpoints")] {
        let output = demo(&folder().join("svcctl"), Some(url)).output();
        let output = timeout(LIMIT, output).await.expect("it ends").expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(part), "{err}");
    }
}

#[tokio::test]
async fn without_the_binaries_beside_it_the_demo_says_how_to_build_them() {
    let alone = tempfile::tempdir().expect("a folder");
    let svcctl = alone.path().join("svcctl");
    std::fs::copy(folder().join("svcctl"), &svcctl).expect("it is there");
    let output = timeout(LIMIT, demo(&svcctl, None).output()).await.expect("it ends").expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("make build"), "{err}");
}
