//! BAL-13 and BAL-22: peers that allow few streams, and change their minds.

use std::time::Duration;

use svc_channel::Channel;
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, Setting};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::{endpoint, hello, patiently, until, until_idle, until_ready};

#[tokio::test]
async fn bal_13_a_hundred_calls_at_ten_streams_a_connection_get_more_connections() {
    const STREAMS: u32 = 10;
    const CALLS: usize = 100;
    let backend = Backend::start_with("b0", |server| server.max_concurrent_streams(STREAMS)).await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    backend.hold();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let channel = channel.clone();
        calls.spawn(async move { hello(&channel).await });
    }
    // All of them are with the backend at once: as many connections as that takes, and no call waits.
    let counts = backend.until(|counts| counts.open == CALLS as u64).await;
    assert_eq!(counts.connections, 10, "{counts:?}");
    backend.release();
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("a reply");
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_13_beyond_the_most_connections_calls_take_turns() {
    let backend = Backend::start_with("b0", |server| server.max_concurrent_streams(2)).await;
    let channel =
        Channel::builder().max_connections_per_endpoint(2).fixed([endpoint("b0", &backend.address())]);
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let channel = channel.clone();
        calls.spawn(async move { hello(&channel).await });
    }
    while let Some(call) = patiently("a call in the queue", calls.join_next()).await {
        call.expect("no panic").expect("a reply");
    }
    assert_eq!(backend.counts().accepted, 2);
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_13_a_set_number_of_connections_is_kept() {
    let backend = Backend::start("b0").await;
    let channel = Channel::builder().connections_per_endpoint(3).fixed([endpoint("b0", &backend.address())]);
    backend.until(|counts| counts.connections == 3).await;
    for _ in 0..30 {
        hello(&channel).await.expect("a reply");
    }
    assert_eq!(backend.counts().accepted, 3);
}

#[tokio::test]
async fn bal_22_the_limit_falls_to_one_to_none_and_rises_again() {
    // The test says which limit comes next; the peer answers calls only when told to.
    let (limits, next) = mpsc::channel::<u32>(1);
    let next = std::sync::Arc::new(tokio::sync::Mutex::new(next));
    let server = RawServer::start(move |mut peer| {
        let next = next.clone();
        async move {
            let mut next = next.lock().await;
            peer.handshake(&[Setting::MaxConcurrentStreams(10)]).await?;
            while let Some(limit) = next.recv().await {
                peer.settings(&[Setting::MaxConcurrentStreams(limit)]).await?;
                for _ in 0..limit {
                    let stream = peer.call().await?;
                    peer.answer(stream, "raw").await?;
                }
            }
            peer.until_closed().await
        }
    })
    .await;
    let channel =
        Channel::builder().max_connections_per_endpoint(1).fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    limits.send(1).await.expect("the peer listens");
    hello(&channel).await.expect("one stream is enough");

    limits.send(0).await.expect("the peer listens");
    let waiting = {
        let channel = channel.clone();
        tokio::spawn(async move { hello(&channel).await })
    };
    // It may have been sent before the limit was known; where not, it waits with us, in no connection.
    limits.send(3).await.expect("the peer listens");
    patiently("the waiting call", waiting).await.expect("no panic").expect("a reply once there is room");
    for _ in 0..2 {
        hello(&channel).await.expect("room again");
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_22_a_call_that_waits_for_a_stream_moves_to_an_endpoint_that_comes() {
    let full = RawServer::start(|mut peer| async move {
        peer.handshake(&[Setting::MaxConcurrentStreams(0)]).await?;
        peer.until_closed().await
    })
    .await;
    let (changes, discover) = crate::support::changing();
    changes.insert(endpoint("full", &full.address())).await;
    let channel = Channel::builder().build(discover);
    until_ready(&channel, 1).await;
    let call = {
        let channel = channel.clone();
        tokio::spawn(
            async move { crate::support::hello_within(&channel, Some(Duration::from_secs(10))).await },
        )
    };
    let backend = Backend::start("b1").await;
    changes.insert(endpoint("b1", &backend.address())).await;
    let reply = patiently("the call that moves", call).await.expect("no panic").expect("a reply");
    assert_eq!(reply.instance, "b1");
    until(&channel, |dump| dump.endpoints.len() == 2).await;
}
