//! The layer around a server's calls. The caller's trace goes on in a span of the call's own, in which all that its
//! handler logs is written; its deadline is set down for the handler; calls are counted and timed by the names of gRFC
//! A66.
//!
//! A call ends with its response's body: with the status in the trailers, or dropped before, which is CANCELLED.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt;
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::sizes::Sizes;
use crate::codes;
use crate::deadline::Deadline;
use crate::methods;

/// Makes [`Observed`] services.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Observe;

impl Observe {
    /// The layer; it has no settings.
    pub fn new() -> Observe {
        Observe
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner }
    }
}

/// A server whose calls are traced and measured.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes>,
{
    type Response = Response<ObservedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(&request);
        let received = call.received.clone();
        let mut request = request.map(|body| Body::new(Received { body, sizes: received }));
        let deadline = Deadline::of_headers(request.headers());
        request.extensions_mut().insert(deadline);
        let span = call.span.clone();
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(
            async move {
                let response = answer.await?;
                call.answered(&response);
                Ok(response.map(|body| ObservedBody { body, call }))
            }
            .instrument(span),
        )
    }
}

/// A call from its head to its end, which is its drop.
struct Call {
    span: Span,
    /// `None` where it is not gRPC's, such as a page.
    method: Option<&'static str>,
    began: Instant,
    received: Arc<Mutex<Sizes>>,
    sent: Sizes,
    code: Code,
}

impl Call {
    fn begin<B>(request: &Request<B>) -> Call {
        let path = request.uri().path();
        let grpc = request.headers().get(header::CONTENT_TYPE);
        let grpc = grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let span = tracing::info_span!(
            target: "demo_services::call",
            "call",
            otel.name = path.strip_prefix('/').unwrap_or(path),
            otel.kind = "server",
            otel.status_code = Empty,
        );
        let caller =
            global::get_text_map_propagator(|propagator| propagator.extract(&Headers(request.headers())));
        if caller.span().span_context().is_valid() {
            // An error means that no span is made of it, since logging has not been started.
            let _ = span.set_parent(caller);
        }
        let method = grpc.then(|| methods::name_of(path));
        if let Some(method) = method {
            metrics::counter!("grpc.server.call.started", "grpc.method" => method).increment(1);
        }
        let received = Arc::default();
        Call { span, method, began: Instant::now(), received, sent: Sizes::default(), code: Code::Cancelled }
    }

    /// The response's head is there; a call that failed at once has its status in it.
    fn answered<B>(&mut self, response: &Response<B>) {
        if self.method.is_some() {
            self.told(response.headers());
        } else {
            self.code = Code::Ok;
            tracing::debug!(target: "demo_services::call", status = response.status().as_u16(), "answered");
        }
    }

    /// Headers that may hold the status.
    fn told(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(method) = self.method else { return };
        let (status, elapsed) = (codes::name(self.code), self.began.elapsed());
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).total();
        let labels = [("grpc.method", method), ("grpc.status", status)];
        metrics::histogram!("grpc.server.call.duration", &labels).record(elapsed);
        // No histogram takes more than a double's 53 bits.
        metrics::histogram!("grpc.server.call.rcvd_total_compressed_message_size", &labels)
            .record(received as f64);
        metrics::histogram!("grpc.server.call.sent_total_compressed_message_size", &labels)
            .record(self.sent.total() as f64);
        self.span.in_scope(|| {
            let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
            match self.code {
                // The server's own fault: somebody has to look.
                Code::Unknown | Code::Internal | Code::DataLoss => {
                    self.span.record("otel.status_code", "ERROR");
                    tracing::warn!(target: "demo_services::call", method, status, elapsed_ms, "call failed");
                }
                _ => tracing::debug!(target: "demo_services::call", method, status, elapsed_ms, "call ended"),
            }
        });
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(header::HeaderName::as_str).collect()
    }
}

pin_project! {
    /// A request's body, measured.
    struct Received {
        #[pin]
        body: Body,
        sizes: Arc<Mutex<Sizes>>,
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.sizes.lock().unwrap_or_else(PoisonError::into_inner).pass(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A response's body, made in the call's span; it ends the call.
    pub struct ObservedBody<B> {
        #[pin]
        body: B,
        call: Call,
    }
}

impl<B> std::fmt::Debug for ObservedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObservedBody").field("method", &self.call.method).finish_non_exhaustive()
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let body = this.body;
        let frame = ready!(this.call.span.in_scope(|| body.poll_frame(cx)));
        if let Some(Ok(frame)) = &frame {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => this.call.sent.pass(data),
                (_, Some(trailers)) => this.call.told(trailers),
                (None, None) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
