//! What becomes of a call when no endpoint is ready, and the words for it.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use super::EndpointSet;
use crate::owner::snapshot::Verdict;
use crate::resolution::Resolution;
use crate::subchannel::state::State;

impl EndpointSet {
    /// What becomes of a call when none is ready. `waited` says that discovery has had its time to answer.
    pub(crate) fn verdict(&self, name: &str, resolution: &Resolution, waited: bool, now: Instant) -> Verdict {
        if self.asleep {
            return Verdict::Idle(format!("{name}: the channel is idle and is being woken").into());
        }
        let hopeful = self.entries.values().any(|e| e.life.is_hopeful());
        let pending = *resolution == Resolution::Pending && !waited;
        let reason = self.reason(name, resolution, now).into();
        if hopeful || pending { Verdict::Wait(reason) } else { Verdict::Fail(reason) }
    }

    fn reason(&self, name: &str, resolution: &Resolution, now: Instant) -> String {
        let count = |state| self.entries.values().filter(|e| e.life.state() == state).count();
        let mut text = format!("{name}: no endpoint is ready: ");
        let known = self.entries.len();
        // Writing into a string cannot fail.
        let _ = match known {
            0 => write!(text, "none is known"),
            _ => write!(
                text,
                "{known} known, {} connecting, {} failed, {} ejected",
                count(State::Connecting) + count(State::Idle),
                count(State::Backoff),
                count(State::Ejected)
            ),
        };
        if let not_serving @ 1.. = count(State::NotServing) {
            let _ = write!(text, ", {not_serving} not serving");
        }
        let _ = write!(text, "; discovery {}", describe(resolution, now));
        let newest = self.entries.values().filter(|e| e.life.last_error().is_some()).max_by_key(|e| e.since);
        if let Some((entry, error)) = newest.and_then(|e| Some((e, e.life.last_error()?))) {
            let _ = write!(text, "; last error: instance {}: {error}", entry.endpoint.instance);
        }
        text
    }
}

/// Discovery's state, as errors and dumps say it.
pub(crate) fn describe(resolution: &Resolution, now: Instant) -> String {
    match resolution {
        Resolution::Pending => "has not answered yet".into(),
        Resolution::Live { known } => format!("is live and knows {known}"),
        Resolution::Stale { since, reason } => {
            let age = Duration::from_secs(now.saturating_duration_since(*since).as_secs());
            format!("is stale for {age:?}: {reason}")
        }
    }
}
