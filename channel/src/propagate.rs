//! The trace context of the span in which a call is made, into the call's headers: how is said by OpenTelemetry's global
//! propagator, which mostly writes W3C's `traceparent`. Only with the feature `opentelemetry`; where there is no context
//! a call pays a look at the current span and at the thread's context. All attempts of a call carry the same.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::Injector;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// <https://www.w3.org/TR/trace-context/>
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Adds what the propagator writes, unless the caller has set a `traceparent`.
pub(crate) fn into(headers: &mut HeaderMap) {
    if headers.contains_key(TRACEPARENT) {
        return;
    }
    let context = current();
    if context.span().span_context().is_valid() || !context.baggage().is_empty() {
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Headers(headers));
        });
    }
}

/// The current span's; where it has none, since OpenTelemetry's layer does not take it, or there is no such layer, the
/// thread's.
fn current() -> Context {
    let context = Span::current().context();
    if context.span().span_context().is_valid() { context } else { Context::current() }
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    /// What the caller has set stays; what cannot be a header is left out. So is what is empty, as W3C wants for
    /// `tracestate`.
    fn set(&mut self, key: &str, value: String) {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) else { return };
        if !value.is_empty() {
            self.0.entry(name).or_insert(value);
        }
    }
}
