//! Whether an endpoint is new, for slow start. Pure: the core says when it becomes ready and when it ceases to be.

use std::time::Duration;

use tokio::time::Instant;

/// Away for so long or longer, it counts as new when it is back. gRPC's shortest wait before a second connect attempt
/// (1 s less its jitter): a connection that is replaced at once, for a GOAWAY or a loss, stays below it; a failed
/// attempt, and an ejection, do not.
const ABSENCE: Duration = Duration::from_millis(800);

/// When an endpoint was ready.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Presence {
    new_since: Option<Instant>,
    gone_since: Option<Instant>,
}

impl Presence {
    /// It is ready; true where it counts as new.
    pub(crate) fn came(&mut self, now: Instant) -> bool {
        let is_new = self.gone_since.is_none_or(|gone| now.saturating_duration_since(gone) >= ABSENCE);
        if is_new {
            self.new_since = Some(now);
        }
        is_new
    }

    /// It is ready no longer.
    pub(crate) fn went(&mut self, now: Instant) {
        self.gone_since = Some(now);
    }

    /// Since when it has been ready without a real absence.
    pub(crate) fn new_since(&self) -> Option<Instant> {
        self.new_since
    }
}
