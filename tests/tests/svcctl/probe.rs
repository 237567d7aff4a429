//! `probe`: one address is asked, and no etcd.

use svcctl::Exit;
use tokio::net::TcpListener;
use tonic_health::ServingStatus;

use crate::bench::{Ran, svcctl};

/// Nobody listens there, and nobody has to.
const NO_ETCD: &str = "127.0.0.1:1";

async fn probe(arguments: &[&str]) -> Ran {
    svcctl(NO_ETCD, &[&["probe"], arguments].concat()).await
}

#[tokio::test]
async fn the_exit_code_says_whether_an_address_serves() {
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    // Ends with the test's runtime.
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));

    let serves = probe(&[&address, "--timeout", "30s"]).await;
    assert_eq!((serves.exit, serves.out), (Exit::Ok, format!("{address} serves\n")), "{}", serves.err);
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let drained = probe(&[&address, "--timeout", "30s"]).await;
    assert_eq!(drained.exit, Exit::Other);
    assert!(drained.err.contains("NOT_SERVING"), "{}", drained.err);
    let other = probe(&[&address, "--service", "a.v1.Stranger", "--timeout", "30s"]).await;
    assert_eq!(other.exit, Exit::Other);
    assert!(other.err.contains("does not know that name"), "{}", other.err);
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let ran = probe(&[&address, "--timeout", "200ms"]).await;
    assert_eq!(ran.exit, Exit::Other);
    assert!(ran.err.contains("no answer within 200ms"), "{}", ran.err);
}
