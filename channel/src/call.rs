//! A call: deadline, pick, attempt; and again where an attempt was provably not processed. The common case runs inside
//! `call` itself: pick from the snapshot, hand the request to h2, and what is left is a small future. Everything that
//! has to wait or to repeat goes the slow way, which is boxed.
//!
//! `start.rs` picks and sends, `slow.rs` waits and repeats, `hedged.rs` sends to several endpoints.
//!
//! What is laid around an attempt, from the outside in, each where it is for a reason:
//! 1. *admission* (`admission.rs`): a call that is too many is refused before it costs anything, and counts once,
//!    however often it is sent
//! 2. *deadline* (`deadline.rs`): fixed next, so that it covers all waiting and every attempt
//! 3. the *request's size* (`meter.rs`): what is too large is too large for every endpoint
//! 4. *hedging or retry* (`attempt/`), never both: outside of the pick, so that each attempt is picked anew
//! 5. *waiting* for an endpoint or a stream, with its own limit: each attempt may have to
//! 6. *pick*, among those that health (`health/`) has left
//! 7. the attempt, counted as load (`load.rs`): each for itself, so that an endpoint is judged by what it did
//! 8. the *response's size*, as its bytes pass

mod hedged;
mod slow;
mod start;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::USER_AGENT;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::admission::Admitted;
use crate::attempt::hedge::Hedges;
use crate::attempt::replay::Outgoing;
use crate::attempt::retry::Retries;
use crate::deadline;
use crate::front::Handle;
use crate::load::Outcome;
use crate::meter::Meter;
use crate::metrics::call::{Attempts, CallRecord};
use crate::owner::snapshot::Snapshot;
#[cfg(feature = "opentelemetry")]
use crate::propagate;
use crate::status;
use crate::subchannel::stream::{AGENT, Attempt};
use crate::subchannel::{ResponseBody, Terms};
use start::Start;

/// A request extension: the call waits for an endpoint until its deadline instead of failing at once where none can be
/// reached ("wait for ready" in gRPC).
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(svc_channel::WaitForReady);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// A request extension: this call does harm when it is done twice. It is neither retried nor hedged, whatever the service
/// config says of its method; only what was provably not processed is sent again.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(svc_channel::SendOnce);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOnce;

type Answer = Result<Response<ResponseBody>, Status>;
type SlowWay = Pin<Box<dyn Future<Output = Answer> + Send>>;

pin_project! {
    /// The future of a call on a [`Channel`](crate::Channel). Dropping it cancels the call.
    pub struct CallFuture {
        // What is left to do when the first attempt fails; gone once it cannot be repeated.
        call: Option<Call>,
        attempt: Option<Attempt>,
        slow: Option<SlowWay>,
        failed: Option<Status>,
        // The call as a whole, where it is observed; passes on to the response's body.
        record: Option<CallRecord>,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

/// A call that may have to be sent more than once.
struct Call {
    front: Arc<Handle>,
    path: Uri,
    headers: HeaderMap,
    body: Outgoing,
    deadline: Option<Instant>,
    /// Its place among the calls that the channel admits.
    admitted: Option<Admitted>,
    max_response_bytes: Option<u32>,
    wait_for_ready: bool,
    /// A server refused it once; another refusal is final (gRFC A6).
    refused: bool,
    /// The service config's leave to send it again.
    retries: Option<Retries>,
    /// The service config's leave to send it to several endpoints.
    hedges: Option<Box<Hedges>>,
    attempts: Attempts,
}

impl CallFuture {
    pub(crate) fn new(front: &Arc<Handle>, request: Request<Body>) -> Self {
        let record = CallRecord::begin(front.metrics.as_ref(), request.uri().path());
        let attempts = Attempts::of(record.as_ref(), request.extensions().get());
        let entered = record.as_ref().map(CallRecord::enter);
        let mut this =
            Self { call: None, attempt: None, slow: None, failed: None, record: None, timer: None };
        let snapshot = front.snapshot.load();
        match Call::new(front, &snapshot, request, attempts) {
            Err(status) => this.failed = Some(status),
            Ok(call) if call.hedges.is_some() => this.slow = Some(Box::pin(call.run_hedged())),
            // Those that wait for a stream go first: who has just given one back must not take it again at once.
            Ok(call) if front.slot_freed.has_waiters() => this.slow = Some(Box::pin(call.run_after_others())),
            Ok(mut call) => match call.start_on(&snapshot) {
                Start::Sent(attempt) => {
                    this.timer = call.deadline.map(sleep_until);
                    this.attempt = Some(attempt);
                    this.call = Some(call);
                }
                Start::Failed(status) if call.retries.is_none() => this.failed = Some(status),
                Start::Wait(_) | Start::Failed(_) => this.slow = Some(Box::pin(call.run())),
            },
        }
        drop(entered);
        this.record = record;
        this
    }
}

impl Future for CallFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some(record) = self.as_mut().project().record.take() else {
            return self.poll_answer(cx);
        };
        let entered = record.enter();
        let polled = self.as_mut().poll_answer(cx);
        drop(entered);
        match polled {
            Poll::Pending => {
                *self.project().record = Some(record);
                Poll::Pending
            }
            Poll::Ready(mut answer) => {
                observe(record, &mut answer);
                Poll::Ready(answer)
            }
        }
    }
}

impl CallFuture {
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut this = self.project();
        if let Some(attempt) = this.attempt {
            match attempt.poll_head(cx) {
                Poll::Pending => {
                    let Some(timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
                    ready!(timer.poll(cx));
                    let (Some(attempt), Some(call)) = (this.attempt.take(), this.call.take()) else {
                        return Poll::Pending; // both are there until the call ends
                    };
                    return Poll::Ready(Err(call.expired(attempt)));
                }
                Poll::Ready(head) => {
                    let (Some(attempt), Some(mut call)) = (this.attempt.take(), this.call.take()) else {
                        return Poll::Pending; // both are there until the call ends
                    };
                    this.timer.set(None);
                    match head {
                        Ok(head) if call.is_final(&head) => {
                            return Poll::Ready(Ok(call.respond(attempt, head)));
                        }
                        Ok(head) => *this.slow = Some(Box::pin(call.turned_down(attempt, head))),
                        Err(error) => *this.slow = Some(Box::pin(call.failed(attempt.fail(error)))),
                    }
                }
            }
        }
        if let Some(status) = this.failed.take() {
            return Poll::Ready(Err(status));
        }
        match this.slow {
            Some(slow) => slow.as_mut().poll(cx),
            // Polled again after its end: the contract of futures leaves open what happens.
            None => Poll::Pending,
        }
    }
}

impl Call {
    fn new(
        front: &Arc<Handle>,
        snapshot: &Snapshot,
        request: Request<Body>,
        attempts: Attempts,
    ) -> Result<Self, Status> {
        let admitted =
            front.admission.in_flight.as_ref().map(|limit| limit.enter(&front.name)).transpose()?;
        let (mut parts, body) = request.into_parts();
        let methods = snapshot.methods.as_ref();
        let method = methods.and_then(|m| Some((m, m.config.method(parts.uri.path())?)));
        let timeout = method.and_then(|(_, config)| config.timeout);
        let waits = method.and_then(|(_, config)| config.wait_for_ready).unwrap_or(false);
        let deadline = deadline::of_call(&parts.headers, timeout, front.deadline)?;
        parts.headers.entry(USER_AGENT).or_insert(AGENT);
        #[cfg(feature = "opentelemetry")]
        propagate::into(&mut parts.headers);
        let max_request_bytes = method.and_then(|(_, config)| config.max_request_bytes);
        let body = Outgoing::read(body, max_request_bytes, &front.replay)?;
        let repeatable = method.filter(|_| parts.extensions.get::<SendOnce>().is_none());
        // Only what is wholly there can be sent twice at the same time.
        let hedges = repeatable
            .filter(|_| body.is_whole())
            .and_then(|(m, config)| Hedges::of(config, m.throttle.as_ref(), Instant::now()));
        Ok(Self {
            front: front.clone(),
            path: parts.uri,
            headers: parts.headers,
            body,
            deadline,
            admitted,
            max_response_bytes: method.and_then(|(_, config)| config.max_response_bytes),
            wait_for_ready: waits || parts.extensions.get::<WaitForReady>().is_some(),
            refused: false,
            retries: repeatable.and_then(|(m, config)| Retries::of(config, m.throttle.as_ref())),
            hedges: hedges.map(Box::new),
            attempts,
        })
    }

    /// Whether the response is the call's: headers that do not end the stream commit it; so does everything where
    /// nothing is retried.
    fn is_final(&self, head: &Response<h2::RecvStream>) -> bool {
        let Some(retries) = &self.retries else { return true };
        let is_final = !head.body().is_end_stream() || outcome_is_ok(head.headers());
        if is_final {
            retries.count_success();
        }
        is_final
    }

    fn respond(&mut self, attempt: Attempt, head: Response<h2::RecvStream>) -> Response<ResponseBody> {
        self.attempts.settled(&attempt.connection().endpoint);
        let terms = Terms {
            deadline: self.deadline,
            channel: &self.front.name,
            meter: self.max_response_bytes.map(Meter::new),
            admitted: self.admitted.take(),
        };
        attempt.respond(head, terms)
    }

    fn expired(&self, attempt: Attempt) -> Status {
        let doing = format!("waiting for an answer of {}", attempt.connection());
        attempt.give_up().end(Outcome::Expired, Code::DeadlineExceeded);
        status::deadline_exceeded(&self.front.name, &doing)
    }
}

/// The call has its answer: what is known of its end.
fn observe(record: CallRecord, answer: &mut Answer) {
    match answer {
        Err(status) => record.end(status.code()),
        Ok(response) if response.body().is_end_stream() => {
            record.end(status::code_of_trailers(response.headers()));
        }
        Ok(response) => response.body_mut().observe(record),
    }
}

fn outcome_is_ok(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code.as_bytes() == b"0")
}
