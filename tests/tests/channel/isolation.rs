//! Law 9: callers on a shared connection do not harm each other: BAL-19, BAL-20, and cancelled calls.

use std::time::Duration;

use svc_channel::Channel;
use svc_proto::greeter::v1::LotsOfRepliesRequest;
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, error};

use crate::support::{endpoint, greeter, hello, patiently, until_idle, until_ready};

/// Streams that nobody reads, of messages of a size, beside calls on the same connection.
async fn unread(name: &str, streams: usize) {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    let mut held = Vec::new();
    for _ in 0..streams {
        let endless = LotsOfRepliesRequest { name: name.into(), count: 0, interval_ms: 0 };
        held.push(
            patiently("the head", greeter(&channel).lots_of_replies(endless)).await.expect("it serves"),
        );
    }
    for _ in 0..200 {
        hello(&channel).await.expect("others are unharmed");
    }
    assert_eq!(backend.counts().accepted, 1, "on one connection");
    // They are not broken, only unread.
    for stream in &mut held {
        patiently("a message", stream.get_mut().message()).await.expect("no error").expect("not the end");
    }
    drop(held);
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
    hello(&channel).await.expect("the connection lives");
    assert_eq!(backend.counts().accepted, 1);
}

#[tokio::test]
async fn bal_19_unread_streams_of_large_messages_harm_no_other_call() {
    unread(&"x".repeat(256 * 1024), 8).await;
}

#[tokio::test]
async fn bal_19_unread_streams_of_tiny_messages_harm_no_other_call() {
    unread("", 4).await;
}

#[tokio::test]
async fn bal_20_ten_thousand_cancelled_calls_with_late_answers_end_no_connection() {
    const CALLS: usize = 10_000;
    const AT_ONCE: usize = 100;
    /// What the server has seen.
    #[derive(Debug, Default)]
    struct Seen {
        calls: usize,
        resets: usize,
    }
    let seen = tokio::sync::watch::Sender::new(Seen::default());
    let server = RawServer::start({
        let seen = seen.clone();
        move |mut peer| {
            let seen = seen.clone();
            async move {
                peer.handshake(&[]).await?;
                peer.window_update(0, 1 << 30).await?;
                loop {
                    let frame = peer.frame().await?;
                    if frame.ends_stream() {
                        seen.send_modify(|seen| seen.calls += 1);
                        if seen.borrow().calls > CALLS {
                            peer.answer(frame.stream, "raw").await?;
                        }
                    } else if let Some(code) = frame.error_code() {
                        assert_eq!(code, error::CANCEL);
                        // Too late: as from a server that read the reset after it had answered.
                        peer.answer(frame.stream, "late").await?;
                        seen.send_modify(|seen| seen.resets += 1);
                    }
                }
            }
        }
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let mut progress = seen.subscribe();
    for round in 1..=CALLS / AT_ONCE {
        let calls: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move { hello(&channel).await })
            })
            .collect();
        let arrived = progress.wait_for(|seen| seen.calls == round * AT_ONCE);
        patiently("the calls' arrival", arrived).await.expect("we hold the sender");
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        let reset = progress.wait_for(|seen| seen.resets == round * AT_ONCE);
        patiently("the resets' arrival", reset).await.expect("we hold the sender");
    }
    assert_eq!(hello(&channel).await.expect("the connection lives").instance, "raw");
    assert_eq!(server.accepted(), 1);
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_20_thousands_of_cancelled_calls_to_a_real_server_end_no_connection() {
    const AT_ONCE: u64 = 200;
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    backend.hold();
    for round in 1..=10 {
        let calls: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move { hello(&channel).await })
            })
            .collect();
        backend.until(|counts| counts.open == AT_ONCE && counts.calls == round * AT_ONCE).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        backend.until(|counts| counts.open == 0).await;
    }
    backend.release();
    hello(&channel).await.expect("the connection lives");
    assert_eq!(backend.counts().accepted, 1);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_cancelled_call_is_reset_at_once() {
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let server = RawServer::start(move |mut peer| {
        let told = told.clone();
        async move {
            peer.handshake(&[]).await?;
            let stream = peer.call().await?;
            let _ = told.send(None).await;
            let code = peer.reset_of(stream).await?;
            let _ = told.send(Some(code)).await;
            peer.greet("raw").await
        }
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    assert_eq!(patiently("the call", hears.recv()).await, Some(None));
    call.abort();
    assert_eq!(patiently("the reset", hears.recv()).await, Some(Some(error::CANCEL)));
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_response_dropped_unread_is_reset_at_once() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let slow = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 1 };
    for _ in 0..20 {
        drop(
            patiently("the head", greeter(&channel).lots_of_replies(slow.clone())).await.expect("it serves"),
        );
    }
    backend.until(|counts| counts.streams == 20 && counts.open == 0).await;
    until_idle(&channel).await;
    assert_eq!(backend.counts().accepted, 1);
}

#[tokio::test]
async fn a_slow_stream_does_not_delay_others() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let large = LotsOfRepliesRequest { name: "x".repeat(64 * 1024), count: 200, interval_ms: 0 };
    let mut replies = patiently("the head", greeter(&channel).lots_of_replies(large))
        .await
        .expect("it serves")
        .into_inner();
    let mut count = 0;
    while let Some(_reply) = patiently("a message", replies.message()).await.expect("no error") {
        count += 1;
        // Its reader takes its time, and makes calls of its own meanwhile.
        if count % 10 == 0 {
            hello(&channel).await.expect("unharmed");
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    assert_eq!(count, 200);
    assert_eq!(backend.counts().accepted, 1);
}
