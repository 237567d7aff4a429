//! Law 2: a call that was provably not processed is sent to another endpoint, unseen by its caller; any other is not.
//! The servers are scripts, so that each stage is met for certain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use svc_channel::{Channel, RoundRobin};
use svc_proto::greeter::v1::HelloRequest;
use svc_tests::raw_h2::{Peer, RawServer, Setting, error};
use tokio_stream::iter;
use tonic::Code;

use crate::support::{endpoint, greeter, hello, patiently, until_idle, until_ready};

const ANNOUNCEMENT: u32 = (1 << 31) - 1;

/// A server whose first connection does `what` to each complete call, and counts the calls; all others greet.
async fn first_connection<F, Fut>(what: F) -> (RawServer, Arc<AtomicUsize>)
where
    F: Fn(Peer, u32) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = std::io::Result<Peer>> + Send,
{
    let met = Arc::new(AtomicUsize::new(0));
    let count = met.clone();
    let server = RawServer::start(move |mut peer| {
        let (what, count) = (what.clone(), count.clone());
        async move {
            peer.handshake(&[]).await?;
            if peer.number() > 1 {
                return peer.greet("second").await;
            }
            loop {
                let stream = peer.call().await?;
                count.fetch_add(1, SeqCst);
                peer = what(peer, stream).await?;
            }
        }
    })
    .await;
    (server, met)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_once() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let server = RawServer::start(move |mut peer| {
        let count = count.clone();
        async move {
            peer.handshake(&[]).await?;
            loop {
                let stream = peer.call().await?;
                // Every second call is taken.
                if count.fetch_add(1, SeqCst).is_multiple_of(2) {
                    peer.reset(stream, error::REFUSED_STREAM).await?;
                } else {
                    peer.answer(stream, "taken").await?;
                }
            }
        }
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    for _ in 0..5 {
        assert_eq!(hello(&channel).await.expect("sent again").instance, "taken");
    }
    assert_eq!(refused.load(SeqCst), 10);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_stream_refused_twice_is_the_callers() {
    let (server, met) = first_connection(|mut peer, stream| async move {
        peer.reset(stream, error::REFUSED_STREAM).await?;
        Ok(peer)
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let status = hello(&channel).await.expect_err("refused twice");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(met.load(SeqCst), 2, "once more, and no more (gRFC A6)");
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_is_sent_again() {
    // Stream 0 is before every call: the server says that it looked at none.
    let (server, met) = first_connection(|mut peer, _stream| async move {
        peer.go_away(0, error::NO_ERROR).await?;
        Ok(peer)
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    assert_eq!(hello(&channel).await.expect("sent again").instance, "second");
    assert_eq!(met.load(SeqCst), 1);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_goaway_that_takes_the_first_call_and_not_the_second_moves_the_second_only() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        if peer.number() > 1 {
            return peer.greet("second").await;
        }
        let (first, _second) = (peer.call().await?, peer.call().await?);
        peer.go_away(ANNOUNCEMENT, error::NO_ERROR).await?;
        peer.go_away(first, error::NO_ERROR).await?;
        peer.answer(first, "first").await?;
        peer.until_closed().await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let (one, two) = tokio::join!(hello(&channel), hello(&channel));
    let mut by = [one.expect("below the last stream").instance, two.expect("above it: sent again").instance];
    by.sort();
    assert_eq!(by, ["first", "second"]);
    until_idle(&channel).await;
}

#[tokio::test]
async fn after_the_announcing_goaway_new_calls_use_a_new_connection_and_old_ones_end() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        if peer.number() > 1 {
            return peer.greet("second").await;
        }
        let stream = peer.call().await?;
        peer.go_away(ANNOUNCEMENT, error::NO_ERROR).await?;
        // The old connection's call is answered only when somebody else has come in.
        let next = peer.frame();
        tokio::select! {
            frame = next => panic!("a new call on a connection that goes away: {frame:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
        peer.answer(stream, "first").await?;
        peer.until_closed().await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let old = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    server.until_accepted(2).await;
    for _ in 0..5 {
        assert_eq!(hello(&channel).await.expect("a new connection").instance, "second");
    }
    assert_eq!(old.await.expect("no panic").expect("it was taken").instance, "first");
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_connection_that_dies_before_a_call_was_read_is_no_proof() {
    let (server, met) = first_connection(|peer, _stream| async move {
        drop(peer);
        Err(std::io::ErrorKind::BrokenPipe.into())
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let status = hello(&channel).await.expect_err("it may have been processed");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(met.load(SeqCst), 1, "not sent again");
    assert_eq!(hello(&channel).await.expect("the next call").instance, "second");
}

#[tokio::test]
async fn resets_of_every_other_code_are_not_sent_again() {
    for code in [error::INTERNAL_ERROR, error::CANCEL, error::PROTOCOL_ERROR, error::ENHANCE_YOUR_CALM] {
        let (server, met) = first_connection(move |mut peer, stream| async move {
            peer.reset(stream, code).await?;
            Ok(peer)
        })
        .await;
        let channel = Channel::fixed([endpoint("raw", &server.address())]);
        hello(&channel).await.expect_err("reset");
        assert_eq!(met.load(SeqCst), 1, "code {code}");
        until_idle(&channel).await;
    }
}

#[tokio::test]
async fn a_refused_call_goes_to_another_endpoint_where_there_is_one() {
    let (refusing, met) = first_connection(|mut peer, stream| async move {
        peer.reset(stream, error::REFUSED_STREAM).await?;
        Ok(peer)
    })
    .await;
    let taking = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        peer.greet("taking").await
    })
    .await;
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .fixed([endpoint("refusing", &refusing.address()), endpoint("taking", &taking.address())]);
    until_ready(&channel, 2).await;
    for _ in 0..10 {
        assert_eq!(hello(&channel).await.expect("the other takes it").instance, "taking");
    }
    assert!(met.load(SeqCst) >= 4, "the refusing one was asked");
}

#[tokio::test]
async fn a_streaming_body_is_sent_again_whole() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.reset(stream, error::REFUSED_STREAM).await?;
        let mut bytes = 0;
        let stream = loop {
            let frame = peer.frame().await?;
            if frame.kind == svc_tests::raw_h2::Kind::Data {
                bytes += frame.payload.len();
            }
            if frame.ends_stream() {
                break frame.stream;
            }
        };
        // Five bytes of gRPC's, two of protobuf's and one of the name, a hundred times.
        peer.trailers_only(stream, if bytes == 800 { 5 } else { 15 }, "seen").await?;
        peer.until_closed().await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let names = iter(vec![HelloRequest { name: "x".into() }; 100]);
    let status =
        patiently("the call", greeter(&channel).lots_of_greetings(names)).await.expect_err("trailers");
    assert_eq!(status.code(), Code::NotFound, "all hundred arrived the second time: {status}");
    until_idle(&channel).await;
}

#[tokio::test]
async fn no_call_waits_inside_a_connection_that_is_full() {
    let full = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(1)]).await?;
        let first = peer.call().await?;
        // Nothing else comes while the first is open.
        tokio::select! {
            frame = peer.frame() => panic!("a second call: {frame:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
        }
        peer.answer(first, "raw").await?;
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &full.address())]);
    until_ready(&channel, 1).await;
    let calls = (0..5).map(|_| hello(&channel));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.expect("each has its turn").instance, "raw");
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_limit_that_rises_lets_waiting_calls_in() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(1)]).await?;
        let first = peer.call().await?;
        peer.settings(&[Setting::MaxConcurrentStreams(3)]).await?;
        let (second, third) = (peer.call().await?, peer.call().await?);
        for stream in [third, first, second] {
            peer.answer(stream, "raw").await?;
        }
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let (one, two, three) = tokio::join!(hello(&channel), hello(&channel), hello(&channel));
    for answer in [one, two, three] {
        answer.expect("the limit rose");
    }
}

#[tokio::test]
async fn a_limit_that_falls_to_nothing_moves_calls_to_another_endpoint() {
    let closed = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(10)]).await?;
        let stream = peer.call().await?;
        peer.settings(&[Setting::MaxConcurrentStreams(0)]).await?;
        peer.answer(stream, "closed").await?;
        let late = peer.call().await?;
        panic!("stream {late} came though none is allowed")
    })
    .await;
    let open = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        peer.greet("open").await
    })
    .await;
    let channel = Channel::builder()
        .policy(RoundRobin::new())
        .fixed([endpoint("closed", &closed.address()), endpoint("open", &open.address())]);
    until_ready(&channel, 2).await;
    let mut by_closed = 0;
    for _ in 0..20 {
        by_closed += u32::from(hello(&channel).await.expect("one is open").instance == "closed");
    }
    assert_eq!(by_closed, 1);
}
