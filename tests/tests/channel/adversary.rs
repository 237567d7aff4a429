//! Holes that somebody looked for: what must not hang, starve or break, whatever callers, policies and peers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::Full;
use svc_channel::{
    BoxIo, Call, Channel, Endpoint, PickFirst, Picker, Policy, RoundRobin, Subchannel, connector_fn,
};
use svc_proto::greeter::v1::HelloRequest;
use svc_tests::backends::{Backend, Fleet};
use svc_tests::raw_h2::{RawServer, Setting, error};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::body::Body;
use tower::discover::Change;
use tower::{BoxError, ServiceExt};

use crate::support::{
    changing, endpoint, endpoints, greeter, hello, hello_within, patiently, until_idle, until_ready,
};

/// A unary call as bytes, for services that are called without a generated client.
fn raw_request() -> http::Request<Body> {
    let mut request = http::Request::new(Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/greeter.v1.Greeter/SayHello");
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
    request
}

#[tokio::test]
async fn a_call_outlives_the_channel_that_it_was_made_on() {
    let backend = Backend::start("b0").await;
    // `oneshot` drops the service as soon as it has called it; the endpoint is not even being dialled then.
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let response =
        patiently("the call", channel.oneshot(raw_request())).await.expect("it is connected for the call");
    assert_eq!(response.status(), 200);
    drop(response);
    backend.until(|counts| counts.calls == 1 && counts.connections == 0).await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_stream_is_not_starved_by_one_that_never_rests() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(1)]).await?;
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let greedy = tokio::spawn({
        let (channel, turns) = (channel.clone(), turns.clone());
        async move {
            loop {
                hello(&channel).await.expect("it has its turns");
                turns.fetch_add(1, Relaxed);
            }
        }
    });
    for _ in 0..100 {
        hello(&channel).await.expect("it has its turns too");
    }
    greedy.abort();
    let turns = turns.load(Relaxed);
    println!("100 turns of the one, {turns} of the other");
    assert!((20..500).contains(&turns), "{turns} turns against 100");
}

#[tokio::test]
async fn headers_that_http2_forbids_fail_no_call_and_hang_none() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
        request.metadata_mut().insert(name, "close".parse().expect("ascii"));
        let reply = patiently(name, greeter(&channel).say_hello(request)).await;
        assert!(reply.is_ok(), "{name} is dropped, as by tonic's own channel: {reply:?}");
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_message_that_cannot_be_encoded_fails_its_call_and_no_other() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let mut narrow = greeter(&channel).max_encoding_message_size(100);
    let large = HelloRequest { name: "x".repeat(1_000) };
    let status = patiently("the call", narrow.say_hello(large.clone())).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let small = HelloRequest { name: "x".into() };
    // The second message comes when the stream is under way.
    let (say, said) = mpsc::channel(1);
    let call = tokio::spawn(async move { narrow.lots_of_greetings(ReceiverStream::new(said)).await });
    say.send(small).await.expect("the stream is open");
    backend.until(|counts| counts.streams == 1).await;
    say.send(large).await.expect("the stream is open");
    let status = patiently("the stream", call).await.expect("no panic").expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
    hello(&channel).await.expect("the connection lives");
    assert_eq!(backend.counts().accepted, 1);
}

#[tokio::test]
async fn an_answer_before_the_callers_stream_has_ended_is_an_answer() {
    // RFC 9113, section 8.1: a server that has answered may ask for no more of the request by RST_STREAM(NO_ERROR).
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        loop {
            let stream = peer.head().await?;
            peer.answer(stream, "early").await?;
            peer.reset(stream, error::NO_ERROR).await?;
        }
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    for _ in 0..20 {
        let (say, said) = mpsc::channel(1);
        say.send(HelloRequest { name: "ada".into() }).await.expect("room for one");
        let mut replies = patiently("the head", greeter(&channel).bidi_hello(ReceiverStream::new(said)))
            .await
            .expect("an answer")
            .into_inner();
        let reply =
            patiently("the message", replies.message()).await.expect("an answer").expect("one message");
        assert_eq!(reply.instance, "early");
        assert!(patiently("the end", replies.message()).await.expect("status 0").is_none());
    }
    until_idle(&channel).await;
}

/// Picks the first, and panics when told to.
struct Panicking(bool);

impl Policy for Panicking {
    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        assert!(!self.0 || ready.is_empty(), "a defect of the policy's, on purpose");
        Arc::new(Self(false))
    }
}

impl Picker for Panicking {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        Some(0)
    }
}

#[tokio::test]
async fn a_channel_whose_policy_panics_fails_its_calls_instead_of_keeping_them() {
    let backend = Backend::start("b0").await;
    let channel = Channel::builder().policy(Panicking(true)).fixed([endpoint("b0", &backend.address())]);
    let status = hello(&channel).await.expect_err("there is nobody left to connect");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    hello(&channel).await.expect_err("and nobody comes");
}

#[test]
fn a_channel_whose_runtime_has_ended_fails_its_calls_instead_of_keeping_them() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    let (first, second) = (runtime(), runtime());
    let (_changes, discover) = changing();
    let channel = first.block_on(async { Channel::builder().build(discover) });
    let waiting = second.spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    first.shutdown_background();
    let status = second.block_on(waiting).expect("no panic").expect_err("nobody is left to connect");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn a_discover_that_never_rests_takes_the_runtime_from_nobody() {
    let backend = Backend::start("b0").await;
    let address = backend.address();
    let mut weight = 0;
    let endless = stream::repeat_with(move || {
        weight = weight % 100 + 1;
        Ok::<_, BoxError>(Change::Insert("b0", endpoint("b0", &address).weight(weight)))
    });
    let channel = Channel::builder().build(endless);
    for _ in 0..20 {
        hello(&channel).await.expect("the channel works");
    }
    assert_eq!(backend.counts().accepted, 1);
}

#[tokio::test]
async fn pick_first_goes_past_what_cannot_be_reached_and_says_so_when_nothing_can() {
    let refusing = [Backend::refusing("r0"), Backend::refusing("r1")];
    let backend = Backend::start("b0").await;
    let bad = || refusing.iter().map(|backend| endpoint(backend.name(), &backend.address()));
    let all = bad().chain([endpoint("b0", &backend.address())]);
    let channel = Channel::builder().policy(PickFirst::new()).fixed(all);
    assert_eq!(hello(&channel).await.expect("the third").instance, "b0");

    let channel = Channel::builder().policy(PickFirst::new()).fixed(bad());
    let status = hello(&channel).await.expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("refused"), "{status}");
}

#[tokio::test]
async fn pick_first_comes_back_when_its_only_endpoint_does() {
    let mut backend = Backend::refusing("b0");
    let channel = Channel::builder()
        .policy(PickFirst::new())
        .max_backoff(Duration::from_millis(50))
        .fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect_err("nobody listens");
    backend.restart().await;
    until_ready(&channel, 1).await;
    hello(&channel).await.expect("it is back");
}

#[tokio::test]
async fn a_peer_that_allows_no_stream_is_gone_past_and_alone_bounded_by_the_deadline() {
    let closed = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(0)]).await?;
        let stream = peer.head().await?;
        panic!("stream {stream} came though none is allowed")
    })
    .await;
    let alone = Channel::fixed([endpoint("closed", &closed.address())]);
    let status = hello_within(&alone, Some(Duration::from_millis(200))).await.expect_err("no room");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("limit"), "{status}");

    let backend = Backend::start("b0").await;
    let both = Channel::builder()
        .policy(RoundRobin::new())
        .fixed([endpoint("closed", &closed.address()), endpoint("b0", &backend.address())]);
    until_ready(&both, 2).await;
    for _ in 0..10 {
        assert_eq!(hello(&both).await.expect("there is room").instance, "b0");
    }
}

#[tokio::test]
async fn a_thousand_calls_at_once_share_ten_streams() {
    let fleet = Fleet::start_with(2, |server| server.max_concurrent_streams(5)).await;
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 2).await;
    let calls = (0..1_000).map(|_| hello(&channel));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("each has its turn");
    }
    assert_eq!(fleet.calls().iter().sum::<u64>(), 1_000);
    until_idle(&channel).await;
}

#[tokio::test]
async fn cancelled_waiters_leave_their_turn_to_others() {
    let backend = Backend::start_with("b0", |server| server.max_concurrent_streams(1)).await;
    let one = Channel::builder().max_connections_per_endpoint(1);
    let channel = one.fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    for _ in 0..50 {
        backend.hold();
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move { hello(&channel).await })
            })
            .collect();
        backend.until(|counts| counts.open == 1).await;
        backend.release();
        for cancelled in calls.iter().step_by(2) {
            cancelled.abort();
        }
        for call in calls {
            match call.await {
                Ok(answer) => drop(answer.expect("it has its turn")),
                Err(cancelled) => assert!(cancelled.is_cancelled()),
            }
        }
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn an_endpoint_that_is_held_serves_on_and_is_forgotten_when_its_connection_ends() {
    let mut fleet = Fleet::start(2).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().policy(RoundRobin::new()).build(discover);
    for endpoint in endpoints(&fleet.addresses()) {
        changes.insert(endpoint).await;
    }
    until_ready(&channel, 2).await;
    let in_half_a_minute = tokio::time::Instant::now() + Duration::from_secs(30);
    let held = |number: usize, address: String| -> Endpoint {
        endpoint(&format!("b{number}"), &address).held_until(Some(in_half_a_minute))
    };
    changes.insert(held(0, fleet[0].address())).await;
    changes.insert(held(1, fleet[1].address())).await;
    crate::support::until(&channel, |dump| dump.endpoints.iter().all(|endpoint| endpoint.held)).await;
    for _ in 0..10 {
        hello(&channel).await.expect("held is not lost");
    }
    assert!(fleet.calls().iter().all(|calls| *calls == 5), "{:?}", fleet.calls());
    fleet[0].stop_gracefully().await;
    fleet[0].restart().await;
    crate::support::until(&channel, |dump| dump.endpoints.len() == 1).await;
    for _ in 0..10 {
        assert_eq!(hello(&channel).await.expect("the other is held").instance, "b1");
    }
    assert_eq!(fleet[0].counts().accepted, 1, "it was not dialled again");
    // Discovery has it again: as any other from then on.
    changes.insert(endpoint("b0", &fleet[0].address())).await;
    until_ready(&channel, 2).await;
}

#[tokio::test]
async fn a_connector_that_panics_costs_that_attempt_and_no_more() {
    let backend = Backend::start("b0").await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let (count, address) = (attempts.clone(), backend.address());
    let connector = connector_fn(move |_| {
        let (count, address) = (count.clone(), address.clone());
        async move {
            assert!(count.fetch_add(1, Relaxed) > 0, "a defect of the connector's, on purpose");
            Ok(Box::new(tokio::net::TcpStream::connect(address).await?) as BoxIo)
        }
    });
    let channel = Channel::builder()
        .connector(connector)
        .max_backoff(Duration::from_millis(50))
        .max_dials(1)
        .fixed([endpoint("b0", &backend.address())]);
    let status = hello(&channel).await.expect_err("the first attempt failed");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    until_ready(&channel, 1).await;
    hello(&channel).await.expect("the second did not");
}
