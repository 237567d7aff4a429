//! Hedged calls (gRFC A6): another endpoint is asked when the first is slow, and the losers are cancelled.

use std::time::Duration;

use svc_channel::{Channel, RoundRobin, ServiceConfig};
use svc_proto::greeter::v1::HelloRequest;
use svc_tests::backends::{Backend, Fleet};
use svc_tests::raw_h2::{RawServer, error};
use tokio::sync::mpsc;
use tonic::Code;

use crate::support::{endpoint, endpoints, greeter, hello, hello_within, patiently, until_idle, until_ready};

/// Far beyond what a call takes: a test whose next attempt waits for this hangs.
const NEVER: &str = "3600s";

fn hedging(attempts: u32, delay: &str) -> ServiceConfig {
    let json = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], "hedgingPolicy": {{
            "maxAttempts": {attempts}, "hedgingDelay": "{delay}", "nonFatalStatusCodes": ["UNAVAILABLE"]}}}}],
            "retryThrottling": {{"maxTokens": 10, "tokenRatio": 0.1}}}}"#
    );
    json.parse().expect("a good config")
}

async fn over(fleet: &Fleet, config: ServiceConfig) -> Channel {
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .service_config(config)
        .fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, fleet.len()).await;
    channel
}

#[tokio::test]
async fn a_slow_endpoint_is_hedged_and_the_loser_is_cancelled_at_the_server() {
    let fleet = Fleet::start(2).await;
    let channel = over(&fleet, hedging(2, "0.01s")).await;
    fleet[0].hold();
    for _ in 0..10 {
        let reply = hello(&channel).await.expect("the other endpoint's");
        assert_eq!(reply.instance, "b1");
    }
    // Their handlers are held: only a reset ends them.
    fleet[0].until(|counts| counts.open == 0).await;
    assert!(fleet[0].counts().calls >= 1, "some began there");
    until_idle(&channel).await;
    assert_eq!(fleet.accepted(), 2, "the connections live");
}

#[tokio::test]
async fn the_losers_are_reset_with_cancel() {
    let (codes, mut seen) = mpsc::channel(8);
    let slow = RawServer::start(move |mut peer| {
        let codes = codes.clone();
        async move {
            peer.handshake(&[]).await?;
            loop {
                let stream = peer.call().await?;
                let code = peer.reset_of(stream).await?;
                codes.send(code).await.expect("the test listens");
            }
        }
    })
    .await;
    let backend = Backend::start("fast").await;
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .service_config(hedging(2, "0s"))
        .fixed([endpoint("slow", &slow.address()), endpoint("fast", &backend.address())]);
    until_ready(&channel, 2).await;
    for _ in 0..4 {
        assert_eq!(hello(&channel).await.expect("the fast one's").instance, "fast");
        assert_eq!(patiently("the reset", seen.recv()).await, Some(error::CANCEL));
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn attempts_of_a_call_never_meet_on_an_endpoint_while_there_are_others() {
    const ENDPOINTS: usize = 4;
    let fleet = Fleet::start(ENDPOINTS).await;
    // The default policy, which picks at random.
    let channel = Channel::builder()
        .service_config(hedging(ENDPOINTS as u32, "0s"))
        .fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, ENDPOINTS).await;
    fleet.iter().for_each(|backend| backend.hold());
    for round in 1..=20 {
        let call = {
            let channel = channel.clone();
            tokio::spawn(async move { hello(&channel).await })
        };
        for backend in fleet.iter() {
            backend.until(|counts| counts.open == 1).await;
        }
        assert_eq!(fleet.calls(), [round; ENDPOINTS], "one attempt each");
        call.abort();
        for backend in fleet.iter() {
            backend.until(|counts| counts.open == 0).await;
        }
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn with_one_endpoint_the_attempts_share_it() {
    let fleet = Fleet::start(1).await;
    let channel = over(&fleet, hedging(3, "0s")).await;
    fleet[0].hold();
    let call = {
        let channel = channel.clone();
        tokio::spawn(async move { hello(&channel).await })
    };
    fleet[0].until(|counts| counts.open == 3).await;
    fleet[0].release();
    patiently("the call", call).await.expect("no panic").expect("a reply");
    until_idle(&channel).await;
}

#[tokio::test]
async fn after_a_nonfatal_failure_the_next_attempt_begins_at_once() {
    let fleet = Fleet::start(2).await;
    let channel = over(&fleet, hedging(2, NEVER)).await;
    fleet[0].set_fail_percent(100);
    // Failures take a token, successes a tenth: few calls, or the throttle would have its say.
    for _ in 0..4 {
        assert_eq!(hello(&channel).await.expect("the other's").instance, "b1");
    }
    assert!(fleet[0].counts().calls >= 1);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_fatal_failure_ends_all_attempts() {
    let failing = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        loop {
            let stream = peer.call().await?;
            peer.trailers_only(stream, Code::Internal as i32, "broken").await?;
        }
    })
    .await;
    let held = Backend::start("held").await;
    held.hold();
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .service_config(hedging(2, "0s"))
        .fixed([endpoint("failing", &failing.address()), endpoint("held", &held.address())]);
    until_ready(&channel, 2).await;
    let status = hello(&channel).await.expect_err("it is broken");
    assert_eq!((status.code(), status.message()), (Code::Internal, "broken"));
    held.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
}

/// A server that turns every call down with UNAVAILABLE and this pushback.
async fn pushing_back(pushback: &'static str) -> RawServer {
    RawServer::start(move |mut peer| async move {
        peer.handshake(&[]).await?;
        loop {
            let stream = peer.call().await?;
            let fields = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", "14"),
                ("grpc-retry-pushback-ms", pushback),
            ];
            peer.headers(stream, &fields, true).await?;
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_pushes_back_is_obeyed() {
    for (pushback, served) in [("-1", false), ("5", true)] {
        let server = pushing_back(pushback).await;
        let backend = Backend::start("b1").await;
        let channel = Channel::builder()
            .policy(RoundRobin::new())
            .service_config(hedging(2, NEVER))
            .fixed([endpoint("raw", &server.address()), endpoint("b1", &backend.address())]);
        until_ready(&channel, 2).await;
        let mut ends = Vec::new();
        for _ in 0..2 {
            ends.push(hello(&channel).await.is_ok());
        }
        ends.sort_unstable();
        assert_eq!(ends, [served, true], "one of two calls begins at the server that pushes back {pushback}");
        assert_eq!(backend.counts().calls, 1 + u64::from(served));
    }
}

#[tokio::test]
async fn where_most_attempts_fail_hedges_stop_at_the_throttle() {
    const CALLS: u64 = 100;
    let fleet = Fleet::start(3).await;
    fleet.iter().for_each(|backend| backend.set_fail_percent(100));
    let channel = over(&fleet, hedging(3, NEVER)).await;
    for _ in 0..CALLS {
        assert_eq!(hello(&channel).await.expect_err("all fail").code(), Code::Unavailable);
    }
    let attempts: u64 = fleet.calls().iter().sum();
    // Ten tokens, of which failures may take five before hedges end.
    assert!((CALLS + 1..=CALLS + 5).contains(&attempts), "{attempts} attempts of {CALLS} calls");
}

#[tokio::test]
async fn the_deadline_ends_all_attempts() {
    let fleet = Fleet::start(2).await;
    let channel = over(&fleet, hedging(2, "0s")).await;
    fleet.iter().for_each(|backend| backend.hold());
    let status = hello_within(&channel, Some(Duration::from_millis(200))).await.expect_err("both are held");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    for backend in fleet.iter() {
        assert_eq!(backend.counts().calls, 1, "both were asked");
        backend.until(|counts| counts.open == 0).await;
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_request_that_is_not_wholly_there_is_sent_once() {
    let fleet = Fleet::start(2).await;
    let channel = over(&fleet, hedging(2, "0s")).await;
    let (names, requests) = mpsc::channel(1);
    let mut client = greeter(&channel);
    let call = tokio::spawn(async move {
        client.lots_of_greetings(tokio_stream::wrappers::ReceiverStream::new(requests)).await
    });
    for n in 0..10 {
        names.send(HelloRequest { name: n.to_string() }).await.expect("the call is open");
    }
    drop(names);
    let reply = patiently("the stream", call).await.expect("no panic").expect("a reply").into_inner();
    assert_eq!(reply.count, 10);
    assert_eq!(fleet.iter().map(|backend| backend.counts().streams).sum::<u64>(), 1);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_hedge_waits_for_a_stream_and_for_an_endpoint_without_harm_to_the_first_attempt() {
    // The only other endpoint allows no stream: the hedge waits, and the first attempt is answered.
    let full = RawServer::start(|mut peer| async move {
        peer.handshake(&[svc_tests::raw_h2::Setting::MaxConcurrentStreams(0)]).await?;
        peer.until_closed().await
    })
    .await;
    let backend = Backend::start("b1").await;
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .service_config(hedging(2, "0s"))
        .fixed([endpoint("full", &full.address()), endpoint("b1", &backend.address())]);
    until_ready(&channel, 2).await;
    backend.hold();
    let call = {
        let channel = channel.clone();
        tokio::spawn(async move { hello(&channel).await })
    };
    backend.until(|counts| counts.open == 1).await;
    backend.release();
    assert_eq!(patiently("the call", call).await.expect("no panic").expect("a reply").instance, "b1");
    assert_eq!(backend.counts().calls, 1, "no second attempt on the same endpoint");
    until_idle(&channel).await;
}
