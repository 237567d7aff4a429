//! BAL-21: peers that are no gRPC servers are never Ready, harm nobody, and the error says what they are.

use std::time::Duration;

use svc_channel::{Channel, EndpointState};
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{self, RawServer};
use tonic::Code;

use crate::support::{endpoint, hello, in_state, seen, until};

async fn never_ready(stranger: RawServer, says: &str) {
    let channel = Channel::builder()
        .name("greeter")
        .connect_timeout(Duration::from_millis(500))
        .max_backoff(Duration::from_millis(100))
        .fixed([endpoint("stranger", &stranger.address())]);
    let status = hello(&channel).await.expect_err("it is no gRPC server");
    assert_eq!(status.code(), Code::Unavailable);
    for part in ["greeter", "stranger", says] {
        assert!(status.message().contains(part), "{part:?} is missing in {status}");
    }
    stranger.until_accepted(3).await;
    let dump = channel.dump();
    assert_eq!(in_state(&dump, EndpointState::Ready), 0, "{dump:?}");
}

async fn harms_nobody(stranger: RawServer) {
    let backend = Backend::start("b0").await;
    let channel = Channel::builder()
        .connect_timeout(Duration::from_millis(300))
        .max_backoff(Duration::from_millis(50))
        .fixed([endpoint("stranger", &stranger.address()), endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("one is good");
    until(&channel, |dump| seen(dump, "stranger").is_some_and(|stranger| stranger.last_error.is_some()))
        .await;
    for _ in 0..100 {
        assert_eq!(hello(&channel).await.expect("one is good").instance, "b0");
    }
    stranger.until_accepted(2).await;
}

#[tokio::test]
async fn bal_21_a_listener_that_never_speaks_is_never_ready() {
    never_ready(raw_h2::silent().await, "does not speak").await;
    harms_nobody(raw_h2::silent().await).await;
}

#[tokio::test]
async fn bal_21_a_server_of_http1_is_never_ready() {
    never_ready(raw_h2::http1().await, "HTTP/1.1").await;
    harms_nobody(raw_h2::http1().await).await;
}

#[tokio::test]
async fn bal_21_a_server_of_tls_is_never_ready() {
    never_ready(raw_h2::tls().await, "TLS").await;
    harms_nobody(raw_h2::tls().await).await;
}
