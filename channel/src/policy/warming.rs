//! How new an endpoint is, and what its weight counts meanwhile; `slow_start.rs` makes picks of it.

use std::time::Duration;

use tokio::time::Instant;

/// How an endpoint that is new is led up to its full share: at a given age its weight counts
/// `max(min_weight_percent / 100, (age / window) ^ (1 / aggression))`.
///
/// New is an endpoint that is ready for the first time, or again after an ejection, after it could not be reached, or
/// after it said that it does not serve. A connection that is replaced (GOAWAY, a new address, a short loss) makes
/// nothing new. Where more than half of the ready endpoints are new at once (the client's own start, a whole new
/// deployment) all take their full shares: there is nobody to spare them for (envoy#26290).
///
/// # Defaults
/// Off unless given to [`ChannelBuilder::slow_start`](crate::ChannelBuilder::slow_start). Aggression 1.0 and a least
/// weight of 10 %: those of Envoy's `SlowStartConfig`, which has no default window either.
///
/// ```
/// use std::time::Duration;
/// use svc_channel::{Channel, SlowStart};
/// let builder = Channel::builder().slow_start(SlowStart::new(Duration::from_secs(30)).aggression(2.0));
/// # drop(builder);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    pub(super) aggression: f64,
    pub(super) min_weight_percent: u32,
}

impl SlowStart {
    /// Slow start over `window`; zero is no slow start.
    pub fn new(window: Duration) -> Self {
        Self { window, aggression: 1.0, min_weight_percent: 10 }
    }

    /// How fast the share grows: 1.0 evenly, above it faster at first, below it slower at first. What is less than 0.01
    /// counts as that.
    #[must_use]
    pub fn aggression(self, aggression: f64) -> Self {
        Self { aggression: aggression.max(0.01), ..self } // of a NaN too
    }

    /// The weight counts so many of a hundred at least, 0 to 100; what is above counts as 100. Too little keeps load
    /// balancers from noticing that an endpoint fails.
    #[must_use]
    pub fn min_weight_percent(self, percent: u32) -> Self {
        Self { min_weight_percent: percent.min(100), ..self }
    }

    pub(crate) fn window(&self) -> Duration {
        self.window
    }

    pub(super) fn factor(&self, age: Duration) -> f64 {
        let part = age.as_secs_f64() / self.window.as_secs_f64();
        if part >= 1.0 {
            return 1.0;
        }
        part.powf(1.0 / self.aggression).max(f64::from(self.min_weight_percent) / 100.0)
    }
}

/// An endpoint that is new, until its window is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Warming {
    pub(crate) since: Instant,
    pub(crate) settings: SlowStart,
}

impl Warming {
    /// What its weight counts by now, at most 1.
    pub(crate) fn factor(&self, now: Instant) -> f64 {
        self.settings.factor(now.saturating_duration_since(self.since))
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.settings.window
    }
}
