//! Durations as gRPC's JSON writes them: decimal seconds with up to nine digits behind the point and an `s`
//! (`google.protobuf.Duration`).

use std::time::Duration;

/// The largest that `google.protobuf.Duration` has: ten thousand years.
const MOST_SECONDS: u64 = 315_576_000_000;

pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    let number = text.strip_suffix('s').ok_or("a duration ends in s, such as \"1.5s\"")?;
    if number.starts_with('-') {
        return Err("a duration here is not negative");
    }
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return Err("a duration is decimal seconds, such as \"1.5s\"");
    }
    if number.ends_with('.') {
        return Err("a duration is decimal seconds, such as \"1.5s\"");
    }
    let seconds: u64 = seconds.parse().map_err(|_| "a duration this long is not known")?;
    if seconds > MOST_SECONDS {
        return Err("a duration this long is not known");
    }
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| "a duration is decimal seconds")?;
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_seconds() {
        for (text, duration) in [
            ("0s", Duration::ZERO),
            ("1s", Duration::from_secs(1)),
            ("1.5s", Duration::from_millis(1_500)),
            ("0.000000001s", Duration::from_nanos(1)),
            ("315576000000s", Duration::from_secs(MOST_SECONDS)),
        ] {
            assert_eq!(parse(text), Ok(duration), "{text}");
        }
        for bad in ["", "s", "1", "1m", "-1s", ".5s", "1.s", "1.0000000001s", "1e3s", " 1s", "315576000001s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
