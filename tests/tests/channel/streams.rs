//! BAL-18: streams of every kind, cut by either side at every stage; the counts of calls in flight return to zero.

use std::time::Duration;

use svc_channel::Channel;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, error};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::support::{endpoint, greeter, patiently, until, until_idle, until_ready};

/// How far a stream gets before it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come back, not even the head.
    Unanswered,
    /// The head is there.
    Answered,
    /// Messages went by, and both sides are still talking.
    Talking,
}

const STAGES: [Stage; 3] = [Stage::Unanswered, Stage::Answered, Stage::Talking];

/// Who cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Caller,
    Server,
    Deadline,
}

const CUTS: [Cut; 3] = [Cut::Caller, Cut::Server, Cut::Deadline];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ServerStream,
    ClientStream,
    BothWays,
}

fn name() -> HelloRequest {
    HelloRequest { name: "ada".into() }
}

/// Brings one stream to its stage, cuts it, and sees that nothing is left of it.
async fn cut(kind: Kind, stage: Stage, cut: Cut) {
    let what = format!("{kind:?} {stage:?} cut by {cut:?}");
    let mut backend = Backend::start("b0").await;
    let channel =
        Channel::builder().max_backoff(Duration::from_millis(50)).fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    if stage == Stage::Unanswered {
        backend.hold();
    }
    let deadline = (cut == Cut::Deadline).then_some(Duration::from_millis(400));
    let (say, said) = mpsc::channel(8);
    let (stages, mut reached) = mpsc::channel(1);
    let call = tokio::spawn(drive(channel.clone(), kind, stage, deadline, said, stages));
    if kind != Kind::ServerStream {
        say.send(name()).await.expect("the call has begun");
    }
    patiently(&what, backend.until(|counts| counts.open == 1)).await;
    if stage != Stage::Unanswered && kind != Kind::ClientStream && cut != Cut::Deadline {
        patiently(&what, reached.recv()).await.expect("it gets there");
    }
    until(&channel, |dump| dump.endpoints[0].in_flight == 1 || cut == Cut::Deadline).await;
    match cut {
        Cut::Caller => {
            call.abort();
            let _ = call.await;
        }
        Cut::Server => {
            backend.stop().await;
            let code = patiently(&what, call).await.expect("no panic");
            assert_eq!(code, Code::Unavailable, "{what}");
        }
        Cut::Deadline => {
            let code = patiently(&what, call).await.expect("no panic");
            assert_eq!(code, Code::DeadlineExceeded, "{what}");
        }
    }
    drop(say);
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
}

/// The caller's side: goes as far as `stage`, says so, and then waits for an end, whose code it gives.
async fn drive(
    channel: Channel,
    kind: Kind,
    stage: Stage,
    deadline: Option<Duration>,
    said: mpsc::Receiver<HelloRequest>,
    reached: mpsc::Sender<()>,
) -> Code {
    let mut client = greeter(&channel);
    let said = ReceiverStream::new(said);
    let answer = match kind {
        Kind::ClientStream => {
            let mut request = tonic::Request::new(said);
            deadline.into_iter().for_each(|deadline| request.set_timeout(deadline));
            return client.lots_of_greetings(request).await.err().map_or(Code::Ok, |status| status.code());
        }
        Kind::ServerStream => {
            // Two messages at once, the third in an hour.
            let count = if stage == Stage::Talking { 3 } else { 2 };
            let mut request = tonic::Request::new(LotsOfRepliesRequest {
                name: "ada".into(),
                count,
                interval_ms: 3_600_000,
            });
            deadline.into_iter().for_each(|deadline| request.set_timeout(deadline));
            client.lots_of_replies(request).await
        }
        Kind::BothWays => {
            let mut request = tonic::Request::new(said);
            deadline.into_iter().for_each(|deadline| request.set_timeout(deadline));
            client.bidi_hello(request).await
        }
    };
    let mut replies: Streaming<_> = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status.code(),
    };
    if stage == Stage::Talking
        && let Err(status) = replies.message().await
    {
        return status.code();
    }
    let _ = reached.send(()).await;
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

async fn every_stage(kind: Kind) {
    let stages = STAGES.into_iter().flat_map(|stage| CUTS.into_iter().map(move |who| (stage, who)));
    futures_util::future::join_all(stages.map(|(stage, who)| cut(kind, stage, who))).await;
}

#[tokio::test]
async fn bal_18_a_server_stream_cut_at_any_stage_leaves_nothing_in_flight() {
    every_stage(Kind::ServerStream).await;
}

#[tokio::test]
async fn bal_18_a_client_stream_cut_at_any_stage_leaves_nothing_in_flight() {
    every_stage(Kind::ClientStream).await;
}

#[tokio::test]
async fn bal_18_a_stream_both_ways_cut_at_any_stage_leaves_nothing_in_flight() {
    every_stage(Kind::BothWays).await;
}

#[tokio::test]
async fn bal_18_a_server_that_answers_before_the_caller_has_finished_ends_the_callers_stream() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.head().await?;
        peer.trailers_only(stream, Code::ResourceExhausted as i32, "enough").await?;
        // The caller's half is closed by it, not left open for ever.
        let code = peer.reset_of(stream).await?;
        assert!(matches!(code, error::CANCEL | error::NO_ERROR), "{code}");
        peer.until_closed().await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    let (say, said) = mpsc::channel(1);
    say.send(name()).await.expect("room for one");
    let status = patiently("the call", greeter(&channel).lots_of_greetings(ReceiverStream::new(said)))
        .await
        .expect_err("it was refused");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    until_idle(&channel).await;
    patiently("the pump lets go of the caller's stream", say.closed()).await;
}

#[tokio::test]
async fn bal_18_a_callers_stream_that_the_server_does_not_read_is_held_back_and_can_be_cancelled() {
    let server = RawServer::start(|mut peer| async move {
        // Not a byte of a body may be sent.
        peer.handshake(&[svc_tests::raw_h2::Setting::InitialWindowSize(0)]).await?;
        let stream = peer.head().await?;
        assert_eq!(peer.reset_of(stream).await?, error::CANCEL);
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    until_ready(&channel, 1).await;
    let (say, said) = mpsc::channel(1);
    let mut client = greeter(&channel);
    let call = tokio::spawn(async move { client.lots_of_greetings(ReceiverStream::new(said)).await });
    let large = HelloRequest { name: "x".repeat(1024 * 1024) };
    let mut taken = 0;
    // The pump holds one message, the queue one, and what may be sent again a bounded rest.
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(300), say.send(large.clone())).await {
        sent.expect("the call is under way");
        taken += 1;
        assert!(taken < 20, "a stream that nobody reads is taken without bound");
    }
    call.abort();
    until_idle(&channel).await;
    patiently("the pump lets go of the caller's stream", say.closed()).await;
}
