//! The layer around a service's routes: it counts calls in flight, answers for handlers that panic, and ends streams
//! when the stages of a stop say so.
//!
//! A call counts from its head to the end, or the drop, of its response's body, so that streams count. Health checks
//! and reflection do not count: a client that watches health would otherwise keep an instance from ever draining.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::stages::{Beginning, Stage};

/// The number of calls in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    calls: AtomicU64,
    /// Somebody waits for changes: only then is telling worth its price.
    observed: AtomicBool,
    changed: Notify,
}

impl InFlight {
    pub(super) fn now(&self) -> u64 {
        self.0.calls.load(Ordering::Acquire)
    }

    /// Waits until the count is not `known`. Cancel safe.
    pub(super) async fn changed_from(&self, known: u64) -> u64 {
        self.0.observed.store(true, Ordering::Release);
        loop {
            let changed = self.0.changed.notified();
            let now = self.now();
            if now != known {
                return now;
            }
            changed.await;
        }
    }

    fn begin(&self) -> Guard {
        self.0.calls.fetch_add(1, Ordering::AcqRel);
        self.tell();
        Guard(self.clone())
    }

    fn tell(&self) {
        if self.0.observed.load(Ordering::Acquire) {
            self.0.changed.notify_one();
        }
    }
}

/// One call in flight.
#[derive(Debug)]
#[must_use]
struct Guard(InFlight);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::AcqRel);
        self.0.tell();
    }
}

/// Makes [`Guarded`] services.
#[derive(Clone, Debug)]
pub(super) struct GuardLayer {
    inflight: InFlight,
    grace: Beginning,
    rest: Beginning,
}

impl GuardLayer {
    /// Counts calls, and ends those that a stage of the stop ends.
    pub(super) fn new(inflight: InFlight, stage: &Stage) -> GuardLayer {
        GuardLayer { inflight, grace: stage.grace.clone(), rest: stage.rest.clone() }
    }

    pub(super) fn guard<S>(&self, inner: S) -> Guarded<S> {
        let Self { inflight, grace, rest } = self.clone();
        Guarded { inner, inflight, grace, rest }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        self.guard(inner)
    }
}

/// The routes of a served process, with their calls counted and their panics caught. Layers of a server given to
/// [`Serve::server`](super::Serve::server) are put around it.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    inflight: InFlight,
    grace: Beginning,
    rest: Beginning,
}

impl<S, B> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let counts = counts(request.uri().path());
        let guard = counts.then(|| self.inflight.begin());
        // Health streams end with the notice, so that their connections can close; calls have their grace.
        let end = if counts { &self.rest } else { &self.grace }.clone();
        let path = request.uri().path().to_owned();
        let inner = &mut self.inner;
        // The unwound state is the handler's own; the next call gets a clone made before, as tonic does it.
        let call = catch_unwind(AssertUnwindSafe(|| inner.call(request)));
        Box::pin(async move {
            let answer = match call {
                Ok(call) => AssertUnwindSafe(call).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            match answer {
                Ok(Ok(response)) => {
                    Ok(response.map(|body| Body::new(GuardedBody::new(body, end, guard, path))))
                }
                Ok(Err(error)) => Err(error),
                Err(panic) => Ok(panicked(&path, &*panic).into_http()),
            }
        })
    }
}

fn counts(path: &str) -> bool {
    !path.starts_with("/grpc.health.") && !path.starts_with("/grpc.reflection.")
}

/// The panic's text goes to the log, not to the caller, who may be anybody.
fn panicked(path: &str, panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    metrics::counter!(crate::metrics::HANDLER_PANICS).increment(1);
    tracing::error!(path, panic = %text, "a handler panicked");
    Status::internal("the handler of this call panicked; see the server's log")
}

fn stopping() -> Status {
    Status::unavailable("the server is stopping; the stream has to be opened again elsewhere")
}

pin_project! {
    /// A response's body: ends the counting, catches panics of streams, and ends when a stop says so.
    struct GuardedBody<B> {
        #[pin]
        body: B,
        end: Beginning,
        #[pin]
        ending: OwnedNotified,
        guard: Option<Guard>,
        path: String,
        // A message was sent after the end had come.
        overdue: bool,
        ended: bool,
    }
}

impl<B> GuardedBody<B> {
    fn new(body: B, end: Beginning, guard: Option<Guard>, path: String) -> GuardedBody<B> {
        let ending = end.coming();
        GuardedBody { body, end, ending, guard, path, overdue: false, ended: false }
    }
}

impl<B> HttpBody for GuardedBody<B>
where
    B: HttpBody<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        let body = this.body;
        let last_words = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(Poll::Ready(frame)) => {
                // A stream that is always ready never waits for its end. One message more is let through, since it is
                // all that a unary call has to say.
                let late = matches!(&frame, Some(Ok(frame)) if frame.is_data()) && this.end.has_come();
                let over = late && std::mem::replace(this.overdue, true);
                if !over {
                    if !matches!(frame, Some(Ok(_))) {
                        *this.guard = None;
                    }
                    return Poll::Ready(frame);
                }
                stopping()
            }
            Ok(Poll::Pending) => {
                if !this.end.has_come() {
                    ready!(this.ending.poll(cx));
                }
                stopping()
            }
            Err(panic) => panicked(this.path, &*panic),
        };
        *this.ended = true;
        *this.guard = None;
        let mut trailers = HeaderMap::new();
        // A status of ours has a plain message, which always fits into a header.
        let _ = last_words.add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const MESSAGE: Bytes = Bytes::from_static(b"hello");

    /// A body that is ready with these frames at any time, what ends it, and the count that it is part of.
    fn guarded(
        frames: impl IntoIterator<Item = Frame<Bytes>>,
    ) -> (GuardedBody<impl HttpBody<Data = Bytes, Error = Status>>, Beginning, InFlight) {
        let frames = futures_util::stream::iter(frames.into_iter().map(Ok));
        let (end, inflight) = (Beginning::default(), InFlight::default());
        let body =
            GuardedBody::new(StreamBody::new(frames), end.clone(), Some(inflight.begin()), "/a/b".to_owned());
        (body, end, inflight)
    }

    /// What is still sent: the number of messages, and the status, if there is one.
    async fn sent(body: impl HttpBody<Data = Bytes, Error = Status>) -> (usize, Option<String>) {
        let sent = body.collect().await.expect("no error");
        let status =
            sent.trailers().map(|trailers| trailers["grpc-status"].to_str().expect("text").to_owned());
        (sent.to_bytes().len() / MESSAGE.len(), status)
    }

    #[tokio::test]
    async fn a_stream_that_is_always_ready_is_ended_with_a_status() {
        let (body, end, inflight) = guarded((0..1000).map(|_| Frame::data(MESSAGE)));
        let mut body = Box::pin(body);
        for _ in 0..10 {
            body.frame().await.expect("it goes on").expect("no error");
        }
        end.come();
        assert_eq!(sent(body).await, (1, Some("14".to_owned())), "one that was ready, then UNAVAILABLE");
        assert_eq!(inflight.now(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_comes_after_the_end_of_streams_is_whole() {
        let ok =
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
        let (body, end, inflight) = guarded([Frame::data(MESSAGE), Frame::trailers(ok)]);
        end.come();
        assert_eq!(sent(body).await, (1, Some("0".to_owned())));
        assert_eq!(inflight.now(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_has_nothing_to_say_is_woken_to_be_ended() {
        let (end, silent) =
            (Beginning::default(), futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        let body = GuardedBody::new(StreamBody::new(silent), end.clone(), None, "/a/b".to_owned());
        let sent = tokio::spawn(sent(body));
        tokio::task::yield_now().await;
        end.come();
        assert_eq!(sent.await.expect("no panic"), (0, Some("14".to_owned())));
    }
}
