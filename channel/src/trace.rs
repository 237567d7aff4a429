//! A span for each call, by OpenTelemetry's conventions for RPC. A subscriber that wants them takes DEBUG of the target
//! `svc_channel::call`; without one a call pays one branch. The name goes into `otel.name`, where tracing-opentelemetry
//! looks for it; a `traceparent` that the caller has set is passed on like any other metadata.

use tonic::Code;
use tracing::field::Empty;
use tracing::{Level, Span};

use crate::endpoint::{Address, Endpoint};

const TARGET: &str = "svc_channel::call";

/// The span of a call of the method at `path`; none where nobody wants it.
pub(crate) fn span(path: &str) -> Span {
    if !tracing::enabled!(target: TARGET, Level::DEBUG) {
        return Span::none();
    }
    let name = path.strip_prefix('/').unwrap_or(path);
    let (service, method) = name.rsplit_once('/').unwrap_or(("", name));
    tracing::debug_span!(
        target: TARGET,
        "call",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        server.address = Empty,
        server.port = Empty,
    )
}

/// An attempt was sent, the `number`th from 1, within the call's span. The last one's server is the span's; each beyond
/// the first is an event.
pub(crate) fn sent(endpoint: &Endpoint, number: u32) {
    let span = Span::current();
    match &endpoint.address {
        Address::Tcp(authority) => {
            span.record("server.address", authority.host());
            span.record("server.port", authority.port_u16());
        }
        unix => {
            span.record("server.address", tracing::field::display(unix));
        }
    }
    if number > 1 {
        tracing::debug!(target: TARGET, attempt = number, instance = %endpoint.instance, "sent again");
    }
}

/// The call has ended.
pub(crate) fn ended(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i32);
    if code != Code::Ok {
        span.record("otel.status_code", "ERROR");
    }
}
