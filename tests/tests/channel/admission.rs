//! What a channel refuses by itself: calls that are too many at once, and messages that are too large; and how much it
//! keeps of requests so that they can be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use svc_channel::{Channel, ServiceConfig};
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, Setting};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::support::{endpoint, greeter, hello, patiently, until, until_idle, until_ready};

fn spawn_hello(calls: &mut JoinSet<Result<(), Status>>, channel: &Channel) {
    let channel = channel.clone();
    calls.spawn(async move { hello(&channel).await.map(drop) });
}

#[tokio::test]
async fn a_call_beyond_the_most_in_flight_is_refused_at_once_and_streams_count_to_their_end() {
    let backend = Backend::start("b0").await;
    let channel =
        Channel::builder().name("greeter").max_calls_in_flight(2).fixed([endpoint("b0", &backend.address())]);
    let endless = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 1 };
    let mut replies = greeter(&channel).lots_of_replies(endless).await.expect("a stream").into_inner();
    patiently("a reply", replies.message()).await.expect("in order").expect("one");
    backend.hold();
    let mut calls = JoinSet::new();
    spawn_hello(&mut calls, &channel);
    backend.until(|counts| counts.calls == 1).await;
    for _ in 0..3 {
        let status = hello(&channel).await.expect_err("a stream and a call are in flight");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let text = "greeter: 2 calls are in flight, as many as max_calls_in_flight allows; make fewer at a time, or raise it";
        assert_eq!(status.message(), text);
    }
    assert_eq!(backend.counts().calls, 1, "nothing of them was sent");
    backend.release();
    patiently("the call", calls.join_next()).await.expect("one").expect("no panic").expect("a reply");
    hello(&channel).await.expect("room beside the stream");
    drop(replies);
    until_idle(&channel).await;
    backend.hold();
    spawn_hello(&mut calls, &channel);
    spawn_hello(&mut calls, &channel);
    backend.until(|counts| counts.calls == 4).await;
}

#[tokio::test]
async fn a_call_beyond_the_most_that_wait_is_refused_and_room_comes_back() {
    let (limits, next) = mpsc::channel::<u32>(1);
    let next = Arc::new(tokio::sync::Mutex::new(next));
    let server = RawServer::start(move |mut peer| {
        let next = next.clone();
        async move {
            peer.handshake(&[Setting::MaxConcurrentStreams(0)]).await?;
            let limit = next.lock().await.recv().await.expect("the test says");
            peer.settings(&[Setting::MaxConcurrentStreams(limit)]).await?;
            peer.greet("raw").await
        }
    })
    .await;
    let channel = Channel::builder()
        .max_calls_waiting(2)
        .max_connections_per_endpoint(1)
        .fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        spawn_hello(&mut calls, &channel);
    }
    for _ in 0..3 {
        let refused = patiently("a refusal", calls.join_next()).await.expect("one").expect("no panic");
        let status = refused.expect_err("two wait already");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("2 calls wait for an endpoint or a stream"), "{status}");
    }
    limits.send(10).await.expect("the peer listens");
    while let Some(call) = patiently("a waiting call", calls.join_next()).await {
        call.expect("no panic").expect("a reply once there is room");
    }
    hello(&channel).await.expect("and nobody waits any more");
    until_idle(&channel).await;
}

#[tokio::test]
async fn waiting_for_an_endpoint_counts_too() {
    let (_changes, discover) = crate::support::changing();
    let channel = Channel::builder().max_calls_waiting(0).build(discover);
    let status = hello(&channel).await.expect_err("discovery has not answered");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

fn sizes() -> ServiceConfig {
    let json = r#"{"methodConfig": [{
        "name": [{}], "maxRequestMessageBytes": 20, "maxResponseMessageBytes": 40}]}"#;
    json.parse().expect("a good config")
}

fn named(length: usize) -> HelloRequest {
    // Two bytes tell the field and its length.
    HelloRequest { name: "x".repeat(length - 2) }
}

#[tokio::test]
async fn a_request_message_that_is_too_large_is_refused_with_both_numbers_wherever_it_stands() {
    let backend = Backend::start("b").await;
    let channel = Channel::builder().service_config(sizes()).fixed([endpoint("b", &backend.address())]);
    let mut client = greeter(&channel);
    // The answer repeats the name: the request may be as large as allowed, the answer just fits.
    client.say_hello(named(20)).await.expect("as large as allowed");
    let status = client.say_hello(named(21)).await.expect_err("one more");
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "trying to send message larger than max (21 vs. 20)")
    );
    assert_eq!(backend.counts().calls, 1, "it was not sent");
    let (requests, stream) = mpsc::channel(1);
    let call = tokio::spawn(async move { client.lots_of_greetings(ReceiverStream::new(stream)).await });
    requests.send(named(20)).await.expect("the call is open");
    backend.until(|counts| counts.streams == 1).await;
    requests.send(named(21)).await.expect("the call is open");
    let status = patiently("the stream", call).await.expect("no panic").expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("(21 vs. 20)"), "{status}");
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_response_message_that_is_too_large_ends_the_call_and_the_stream() {
    let backend = Backend::start("a server with quite a long name").await;
    let channel = Channel::builder().service_config(sizes()).fixed([endpoint("b", &backend.address())]);
    let mut client = greeter(&channel);
    let status = client.say_hello(named(3)).await.expect_err("more than forty bytes");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("received message larger than max ("), "{status}");
    assert!(status.message().ends_with("vs. 40)"), "{status}");
    let endless = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 0 };
    let mut replies = client.lots_of_replies(endless).await.expect("a stream").into_inner();
    let status = patiently("a reply", replies.message()).await.expect_err("too large");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // The server is told: it does not go on for ever.
    backend.until(|counts| counts.open == 0).await;
    until(&channel, |dump| dump.endpoints.iter().all(|e| e.in_flight == 0)).await;
    assert_eq!(backend.counts().connections, 1, "the connection lives");
}

const RETRY: &str = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 2, "initialBackoff": "0.001s", "maxBackoff": "0.01s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

#[tokio::test]
async fn where_the_channels_replay_budget_is_used_up_a_call_is_sent_once() {
    const PIECE: usize = 16 * 1024;
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let server = RawServer::start(move |mut peer| {
        let count = count.clone();
        async move {
            peer.handshake(&[Setting::InitialWindowSize(1 << 20)]).await?;
            peer.window_update(0, 1 << 24).await?;
            loop {
                // Those that have not said all are never answered.
                let stream = peer.call().await?;
                count.fetch_add(1, SeqCst);
                peer.trailers_only(stream, Code::Unavailable as i32, "not now").await?;
            }
        }
    })
    .await;
    let channel = Channel::builder()
        .service_config(RETRY.parse().expect("a good config"))
        .replay_limit_per_channel(8 * PIECE)
        .fixed([endpoint("raw", &server.address())]);
    let piece = || HelloRequest { name: "x".repeat(PIECE) };
    let turned_down = async || {
        let before = ended.load(SeqCst);
        let (requests, stream) = mpsc::channel(1);
        let mut client = greeter(&channel);
        let call = tokio::spawn(async move { client.lots_of_greetings(ReceiverStream::new(stream)).await });
        for _ in 0..3 {
            requests.send(piece()).await.expect("the call is open");
        }
        drop(requests);
        let status = patiently("the call", call).await.expect("no panic").expect_err("turned down");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        ended.load(SeqCst) - before
    };
    assert_eq!(turned_down().await, 2, "alone it is sent again");
    let (requests, stream) = mpsc::channel(1);
    let mut client = greeter(&channel);
    let hog = tokio::spawn(async move { client.lots_of_greetings(ReceiverStream::new(stream)).await });
    // The sixth is taken in once five are kept, which with three more and their prefixes are too many.
    for _ in 0..6 {
        requests.send(piece()).await.expect("the call is open");
    }
    assert_eq!(turned_down().await, 1, "another call keeps most of what the channel may keep");
    hog.abort();
    assert!(hog.await.is_err_and(|end| end.is_cancelled()));
    until_idle(&channel).await;
    assert_eq!(turned_down().await, 2, "what it kept was given back");
}
