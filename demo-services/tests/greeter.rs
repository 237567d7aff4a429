//! The greeter as a process: what it says of a wrong command line, and that it needs no etcd to serve.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

fn greeter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greeter"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_wrong_value_is_refused_with_its_flag_and_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &str); 9] = [
        (&["--listen", &taken], "in use"),
        (&["--listen", "nowhere"], "listen"),
        (&["--id", "a/b"], "instance id"),
        (&["--weight", "1.5"], "integer"),
        (&["--weight", "9999999"], "1000000"),
        (&["--ttl", "soon"], "--ttl"),
        (&["--fail-percent", "101"], "--fail-percent"),
        (&["--endpoints", "127.0.0.1"], "2379"),
        (&["--cacert", "ca.pem"], "TLS"),
    ];
    for (arguments, part) in cases {
        let output = timeout(Duration::from_secs(30), greeter(arguments).output()).await;
        let output = output.expect("it ends by itself").expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?} names {part:?}: {err}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn it_serves_without_etcd_and_stops_in_order_when_asked() {
    use svc_proto::greeter::v1::HelloRequest;
    use svc_proto::greeter::v1::greeter_client::GreeterClient;

    // Bound and dropped: two ports where nobody listens, one for an etcd that is away.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (listen, etcd) = (free(), free());
    let arguments = ["--listen", &listen, "--endpoints", &etcd, "--id", "g-1"];
    let mut process = greeter(&arguments).stderr(Stdio::null()).spawn().expect("it starts");
    let channel = tonic::transport::Channel::from_shared(format!("http://{listen}")).unwrap().connect_lazy();
    let mut client = GreeterClient::new(channel);
    let reply = timeout(Duration::from_secs(30), async {
        loop {
            match client.say_hello(HelloRequest { name: "ada".into() }).await {
                Ok(reply) => return reply.into_inner(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    assert_eq!(reply.await.expect("it serves").instance, "g-1");

    let pid = process.id().expect("it runs").to_string();
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .status()
        .await
        .expect("there is a shell");
    assert!(sent.success());
    let status = timeout(Duration::from_secs(60), process.wait()).await.expect("it ends").expect("our child");
    assert!(status.success(), "an orderly stop is no error, with etcd away too: {status}");
}
