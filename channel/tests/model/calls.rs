//! The calls of the model: of all kinds, cut anywhere, each with a deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::{Body as _, Frame};
use http_body_util::{Full, StreamBody};
use svc_channel::{CallFuture, WaitForReady};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::body::Body;

use crate::world::MESSAGE;

/// The call's number, for the servers' books.
pub(crate) const CALL: &str = "model-call";
/// The step in which it began.
pub(crate) const BEGUN: &str = "model-begun";

/// What the configs below allow.
pub(crate) const MOST_ATTEMPTS: u32 = 3;

/// By service: calls that are sent once, retried, and hedged.
pub(crate) const CONFIG: &str = r#"{
    "methodConfig": [
        {"name": [{"service": "m.Retry"}], "retryPolicy": {
            "maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "INTERNAL", "CANCELLED"]}},
        {"name": [{"service": "m.Hedge"}], "hedgingPolicy": {
            "maxAttempts": 3, "hedgingDelay": "0.02s", "nonFatalStatusCodes": ["UNAVAILABLE", "INTERNAL"]}}
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 1}
}"#;

/// Timers are rounded up to milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// One call, and what its caller will do.
pub(crate) struct Plan {
    number: u64,
    deadline: Duration,
    /// The caller drops it after so long.
    patience: Option<Duration>,
    /// The caller reads so many frames of the answer and drops the rest.
    reads: u32,
    /// The caller takes so long for each.
    slow: Duration,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Failed(tonic::Code),
    /// Dropped by its caller.
    Dropped,
}

/// A call at random.
pub(crate) fn draw(rng: &mut fastrand::Rng, number: u64, step: u64) -> (Request<Body>, Plan) {
    let service = *rng.choice(&["m.Plain", "m.Plain", "m.Retry", "m.Hedge"]).unwrap_or(&"m.Plain");
    let deadline = Duration::from_millis(rng.u64(5..1_500));
    let body = match rng.u32(..3) {
        0 | 1 => Body::new(Full::new(Bytes::from_static(MESSAGE))),
        _ => growing(rng),
    };
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("/{service}/Call").parse().expect("a path");
    let headers = request.headers_mut();
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    headers.insert("grpc-timeout", format!("{}m", deadline.as_millis()).parse().expect("ascii"));
    headers.insert(CALL, number.into());
    headers.insert(BEGUN, step.into());
    if rng.u32(..5) == 0 {
        request.extensions_mut().insert(WaitForReady);
    }
    let plan = Plan {
        number,
        deadline,
        patience: (rng.u32(..5) == 0).then(|| Duration::from_millis(rng.u64(..300))),
        reads: if rng.u32(..5) == 0 { rng.u32(..3) } else { u32::MAX },
        slow: Duration::from_millis(if rng.u32(..5) == 0 { rng.u64(..20) } else { 0 }),
    };
    (request, plan)
}

/// A request that comes piece by piece; it may stop without an end, or err.
fn growing(rng: &mut fastrand::Rng) -> Body {
    let pieces = rng.u32(..6);
    let size = if rng.u32(..10) == 0 { 100_000 } else { 10 };
    let pause = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(..30) });
    let end = rng.u32(..8);
    let frames = stream::unfold(0, move |sent| async move {
        if sent > 0 {
            sleep(pause).await;
        }
        match (sent == pieces, end) {
            (false, _) => {
                let mut message = vec![0; 5 + size];
                message[1..5].copy_from_slice(&(size as u32).to_be_bytes());
                Some((Ok(Frame::data(Bytes::from(message))), sent + 1))
            }
            (true, 0) => std::future::pending::<Option<_>>().await,
            (true, 1) => Some((Err(Status::aborted("the caller's own")), sent + 1)),
            (true, _) => None,
        }
    });
    Body::new(StreamBody::new(Box::pin(stream_to_err(frames))))
}

/// Stops after an error.
fn stream_to_err(
    frames: impl stream::Stream<Item = Result<Frame<Bytes>, Status>> + Send,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    use futures_util::StreamExt;
    frames.scan(false, |ended, frame| {
        let before = std::mem::replace(ended, frame.is_err());
        std::future::ready((!before).then_some(frame))
    })
}

/// Sees a call through.
///
/// # Panics
/// Where it outlives its deadline.
pub(crate) async fn finish(call: CallFuture, plan: Plan) -> End {
    let begun = Instant::now();
    let mut pauses = Duration::ZERO;
    let whole = async {
        let mut body = match call.await {
            Ok(response) => response.into_body(),
            Err(status) => return End::Failed(status.code()),
        };
        for _ in 0..plan.reads {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => return End::Answered,
                Some(Err(status)) => return End::Failed(status.code()),
                Some(Ok(_)) if plan.slow.is_zero() => {}
                Some(Ok(_)) => {
                    pauses += plan.slow + ROUNDING; // before: the caller may lose patience in the middle
                    sleep(plan.slow).await;
                }
            }
        }
        End::Dropped
    };
    let end = match plan.patience {
        Some(patience) => timeout(patience, whole).await.unwrap_or(End::Dropped),
        None => whole.await,
    };
    let took = begun.elapsed();
    let most = plan.deadline + ROUNDING + pauses;
    assert!(
        took <= most,
        "call {} took {took:?} with a deadline of {:?}: {end:?}",
        plan.number,
        plan.deadline
    );
    end
}
