//! Wrong command lines: exit 2, the field's name, and what to write instead.

use svcctl::Exit;

use crate::bench::svcctl;

/// Nobody listens there: whoever asks etcd first fails with another code.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn a_wrong_command_line_is_refused_before_etcd_is_asked() {
    let cases: [(&[&str], &str); 37] = [
        (&[], "Usage"),
        (&["explode"], "unrecognized subcommand"),
        (&["get", "a/b"], "service name"),
        (&["get", ""], "service name"),
        (&["get", "a\u{1b}[2J"], "service name"),
        (&["drain", "greeter"], "<ID>"),
        (&["drain", "greeter", "*"], "instance id"),
        (&["drain", "greeter", ""], "instance id"),
        (&["drain", "greeter", "g-1", "--timeout", "1s"], "--wait"),
        (&["drain", "greeter", "g-1", "--ttl", "soon"], "--ttl"),
        (&["drain", "greeter", "g-1", "--ttl", "1ms"], "least is 1s"),
        (&["set", "greeter", "g-1"], "--weight"),
        (&["set", "greeter", "g-1", "--weight", "1000001"], "0 to 1000000"),
        (&["set", "greeter", "g-1", "--tag", "blue"], "NAME=VALUE"),
        (&["set", "greeter", "g-1", "--clear", "--weight", "1"], "--clear"),
        (&["register", "legacy"], "--address"),
        (&["register", "a/b", "--address", "h:1"], "service name"),
        (&["register", "a", "--address", "h"], "no port"),
        (&["register", "a", "--address", "0.0.0.0:1"], "cannot be dialled"),
        (&["register", "a", "--address", "h:1", "--id", "*"], "instance id"),
        (
            &["register", "a", "--address", "h:1", "--check", "ping"],
            "--check: \"ping\" is no check; write tcp",
        ),
        (&["register", "a", "--address", "h:1", "--check", "ttl=30s"], "ttl=DURATION:FILE"),
        (&["register", "a", "--address", "h:1", "--check", "tcp://\u{1b}[2J"], "--check"),
        (&["register", "a", "--address", "h:1", "--check", "grpc", "--tls"], "without TLS"),
        (&["register", "a", "--address", "h:1", "--interval", "0s"], "interval"),
        (&["register", "a", "--address", "h:1", "--timeout", "0s"], "timeout"),
        (&["register", "a", "--address", "h:1", "--failures", "0"], "failures"),
        (&["register", "a", "--address", "h:1", "--successes", "0"], "successes"),
        (&["register", "a", "--address", "h:1", "--ttl", "10ms"], "ttl"),
        (&["register", "a", "--address", "h:1", "--notice", "1y"], "--notice"),
        (&["register", "a", "--address", "h:1", "--tag", "blue"], "NAME=VALUE"),
        (&["register", "a", "--address", "h:1", "sleep", "1"], "unexpected argument"),
        (&["get", "-o", "yaml"], "json"),
        (&["get", "--prefix", "services"], "prefix"),
        (&["get", "--cacert", "ca.pem"], "--cacert: TLS: ca.pem"),
        (&["get", "--command-timeout", "0s"], "command-timeout"),
        (&["dev", "--listen", "2379"], "--listen"),
    ];
    for (line, part) in cases {
        let ran = svcctl(NOWHERE, line).await;
        assert_eq!(ran.exit, Exit::Usage, "{line:?}: {ran:?}");
        assert!(ran.err.contains(part), "{line:?} names {part:?}: {}", ran.err);
        assert!(!ran.err.contains('\u{1b}'), "{line:?}: {:?}", ran.err);
        assert_eq!(ran.out, "", "{line:?}: no result");
    }
}

#[tokio::test]
async fn wrong_endpoints_are_refused_by_name() {
    for endpoints in ["", "nohost", "127.0.0.1:0", "ftp://127.0.0.1:2379", "http://a:1,https://b:1"] {
        let ran = svcctl(endpoints, &["get"]).await;
        assert_eq!(ran.exit, Exit::Usage, "{endpoints:?}: {ran:?}");
        assert!(ran.err.contains("endpoints"), "{endpoints:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = svcctl(NOWHERE, &["dev", "--listen", &taken.local_addr().unwrap().to_string()]).await;
    assert_eq!(ran.exit, Exit::Other, "{ran:?}");
    assert!(ran.err.contains("port 0"), "{}", ran.err);
}
