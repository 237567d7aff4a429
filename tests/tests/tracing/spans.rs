//! The span of a call: its fields, and when there is none. Each test has a subscriber of its own, on the test's thread, its
//! only one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use svc_channel::Channel;
use svc_tests::backends::Backend;
use svc_tests::raw_h2::{RawServer, error};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{endpoint, hello, hello_within};

const TARGET: &str = "svc_channel::call";

type Fields = BTreeMap<String, String>;

/// Each span by its id.
type Spans = BTreeMap<u64, Fields>;
/// Each event, with the span that it is in.
type Events = Vec<(Option<u64>, Fields)>;

/// What was said of calls.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<(Spans, Events)>>);

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Heard {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::DEBUG
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        self.0.lock().expect("no panic").0.insert(id.into_u64(), fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(fields) = self.0.lock().expect("no panic").0.get_mut(&id.into_u64()) {
            values.record(&mut Into(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let within = context.event_span(event).map(|span| span.id().into_u64());
        self.0.lock().expect("no panic").1.push((within, fields));
    }
}

impl Heard {
    fn install() -> (Self, tracing::subscriber::DefaultGuard) {
        let heard = Heard::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone());
        (heard, crate::subscribe(subscriber))
    }

    /// The one span that there is.
    fn only(&self) -> (u64, Fields) {
        let heard = self.0.lock().expect("no panic");
        assert_eq!(heard.0.len(), 1, "one call, one span: {:?}", heard.0);
        heard.0.iter().next().map(|(id, fields)| (*id, fields.clone())).expect("one")
    }
}

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).map(String::as_str)
}

#[tokio::test]
async fn the_span_of_a_call_has_the_fields_of_the_conventions() {
    let (heard, _guard) = Heard::install();
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("it serves");
    let (_, fields) = heard.only();
    let (host, port) =
        backend.address().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).expect("both");
    for (name, wanted) in [
        ("otel.name", "greeter.v1.Greeter/SayHello"),
        ("otel.kind", "client"),
        ("rpc.system", "grpc"),
        ("rpc.service", "greeter.v1.Greeter"),
        ("rpc.method", "SayHello"),
        ("rpc.grpc.status_code", "0"),
        ("server.address", &host),
        ("server.port", &port),
    ] {
        assert_eq!(field(&fields, name), Some(wanted), "{name} of {fields:?}");
    }
    assert_eq!(field(&fields, "otel.status_code"), None, "a call that went well sets none");
}

#[tokio::test]
async fn an_attempt_beyond_the_first_is_an_event_in_the_calls_span() {
    let (heard, _guard) = Heard::install();
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.reset(stream, error::REFUSED_STREAM).await?;
        peer.greet("raw").await
    })
    .await;
    let channel = Channel::fixed([endpoint("raw", &server.address())]);
    hello(&channel).await.expect("sent again");
    let (id, fields) = heard.only();
    assert_eq!(field(&fields, "rpc.grpc.status_code"), Some("0"));
    let events = heard.0.lock().expect("no panic").1.clone();
    let [(within, event)] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(*within, Some(id));
    assert_eq!((field(event, "attempt"), field(event, "instance")), (Some("2"), Some("raw")));
}

#[tokio::test]
async fn a_call_that_fails_says_so() {
    let (heard, _guard) = Heard::install();
    let backend = Backend::start("b0").await;
    backend.hold();
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    hello_within(&channel, Some(Duration::from_millis(50))).await.expect_err("it is held");
    let (_, fields) = heard.only();
    assert_eq!(field(&fields, "rpc.grpc.status_code"), Some("4"), "DEADLINE_EXCEEDED");
    assert_eq!(field(&fields, "otel.status_code"), Some("ERROR"));
    backend.release();
}
