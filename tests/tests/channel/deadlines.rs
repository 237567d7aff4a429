//! Law 3: one deadline, fixed at the call, for waiting, the answer and its stream; and the codes of what goes wrong.

use std::time::Duration;

use svc_channel::Channel;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, error};
use tonic::Code;

use crate::support::{endpoint, greeter, hello, hello_within, patiently, until_idle};

const SHORT: Duration = Duration::from_millis(150);

async fn held() -> (Backend, Channel) {
    let backend = Backend::start("b0").await;
    backend.hold();
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    (backend, channel)
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline_and_the_server_is_told() {
    let (backend, channel) = held().await;
    let status = hello_within(&channel, Some(SHORT)).await.expect_err("it is held");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("b0"), "the message names the instance: {status}");
    // The server's handler is dropped by its own grpc-timeout or by our reset; either way it ends.
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
    assert_eq!(backend.counts().connections, 1, "the connection lives");
}

#[tokio::test]
async fn the_channels_default_deadline_holds_for_calls_that_bring_none() {
    let backend = Backend::start("b0").await;
    backend.hold();
    let channel = Channel::builder().deadline(SHORT).fixed([endpoint("b0", &backend.address())]);
    let status = hello(&channel).await.expect_err("it is held");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn the_deadline_covers_the_response_stream() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    // The head and one message come at once, the next never.
    let server = LotsOfRepliesRequest { name: "ada".into(), count: 2, interval_ms: 3_600_000 };
    let mut request = tonic::Request::new(server);
    request.set_timeout(Duration::from_secs(1));
    let mut replies = patiently("the head", greeter(&channel).lots_of_replies(request))
        .await
        .expect("it serves")
        .into_inner();
    patiently("the first", replies.message()).await.expect("in time").expect("one");
    let status = patiently("the deadline", replies.message()).await.expect_err("the deadline has passed");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    until_idle(&channel).await;
    backend.until(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn the_header_says_what_remains() {
    // The raw server cannot read headers; the backend's own timeout, which tonic enforces from the header, is the proof:
    // with the client's timer out of the way the server still ends the call.
    let (backend, channel) = held().await;
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    request.set_timeout(Duration::from_secs(2));
    let call = tokio::spawn({
        let mut client = greeter(&channel);
        async move { client.say_hello(request).await }
    });
    backend.until(|counts| counts.open == 1).await;
    let status = patiently("the call", call).await.expect("no panic").expect_err("it is held");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
}

#[tokio::test]
async fn a_malformed_timeout_is_refused_before_anything_is_sent() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    request.metadata_mut().insert("grpc-timeout", "5 minutes".parse().expect("ascii"));
    let status = patiently("the refusal", greeter(&channel).say_hello(request)).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(backend.counts().calls, 0);
}

#[tokio::test]
async fn an_answer_that_takes_its_time_within_the_deadline_is_an_answer() {
    let backend = Backend::start("b0").await;
    backend.set_delay(SHORT);
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    hello_within(&channel, Some(Duration::from_secs(8))).await.expect("in time");
}

#[tokio::test]
async fn trailers_alone_are_an_answer_with_code_and_message() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        loop {
            let stream = peer.call().await?;
            peer.trailers_only(stream, Code::FailedPrecondition as i32, "not%20now").await?;
        }
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    for _ in 0..3 {
        let status = hello(&channel).await.expect_err("it failed");
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
    }
    until_idle(&channel).await;
    assert_eq!(server.accepted(), 1, "an answer ends no connection");
}

/// What a server does instead of answering, and the code that the caller is told.
async fn code_of(what: &'static str) -> Code {
    let server = RawServer::start(move |mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        match what {
            "half a message, then the end" => {
                peer.answer_head(stream).await?;
                peer.data(stream, &[0, 0, 0, 0, 9, 1]).await?;
                peer.headers(stream, &[("grpc-status", "0")], true).await?;
            }
            "half a message, then the connection's end" => {
                peer.answer_head(stream).await?;
                peer.data(stream, &[0, 0, 0, 0, 9, 1]).await?;
                return Ok(());
            }
            "half a message, then a reset" => {
                peer.answer_head(stream).await?;
                peer.data(stream, &[0, 0, 0, 0, 9, 1]).await?;
                peer.reset(stream, error::INTERNAL_ERROR).await?;
            }
            "a stream without trailers" => {
                peer.answer_head(stream).await?;
                peer.last_data(stream, &[]).await?;
            }
            "a head that is no gRPC" => peer.headers(stream, &[(":status", "404")], true).await?,
            "a head without a status" => peer.headers(stream, &[("content-type", "x")], true).await?,
            "the connection's end" => return Ok(()),
            "garbage" => peer.garbage(&[0xff; 64]).await?,
            "reset: cancel" => peer.reset(stream, error::CANCEL).await?,
            "reset: calm" => peer.reset(stream, error::ENHANCE_YOUR_CALM).await?,
            "reset: security" => peer.reset(stream, error::INADEQUATE_SECURITY).await?,
            "reset: protocol" => peer.reset(stream, error::PROTOCOL_ERROR).await?,
            other => panic!("no such misbehaviour: {other}"),
        }
        peer.until_closed().await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let status = hello(&channel).await.expect_err(what);
    until_idle(&channel).await;
    status.code()
}

#[tokio::test]
async fn every_way_to_fail_has_its_code() {
    for (what, code) in [
        ("half a message, then the end", Code::Internal),
        ("half a message, then the connection's end", Code::Unavailable),
        ("half a message, then a reset", Code::Internal),
        ("a head that is no gRPC", Code::Unimplemented),
        ("the connection's end", Code::Unavailable),
        ("garbage", Code::Unavailable),
        // gRPC over HTTP/2, "Errors": the table of HTTP/2 error codes.
        ("reset: cancel", Code::Cancelled),
        ("reset: calm", Code::ResourceExhausted),
        ("reset: security", Code::PermissionDenied),
        ("reset: protocol", Code::Internal),
    ] {
        assert_eq!(code_of(what).await, code, "{what}");
    }
    // Left to tonic or h2 by their nature: an error, and not OK, is all that is promised.
    for what in ["a stream without trailers", "a head without a status"] {
        assert_ne!(code_of(what).await, Code::Ok, "{what}");
    }
}
