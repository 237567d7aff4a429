//! The caller's deadline: read once as a call comes in, and passed on with what is left of it to those whom the handler
//! calls. The wire form is the gRPC HTTP/2 protocol's: at most eight digits and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::Request;

/// The header by which gRPC says how long a caller waits.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a caller gives up.
///
/// ```
/// # use demo_services::deadline::Deadline;
/// # async fn handler(incoming: tonic::Request<()>) {
/// let mut outgoing = tonic::Request::new(());
/// Deadline::of(&incoming).pass_on(&mut outgoing); // what is left of it, or nothing where there is none
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline of a call that was taken by a [`Service`](crate::service::Service).
    pub fn of<T>(request: &Request<T>) -> Deadline {
        request.extensions().get().copied().unwrap_or_default()
    }

    /// So long from now; none for what is beyond the clock.
    pub fn within(limit: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(limit))
    }

    /// What the headers of a call say; none where they say nothing that can be understood, which tonic's server ignores
    /// too.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Deadline {
        headers.get(GRPC_TIMEOUT).and_then(parse).map_or(Deadline(None), Deadline::within)
    }

    /// How long there is still; `None` is for ever.
    pub fn left(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// When it is, if it is.
    pub fn at(self) -> Option<Instant> {
        self.0
    }

    /// The earlier of both.
    #[must_use]
    pub fn or_sooner(self, limit: Duration) -> Deadline {
        let limit = Deadline::within(limit);
        Deadline([self.0, limit.0].into_iter().flatten().min())
    }

    /// Gives an outgoing call what is left.
    pub fn pass_on<T>(self, request: &mut Request<T>) {
        if let Some(left) = self.left() {
            request.set_timeout(left);
        }
    }
}

/// What a `grpc-timeout` says.
pub(crate) fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpcs_timeouts_are_read_and_nothing_else() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("150m", Some(Duration::from_millis(150))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("123456789m", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse(&HeaderValue::from_static(text)), wanted, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("10S"));
        let mut incoming = Request::new(());
        incoming.extensions_mut().insert(Deadline::of_headers(&headers));
        tokio::time::advance(Duration::from_secs(4)).await;
        let mut outgoing = Request::new(());
        Deadline::of(&incoming).pass_on(&mut outgoing);
        let passed = outgoing.metadata().get(GRPC_TIMEOUT.as_str()).expect("a deadline").as_bytes();
        assert_eq!(parse(&HeaderValue::from_bytes(passed).unwrap()), Some(Duration::from_secs(6)));
        let sooner = Deadline::of(&incoming).or_sooner(Duration::from_secs(1));
        assert_eq!(sooner.left(), Some(Duration::from_secs(1)));
        assert_eq!(Deadline::of(&incoming).or_sooner(Duration::from_secs(60)), Deadline::of(&incoming));
    }

    #[test]
    fn without_a_deadline_none_is_made_up() {
        let mut outgoing = Request::new(());
        Deadline::of(&Request::new(())).pass_on(&mut outgoing);
        assert!(outgoing.metadata().get(GRPC_TIMEOUT.as_str()).is_none());
    }
}
