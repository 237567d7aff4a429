//! Times as services store and tell them: milliseconds since 1970, and the protocols' timestamps.

use prost_types::Timestamp;

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The same as protocols have it.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    let nanos = ms.rem_euclid(1000) * 1_000_000;
    Timestamp { seconds: ms.div_euclid(1000), nanos: i32::try_from(nanos).unwrap_or_default() }
}

/// And back.
pub(crate) fn of_timestamp(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}
