//! The load against real greeters on loopback: what it counts, when it ends, and the JSON that scripts rely on.

use std::process::Stdio;
use std::time::Duration;

use demo_services::greeter::Greeter;
use demo_services::load::{Client, Load, Report, Rpc};
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_resolver::Resolver;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// Starts a greeter that lives as long as the test's runtime; gives its address.
async fn greeter(instance: &str, delay: Duration, fail_percent: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    let greeter = Greeter::new(delay, fail_percent);
    greeter.sign_as(instance);
    let service = GreeterServer::new(greeter);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn client(addresses: &[String]) -> Client {
    let resolver = Resolver::fixed([("greeter", addresses.to_vec())]);
    Client::Balanced(GreeterClient::new(resolver.channel("greeter").expect("a valid target")))
}

fn load(callers: u32, rate: u32, time: Duration, rpc: Rpc) -> Load {
    let (target, policy) = ("greeter".into(), "default".into());
    Load { target, policy, callers, rate, time, deadline: Duration::from_secs(5), rpc }
}

async fn run(load: &Load, client: Client) -> Report {
    load.run(client, |_| {}, std::future::pending()).await
}

#[tokio::test]
async fn every_call_is_counted_once_and_by_its_instance() {
    let addresses = [greeter("g-1", Duration::ZERO, 0).await, greeter("g-2", Duration::ZERO, 0).await];
    let report = run(&load(4, 200, Duration::from_millis(500), Rpc::Unary), client(&addresses)).await;
    assert_eq!((report.failed, report.ok), (0, report.calls), "{report:?}");
    assert_eq!(report.by_instance.values().sum::<u64>(), report.calls, "{report:?}");
    assert_eq!(report.by_instance.len(), 2, "{report:?}");
    assert!((1..=101).contains(&report.calls), "200 a second over all callers, not each: {report:?}");
    assert!(
        report.p50_ms > 0.0 && report.p50_ms <= report.p99_ms && report.p99_ms <= report.max_ms,
        "{report:?}"
    );
}

#[tokio::test]
async fn failures_are_counted_by_code_and_are_no_replies() {
    let addresses = [greeter("g-1", Duration::ZERO, 25).await];
    let report = run(&load(1, 0, Duration::from_millis(300), Rpc::Unary), client(&addresses)).await;
    assert!(report.failed > 0, "{report:?}");
    assert_eq!(report.by_code.get("UNAVAILABLE"), Some(&report.failed), "{report:?}");
    assert_eq!(report.by_instance["g-1"], report.ok, "{report:?}");
    assert_eq!(report.failed, report.calls / 4, "every fourth: {report:?}");
}

#[tokio::test]
async fn a_stream_is_one_call_with_many_replies() {
    let addresses = [greeter("g-1", Duration::ZERO, 0).await];
    let rpc = Rpc::Stream { replies: 7, interval: Duration::from_millis(1) };
    let report = run(&load(2, 20, Duration::from_millis(300), rpc), client(&addresses)).await;
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(report.by_instance["g-1"], report.calls * 7, "{report:?}");
}

#[tokio::test]
async fn open_calls_are_awaited_when_the_run_is_stopped() {
    let addresses = [greeter("g-1", Duration::from_millis(400), 0).await];
    let (callers, forever) = (3, Duration::from_secs(3600));
    let load = load(callers, 0, forever, Rpc::Unary);
    // All callers are in their first call when it is stopped.
    let stop = tokio::time::sleep(Duration::from_millis(200));
    let report = load.run(client(&addresses), |_| {}, stop).await;
    assert_eq!((report.calls, report.failed), (callers.into(), 0), "{report:?}");
}

#[tokio::test]
async fn the_binary_exits_0_with_json_on_stdout_whatever_failed() {
    let address = greeter("g-1", Duration::ZERO, 50).await;
    let target = format!("static:///{address}");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_greeter-load"))
        .args([
            "--target",
            &target,
            "--callers",
            "2",
            "--rate",
            "100",
            "--seconds",
            "1",
            "--policy",
            "round_robin",
        ])
        .args(["--progress", "json", "-o", "json"])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("one JSON object and nothing else");
    let keys: Vec<&str> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    for key in [
        "target",
        "policy",
        "seconds",
        "calls",
        "ok",
        "failed",
        "by_code",
        "by_instance",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "longest_gap_ms",
    ] {
        assert!(keys.contains(&key), "{key} is missing: {out}");
    }
    assert_eq!((&report["target"], &report["policy"]), (&target.into(), &"round_robin".into()));
    assert!(report["failed"].as_u64() > Some(0), "{out}");
    let progress: Vec<Report> = err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(!progress.is_empty(), "progress goes to stderr: {err}");
}

#[tokio::test]
async fn a_wrong_command_line_says_what_to_write() {
    for (arguments, part) in [
        (["--policy", "fastest"], "least_request"),
        (["--policy", "fastest"], "tonic"),
        (["--rpc", "both"], "unary"),
        (["--deadline", "soon"], "--deadline"),
        (["--callers", "0"], "--callers"),
        (["--target", "ftp://x/y"], "scheme"),
        (["--target", "a/b"], "service"),
        (["--cacert", "ca.pem"], "TLS"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_greeter-load"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(err.contains(part), "{arguments:?} names {part:?}: {err}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
