//! W3C's trace context on the wire, as a real server sees it. The propagator is the process's: all tests here set the
//! same. Each has a subscriber of its own, on the test's thread, its only one.

use std::sync::{Arc, Mutex};

use http::HeaderMap;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use svc_channel::Channel;
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_tests::backends::Greeter;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Status};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::support::{endpoint, greeter, hello, patiently};

/// A greeter that keeps the metadata of its last call. Its drop ends it.
struct Traced {
    last: Arc<Mutex<HeaderMap>>,
    channel: Channel,
    server: AbortHandle,
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Traced {
    async fn start() -> Self {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let last = Arc::new(Mutex::default());
        let keep = {
            let last = Arc::clone(&last);
            move |request: Request<()>| -> Result<Request<()>, Status> {
                *last.lock().expect("no panic") = request.metadata().clone().into_headers();
                Ok(request)
            }
        };
        let service = GreeterServer::with_interceptor(Greeter::named("b0"), keep);
        let router = Server::builder().add_service(service);
        let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.expect("it serves") }).abort_handle();
        Self { last, channel: Channel::fixed([endpoint("b0", &address)]), server }
    }

    fn header(&self, name: &str) -> Option<String> {
        let last = self.last.lock().expect("no panic");
        last.get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    /// The trace and the span that the last call named.
    fn traceparent(&self) -> Option<(String, String)> {
        let value = self.header("traceparent")?;
        let [_version, trace, span, _flags] = value.split('-').collect::<Vec<_>>().try_into().expect("four");
        Some((trace.to_owned(), span.to_owned()))
    }
}

/// Spans become OpenTelemetry's from this level on.
fn traced(most: LevelFilter) -> tracing::subscriber::DefaultGuard {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(most);
    // Another layer wants the channel's spans in any case.
    let others = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
    crate::subscribe(tracing_subscriber::registry().with(layer).with(others))
}

#[tokio::test]
async fn the_server_sees_the_trace_of_the_current_span_and_the_calls_own_span_as_its_parent() {
    let server = Traced::start().await;
    let _guard = traced(LevelFilter::DEBUG);
    let span = info_span!("caller");
    hello(&server.channel).instrument(span.clone()).await.expect("it serves");
    let (trace, parent) = server.traceparent().expect("it was sent");
    let own = span.context().span().span_context().clone();
    assert_eq!(trace, own.trace_id().to_string());
    assert_ne!(parent, own.span_id().to_string(), "the call has a span of its own, which is the parent");
    assert_eq!(server.header("tracestate"), None, "an empty one is not sent");
}

#[tokio::test]
async fn without_a_span_of_the_call_the_callers_is_the_parent() {
    let server = Traced::start().await;
    let _guard = traced(LevelFilter::INFO);
    let span = info_span!("caller");
    hello(&server.channel).instrument(span.clone()).await.expect("it serves");
    let own = span.context().span().span_context().clone();
    assert_eq!(server.traceparent(), Some((own.trace_id().to_string(), own.span_id().to_string())));
}

#[tokio::test]
async fn a_context_without_a_tracing_span_goes_along_too() {
    let server = Traced::start().await;
    let own = SpanContext::new(
        TraceId::from(0xabc),
        SpanId::from(0xdef),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    let context = Context::new().with_remote_span_context(own.clone());
    hello(&server.channel).with_context(context).await.expect("it serves");
    assert_eq!(server.traceparent(), Some((own.trace_id().to_string(), own.span_id().to_string())));
}

#[tokio::test]
async fn a_traceparent_that_the_caller_set_passes_untouched() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let server = Traced::start().await;
    let _guard = traced(LevelFilter::DEBUG);
    let mut request = Request::new(HelloRequest { name: "ada".into() });
    request.metadata_mut().insert("traceparent", GIVEN.parse().expect("ascii"));
    request.metadata_mut().insert("tracestate", "a=b".parse().expect("ascii"));
    let mut client = greeter(&server.channel);
    patiently("a call", client.say_hello(request).instrument(info_span!("caller"))).await.expect("it serves");
    assert_eq!(server.header("traceparent").as_deref(), Some(GIVEN));
    assert_eq!(server.header("tracestate").as_deref(), Some("a=b"));
}

#[tokio::test]
async fn where_there_is_no_context_nothing_is_added() {
    let server = Traced::start().await;
    hello(&server.channel).await.expect("it serves");
    assert_eq!((server.header("traceparent"), server.header("tracestate")), (None, None));
}
