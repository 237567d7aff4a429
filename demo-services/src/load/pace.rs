//! When the next call may start, so that all callers together keep one rate. A value: time in, time out.

use std::time::Duration;

use tokio::time::Instant;

/// How far behind the plan calls may start at once. Callers that were all held up resume with a short burst, not
/// with every call that they missed, which would be a load that nobody asked for.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Hands out start times, one period apart.
#[derive(Debug)]
pub(crate) struct Pace {
    /// `None`: as fast as the callers can.
    period: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// `rate` calls a second from `start` on; 0 means as fast as the callers can.
    pub(crate) fn new(rate: u32, start: Instant) -> Pace {
        let period = (rate > 0).then(|| Duration::from_secs(1) / rate);
        Pace { period, next: start }
    }

    /// The time at which the caller who asks may start its call; each time is given once.
    pub(crate) fn take(&mut self, now: Instant) -> Instant {
        let Some(period) = self.period else { return now };
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let slot = self.next.max(earliest);
        self.next = slot + period;
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn all_callers_together_keep_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        let times: Vec<Duration> = (0..4).map(|_| pace.take(start) - start).collect();
        assert_eq!(times, [Duration::ZERO, 10 * MS, 20 * MS, 30 * MS]);
    }

    #[test]
    fn calls_missed_in_a_long_pause_are_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        pace.take(start);
        let later = start + 10_000 * MS;
        let at_once = std::iter::repeat_with(|| pace.take(later)).take_while(|&slot| slot <= later).count();
        assert_eq!(at_once, 11, "a tenth of a second's worth and the one that is due, of 999 missed");
    }

    #[test]
    fn without_a_rate_every_call_may_start_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(0, start);
        assert!((0..1000).all(|_| pace.take(start) == start));
    }
}
