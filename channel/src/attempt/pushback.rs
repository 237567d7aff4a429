//! What client and server tell each other about further attempts (gRFC A6): the server when there may be another one,
//! the client how many there were.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
pub(super) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Tells the server how many attempts there were before this one, if any.
pub(super) fn write_previous_attempts(headers: &mut HeaderMap, count: u32) {
    if count > 0 {
        headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(count));
    }
}

/// What the server says of further attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushback {
    None,
    After(Duration),
    Never,
}

impl Pushback {
    pub(super) fn of(trailers: &HeaderMap) -> Self {
        match trailers.get(PUSHBACK).map(|value| value.to_str().ok().and_then(|v| v.parse::<u32>().ok())) {
            None => Self::None,
            Some(Some(ms)) => Self::After(Duration::from_millis(ms.into())),
            // Negative, or nothing that can be read: no further attempt.
            Some(None) => Self::Never,
        }
    }
}
