//! Load accounting, one [`Load`] per instance: calls in flight and recent failures. A call adds itself when it is sent
//! and is taken off by the drop of its `InFlight` (`load/in_flight.rs`), however it ends. Read by pickers, without a lock.

pub(crate) mod in_flight;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::{Duration, Instant};

use crate::ewma::PeakEwma;
use crate::health::orca::Reported;

/// A failed call weighs as much as this many in flight have added, at most, ...
const MAX_PENALTY: u32 = 64;
/// ... and half as much after each second without another failure.
const HALF_LIFE_MS: u64 = 1_000;

/// A failed call counts as an answer that took so many times the average, ...
const FAILURE_FACTOR: f32 = 4.0;
/// ... at least so long, and at most so long: one failure makes an endpoint less attractive, many rule it out.
const FAILURE_US: (f32, f32) = (10_000.0, 1e6);

/// After so many deadline expiries in a row the owner is told that the instance may be a black hole.
pub(crate) const SUSPICIOUS: u32 = 3;

/// The load of one instance. It survives reconnects and updates of the endpoint; streams count until their last byte.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Deadlines that expired on it in a row.
    expired: AtomicU32,
    /// Failures in a row, for the penalty.
    failures: AtomicU32,
    /// At so many failures in a row the owner is told; 0 is never.
    most_failures: AtomicU32,
    /// What happened since the owner's last look.
    tally: (AtomicU32, AtomicU32),
    failed_at_ms: AtomicU64,
    latency: PeakEwma,
    /// What the server reports of itself.
    pub(crate) reported: Reported,
    /// The owner may be asked for another connection.
    pub(crate) may_grow: AtomicBool,
}

/// How a call ended, as load and health see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server answered: OK, or a code that says something of the request rather than of the server.
    Answered,
    /// A code, reset or loss that says something of the server (gRFC A50 leaves the choice to implementations).
    Failed,
    /// The deadline ran out after the call was sent.
    Expired,
    /// The caller lost interest, or the server never saw the call.
    Neutral,
}

impl Load {
    /// Tells the owner at so many failures in a row.
    pub(crate) fn new(most_failures: Option<u32>) -> Self {
        Self { most_failures: most_failures.unwrap_or(0).into(), ..Self::default() }
    }

    /// From here on tells the owner at so many.
    pub(crate) fn set_most_failures(&self, most_failures: Option<u32>) {
        self.most_failures.store(most_failures.unwrap_or(0), Relaxed);
    }

    /// Calls answered and failed since this was last asked.
    pub(crate) fn take_tally(&self) -> (u32, u32) {
        (self.tally.0.swap(0, Relaxed), self.tally.1.swap(0, Relaxed))
    }

    /// Calls in flight, streams included.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// What least-loaded policies compare: calls in flight, plus a penalty for recent failures, so that an instance
    /// that fails fast does not look attractive. The clock is read only where there were failures.
    pub fn value(&self) -> u32 {
        let failures = self.failures.load(Relaxed);
        let penalty = if failures == 0 { 0 } else { self.penalty(failures, now_ms()) };
        self.in_flight().saturating_add(penalty)
    }

    /// The latency that a call may expect by now, in microseconds; `None` where nothing is known.
    pub(crate) fn latency_us(&self, now_ms: u64) -> Option<f32> {
        self.latency.get(now_ms as u32)
    }

    /// A new connection may lead to a new process: what was known of the old one counts no longer.
    pub(crate) fn begin_anew(&self) {
        self.forgive();
        self.latency.clear();
        self.reported.clear();
    }

    /// The moving average of the time to response headers; `None` before the first.
    pub fn latency(&self) -> Option<Duration> {
        let latency = self.latency.get(now_ms() as u32)?;
        Some(Duration::from_secs_f32(latency / 1e6))
    }

    /// The weight that the server's own load reports make (gRFC A58), in calls a second by utilization; `None` where the
    /// channel's policy reads none, and where none counts by now.
    pub fn reported_weight(&self) -> Option<f32> {
        self.reported.weight(now_ms())
    }

    fn penalty(&self, failures: u32, now_ms: u64) -> u32 {
        let quiet_ms = now_ms.saturating_sub(self.failed_at_ms.load(Relaxed));
        let halvings = (quiet_ms / HALF_LIFE_MS).min(31) as u32;
        failures.saturating_mul(8).min(MAX_PENALTY) >> halvings
    }

    /// The server showed signs of life.
    fn lives(&self) {
        // A load first: a store would take the cache line from the other workers on every call.
        if self.expired.load(Relaxed) != 0 {
            self.expired.store(0, Relaxed);
        }
    }

    /// A call was answered.
    fn answered(&self) {
        self.tally.0.fetch_add(1, Relaxed);
        self.forgive();
    }

    /// Counts of what went wrong in a row start anew.
    pub(crate) fn forgive(&self) {
        self.lives();
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Counts a failure; true when the owner must hear of it.
    fn failed(&self) -> bool {
        let now = now_ms();
        self.tally.1.fetch_add(1, Relaxed);
        self.failed_at_ms.store(now, Relaxed);
        let average = self.latency_us(now).unwrap_or(0.0);
        let counts_as = (average * FAILURE_FACTOR).clamp(FAILURE_US.0, FAILURE_US.1);
        self.latency.observe(counts_as, now as u32);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let most = self.most_failures.load(Relaxed);
        most > 0 && failures >= most
    }

    /// Counts an expired deadline; true when the owner must hear of it.
    fn expired(&self) -> bool {
        self.failed();
        self.expired.fetch_add(1, Relaxed) + 1 >= SUSPICIOUS
    }
}

#[cfg(test)]
use crate::health::orca::LoadReports;

#[cfg(test)]
impl Load {
    pub(crate) fn count_for_tests(&self, calls: u32) {
        self.in_flight.fetch_add(calls, Relaxed);
    }

    /// As if its server had reported what makes this weight.
    pub(crate) fn reports_for_tests(&self, weight: u32) {
        let settings = LoadReports { blackout_period: Duration::ZERO, ..LoadReports::default() };
        self.reported.want(Some(&settings));
        self.reported.read(&crate::health::orca::tests::reporting(f64::from(weight), 1.0), now_ms);
    }

    pub(crate) fn sampled_for_tests(&self, latency_us: f32) {
        self.latency.observe(latency_us, now_ms() as u32);
    }
}

/// Milliseconds of a clock that starts with the first call, from 1 on.
pub(crate) fn now_ms() -> u64 {
    ms_at(Instant::now())
}

fn ms_at(instant: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    instant.saturating_duration_since(*START).as_millis() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_fails_fast_does_not_look_attractive() {
        let load = Load::default();
        assert_eq!(load.value(), 0);
        load.failed();
        assert!(load.value() >= 4, "one failure weighs more than some calls in flight: {}", load.value());
        for _ in 0..100 {
            load.failed();
        }
        assert!(load.value() <= MAX_PENALTY, "the penalty is bounded");
        load.answered();
        assert_eq!(load.value(), 0, "an answer ends it");
        assert_eq!(load.take_tally(), (1, 101));
    }

    #[test]
    fn the_penalty_halves_each_second() {
        let load = Load::default();
        load.failures.store(8, Relaxed);
        load.failed_at_ms.store(1_000, Relaxed);
        let at = |ms| load.penalty(8, ms);
        assert_eq!((at(1_000), at(2_000), at(3_000), at(100_000)), (64, 32, 16, 0));
    }

    #[test]
    fn three_expiries_in_a_row_are_told_and_an_answer_starts_anew() {
        let load = Load::default();
        assert!(!load.expired() && !load.expired());
        load.answered();
        assert!(!load.expired() && !load.expired() && load.expired());
    }
}
