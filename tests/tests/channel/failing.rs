//! BAL-11, BAL-12, BAL-15 and BAL-16: backends that answer with failures, and what is done about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use svc_channel::{Channel, EndpointState, ServiceConfig};
use svc_proto::greeter::v1::HelloRequest;
use svc_tests::backends::Fleet;
use svc_tests::raw_h2::{RawServer, Setting};
use tonic::Code;

use crate::load::Load;
use crate::support::{
    endpoint, endpoints, greeter, hello, in_state, patiently, seen, until, until_idle, until_ready,
};

#[tokio::test]
async fn bal_11_a_backend_that_fails_fast_is_ejected_and_not_preferred() {
    let fleet = Fleet::start(4).await;
    for backend in fleet.iter() {
        backend.set_delay(std::time::Duration::from_millis(2));
    }
    fleet[2].set_delay(std::time::Duration::ZERO);
    fleet[2].set_fail_percent(100);
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    let load = Load::start(&channel, 16, None);
    until(&channel, |dump| seen(dump, "b2").is_some_and(|e| e.state == EndpointState::Ejected)).await;
    let failed = load.tally().failed.len();
    load.more(500).await;
    let tally = load.finish().await;
    // Those of the 16 callers that were with it when the fifth failure in a row was counted.
    assert!(failed <= 5 + 16, "{failed} failures before the ejection");
    assert!(tally.failed.len() <= 5 + 16, "and none after: {}", tally.failed.len());
    println!("BAL-11: of {} calls failed: {}", tally.ok, tally.failed.len());
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_12_where_all_fail_traffic_goes_on_to_all() {
    let fleet = Fleet::start(4).await;
    for backend in fleet.iter() {
        backend.set_fail_percent(100);
    }
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    for _ in 0..200 {
        hello(&channel).await.expect_err("all fail");
    }
    let before = fleet.calls();
    for _ in 0..400 {
        let status = hello(&channel).await.expect_err("all fail");
        assert!(!status.message().contains("no endpoint is ready"), "no blackout: {status}");
    }
    let after = fleet.calls();
    let shares: Vec<_> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    assert!(shares.iter().all(|share| *share > 0), "traffic goes on to all: {shares:?}");
    assert!(in_state(&channel.dump(), EndpointState::Ready) >= 1, "the last is never ejected");
}

const RETRY: &str = r#"{
    "methodConfig": [{"name": [{}], "retryPolicy": {
        "maxAttempts": 5, "initialBackoff": "0.001s", "maxBackoff": "0.01s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]}}],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
}"#;

fn retrying() -> ServiceConfig {
    RETRY.parse().expect("a good config")
}

/// A server that turns every call down with UNAVAILABLE, and counts them.
async fn turning_down() -> (RawServer, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let server = RawServer::start(move |mut peer| {
        let count = count.clone();
        async move {
            // Room for large bodies, which the script does not give back as it reads.
            peer.handshake(&[Setting::InitialWindowSize(1 << 21)]).await?;
            peer.window_update(0, 1 << 21).await?;
            loop {
                let stream = peer.call().await?;
                count.fetch_add(1, SeqCst);
                peer.trailers_only(stream, 14, "not now").await?;
            }
        }
    })
    .await;
    (server, calls)
}

#[tokio::test]
async fn bal_15_where_all_calls_fail_retries_stop_at_the_throttle() {
    const CALLS: usize = 500;
    let (server, attempts) = turning_down().await;
    let channel = Channel::builder().service_config(retrying()).fixed([endpoint("raw", &server.address())]);
    for _ in 0..CALLS {
        assert_eq!(hello(&channel).await.expect_err("turned down").code(), Code::Unavailable);
    }
    let retries = attempts.load(SeqCst) - CALLS;
    // A hundred tokens, of which failures may take fifty before retries end.
    assert!(
        (1..50).contains(&retries),
        "{retries} retries of {CALLS} calls, without a throttle {}",
        4 * CALLS
    );
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_16_a_body_larger_than_the_replay_buffer_is_sent_once() {
    let (server, attempts) = turning_down().await;
    let channel = Channel::builder().service_config(retrying()).fixed([endpoint("raw", &server.address())]);
    // Together 1.25 MiB, more than is kept; each alone within the peer's window.
    let large = || HelloRequest { name: "x".repeat(16 * 1024) };
    let mut client = greeter(&channel);
    let call = client.lots_of_greetings(tokio_stream::iter((0..80).map(move |_| large())));
    let status = patiently("a call with a large body", call).await.expect_err("turned down");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(attempts.load(SeqCst), 1, "after bytes left that are not kept it is never sent again");
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_proxys_503_is_retried_as_unavailable() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.headers(stream, &[(":status", "503")], true).await?;
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::builder().service_config(retrying()).fixed([endpoint("raw", &server.address())]);
    assert_eq!(hello(&channel).await.expect("sent again").instance, "raw");
    until_idle(&channel).await;
}
