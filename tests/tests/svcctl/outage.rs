//! etcd away: every command says so, in time, with its own exit code.

use std::time::Duration;

use svc_tests::etcd::{Kind, TestEtcd, run};
use svcctl::Exit;

use crate::bench::svcctl;

/// Every command that needs etcd.
const COMMANDS: [&[&str]; 7] = [
    &["services"],
    &["get", "greeter"],
    &["watch", "greeter"],
    &["drain", "greeter", "g-1", "--wait"],
    &["resolve", "greeter"],
    &["undrain", "greeter", "g-1"],
    &["deregister", "greeter", "g-1"],
];

async fn all_say_unreachable(etcd: &str) {
    let commands = COMMANDS.map(|command| async move {
        let started = tokio::time::Instant::now();
        let line: Vec<&str> = command.iter().copied().chain(["--command-timeout", "1s"]).collect();
        let ran = svcctl(etcd, &line).await;
        assert_eq!(ran.exit, Exit::Unreachable, "{command:?}: {ran:?}");
        assert!(ran.err.contains(etcd), "{command:?} names the endpoint: {}", ran.err);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{command:?} took {took:?} with a timeout of 1s");
    });
    futures_util::future::join_all(commands).await;
}

#[tokio::test]
async fn cli_1_nobody_listens() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    all_say_unreachable(&free.to_string()).await;
}

#[tokio::test]
async fn cli_1_the_link_swallows_everything() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    all_say_unreachable(&listener.local_addr().unwrap().to_string()).await;
}

#[tokio::test]
async fn cli_1_a_listener_that_is_no_etcd() {
    let etcd = TestEtcd::start_kind(Kind::Embedded).await.expect("the embedded one");
    etcd.freeze();
    all_say_unreachable(&etcd.address()).await;
    etcd.thaw();
}

/// An etcd with users, to which we come as nobody. The embedded one has none.
async fn all_say_denied(etcd: TestEtcd) {
    let mut client = etcd.client().await;
    client.user_add("root", "secret", None).await.expect("a user");
    client.user_grant_role("root", "root").await.expect("a role");
    client.auth_enable().await.expect("users from now on");
    for command in COMMANDS {
        let ran = svcctl(&etcd.url(), command).await;
        assert_eq!(ran.exit, Exit::Denied, "{command:?}: {ran:?}");
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{command:?}: {ran:?}");
    }
}

#[test]
fn cli_1_no_permission_on_etcd_3_4() {
    run(Kind::Etcd34, &Default::default(), all_say_denied);
}

#[test]
fn cli_1_no_permission_on_etcd_3_5() {
    run(Kind::Etcd35, &Default::default(), all_say_denied);
}
