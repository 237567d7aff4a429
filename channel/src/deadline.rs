//! Deadlines: read from `grpc-timeout` once, when `call` is made, and written into each attempt's header as what
//! remains. The wire form is the gRPC HTTP/2 protocol's: at most eight digits and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::Status;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The instant by which the call must have ended: the lesser of the header's and the service config's timeout, or else
/// the channel's default.
///
/// # Errors
/// INVALID_ARGUMENT for a header that is none; sending it on would leave the server to guess.
pub(crate) fn of_call(
    headers: &HeaderMap,
    configured: Option<Duration>,
    default: Option<Duration>,
) -> Result<Option<Instant>, Status> {
    let asked = headers.get(GRPC_TIMEOUT).map(|value| {
        parse(value).ok_or_else(|| {
            Status::invalid_argument(format!(
                "grpc-timeout {value:?} is malformed: write up to eight digits and one of H M S m u n"
            ))
        })
    });
    let limit = [asked.transpose()?, configured].into_iter().flatten().min().or(default);
    // A limit beyond what the clock can hold is none.
    Ok(limit.and_then(|limit| Instant::now().checked_add(limit)))
}

/// Writes what remains into the header.
pub(crate) fn write_remaining(headers: &mut HeaderMap, remaining: Duration) {
    headers.insert(GRPC_TIMEOUT, format(remaining));
}

fn parse(value: &HeaderValue) -> Option<Duration> {
    let (digits, unit) = value.as_bytes().split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b"H" => Duration::from_secs(n * 3600),
        b"M" => Duration::from_secs(n * 60),
        b"S" => Duration::from_secs(n),
        b"m" => Duration::from_millis(n),
        b"u" => Duration::from_micros(n),
        b"n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The finest unit in which the duration has at most eight digits.
fn format(remaining: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [
        (remaining.as_nanos(), 'n'),
        (remaining.as_micros(), 'u'),
        (remaining.as_millis(), 'm'),
        (u128::from(remaining.as_secs()), 'S'),
        (u128::from(remaining.as_secs() / 60), 'M'),
    ];
    let (n, unit) = units
        .into_iter()
        .find(|(n, _)| *n <= MOST)
        .unwrap_or((u128::from(remaining.as_secs() / 3600).min(MOST), 'H'));
    let mut text = [0u8; 9];
    let text = write_digits(&mut text, n as u64, unit as u8);
    // Digits and a letter: always a header value.
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

fn write_digits(buffer: &mut [u8; 9], mut n: u64, unit: u8) -> &[u8] {
    let mut at = buffer.len() - 1;
    buffer[at] = unit;
    loop {
        at -= 1;
        buffer[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 || at == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_written_in_at_most_eight_digits_and_never_says_more_than_remains() {
        for (duration, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(1), "1000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999H"),
        ] {
            let header = format(duration);
            assert_eq!(header, text, "{duration:?}");
            assert!(parse(&header).is_some_and(|d| d <= duration), "{duration:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_refused_with_the_remedy() {
        for bad in ["", "1", "m", "123456789m", "1x", "-1m", "1.5S", " 1S", "1 S"] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(bad))]);
            let refused = of_call(&headers, None, None).expect_err(bad);
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains("eight digits"), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_header_goes_before_the_default() {
        let second = Some(Duration::from_secs(1));
        let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static("5S"))]);
        let now = Instant::now();
        let of = |headers: &HeaderMap, configured, default| {
            of_call(headers, configured, default).expect("good").map(|d| d - now)
        };
        assert_eq!(of(&headers, None, second), Some(Duration::from_secs(5)));
        assert_eq!(of(&headers, second, None), Some(Duration::from_secs(1)), "the lesser of the two");
        assert_eq!(of(&HeaderMap::new(), None, second), second);
        assert_eq!(of(&HeaderMap::new(), None, None), None);
    }
}
