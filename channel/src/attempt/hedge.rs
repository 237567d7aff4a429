//! Hedging as the service config orders it (gRFC A6): when the next attempt of a call begins beside those under way,
//! and to whom it goes. `call/hedged.rs` sends them and waits for the first answer; this only decides.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Code;

use super::pushback::{self, Pushback};
use super::throttle::Throttle;
use crate::load::Load;
use crate::owner::snapshot::Snapshot;
use crate::policy;
use crate::service_config::{HedgingPolicy, MethodConfig};

/// The policy is asked so often for an endpoint that the call has not been sent to yet; then the next one in the list
/// is taken. Some policies would name the same one for ever.
const PICKS: usize = 4;

/// One call's hedges.
#[derive(Debug)]
pub(crate) struct Hedges {
    /// A method config with a hedging policy.
    method: Arc<MethodConfig>,
    throttle: Option<Arc<Throttle>>,
    /// Attempts that began.
    begun: u32,
    /// Of those, the ones that were provably not processed and are still to be replaced.
    owed: u32,
    /// When the next attempt begins; `None` when there will be none.
    due: Option<Instant>,
    /// The instances that it was sent to, known by their loads.
    asked: Vec<Arc<Load>>,
    /// Of those, the ones that have not answered yet.
    in_flight: Vec<Arc<Load>>,
}

/// What a failed attempt means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The call has failed: the other attempts end.
    Fatal,
    /// The others go on, and the next may begin.
    GoOn,
}

impl Hedges {
    /// `None` where the method has no hedging policy.
    pub(crate) fn of(
        method: &Arc<MethodConfig>,
        throttle: Option<&Arc<Throttle>>,
        now: Instant,
    ) -> Option<Self> {
        method.hedging.as_ref()?;
        Some(Self {
            method: method.clone(),
            throttle: throttle.cloned(),
            begun: 0,
            owed: 0,
            due: Some(now),
            asked: Vec::new(),
            in_flight: Vec::new(),
        })
    }

    fn policy(&self) -> Option<&HedgingPolicy> {
        self.method.hedging.as_ref()
    }

    /// When the next attempt begins; `None` when there will be none. Too many failures on the channel end it for all
    /// attempts but the first.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.owed > 0 {
            return Some(now);
        }
        if self.begun > 0 && self.throttle.as_ref().is_some_and(|throttle| !throttle.allows()) {
            self.due = None;
        }
        self.due
    }

    /// An attempt was sent to `instance`.
    pub(crate) fn began(&mut self, instance: &Arc<Load>, now: Instant) {
        self.asked.push(instance.clone());
        self.in_flight.push(instance.clone());
        if self.owed > 0 {
            self.owed -= 1;
            return;
        }
        self.begun += 1;
        let policy = self.policy().filter(|policy| self.begun < policy.max_attempts);
        self.due = self.due.and_then(|_| now.checked_add(policy?.delay));
    }

    /// The attempt at `instance` is over.
    pub(crate) fn ended(&mut self, instance: &Arc<Load>) {
        if let Some(at) = self.in_flight.iter().position(|load| Arc::ptr_eq(load, instance)) {
            self.in_flight.swap_remove(at);
        }
    }

    /// An attempt was provably not processed: another one takes its place at once.
    pub(crate) fn not_processed(&mut self) {
        self.owed += 1;
    }

    /// An attempt failed with `code`; `trailers` are what the server said with it.
    pub(crate) fn failed(&mut self, code: Code, trailers: &HeaderMap, now: Instant) -> After {
        let fatal = !self.policy().is_some_and(|policy| policy.nonfatal.contains(&code));
        let pushback = Pushback::of(trailers);
        if fatal && pushback != Pushback::Never {
            self.count_success();
        } else if let Some(throttle) = &self.throttle {
            throttle.failed(); // `due` asks whether there may be more
        }
        if fatal {
            return After::Fatal;
        }
        self.due = self.due.and_then(|_| match pushback {
            Pushback::None => Some(now),
            Pushback::After(wait) => now.checked_add(wait),
            Pushback::Never => None,
        });
        After::GoOn
    }

    /// The call was answered.
    pub(crate) fn count_success(&self) {
        if let Some(throttle) = &self.throttle {
            throttle.succeeded();
        }
    }

    /// Tells the server how many attempts there were before this one.
    pub(crate) fn write_header(&self, headers: &mut HeaderMap) {
        pushback::write_previous_attempts(headers, self.begun.saturating_sub(self.owed));
    }

    /// Whether the next attempt must not go to this instance.
    pub(crate) fn avoids(&self, instance: &Arc<Load>) -> bool {
        self.asked.iter().any(|load| Arc::ptr_eq(load, instance))
    }

    /// An endpoint that the call was not sent to yet. Where it was sent to all, one that has failed it; where none has,
    /// any ("should be sent to distinct backends when possible", gRFC A6).
    pub(crate) fn pick(&mut self, snapshot: &Snapshot, call: &policy::Call<'_>) -> Option<usize> {
        let all_avoided = |this: &Self| snapshot.ready.iter().all(|ready| this.avoids(ready.load()));
        if !self.asked.is_empty() && all_avoided(self) {
            self.asked.clone_from(&self.in_flight);
            if all_avoided(self) {
                self.asked.clear();
            }
        }
        let mut picked = snapshot.picker.pick(call)?;
        for _ in 1..PICKS {
            if snapshot.ready.get(picked).is_some_and(|ready| !self.avoids(ready.load())) {
                break;
            }
            picked = snapshot.picker.pick(call)?;
        }
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::pushback::{PREVIOUS_ATTEMPTS, PUSHBACK};
    use super::*;
    use crate::service_config::RetryThrottling;

    const DELAY: Duration = Duration::from_millis(100);

    fn hedges(throttle: Option<&Arc<Throttle>>, now: Instant) -> Hedges {
        let policy = HedgingPolicy { max_attempts: 3, delay: DELAY, nonfatal: vec![Code::Unavailable] };
        Hedges::of(&Arc::new(MethodConfig { hedging: Some(policy), ..Default::default() }), throttle, now)
            .expect("some")
    }

    fn pushback(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(PUSHBACK, HeaderValue::from_static(value))])
    }

    fn none() -> HeaderMap {
        HeaderMap::new()
    }

    #[test]
    fn attempts_begin_a_delay_apart_until_they_are_used_up() {
        let now = Instant::now();
        let mut hedges = hedges(None, now);
        let mut headers = HeaderMap::new();
        assert_eq!(hedges.due(now), Some(now), "the first at once");
        hedges.write_header(&mut headers);
        assert!(headers.is_empty());
        hedges.began(&Arc::default(), now);
        assert_eq!(hedges.due(now), Some(now + DELAY));
        hedges.write_header(&mut headers);
        assert_eq!(headers[PREVIOUS_ATTEMPTS], "1");
        hedges.began(&Arc::default(), now + DELAY);
        assert_eq!(hedges.due(now), Some(now + 2 * DELAY));
        hedges.began(&Arc::default(), now + 2 * DELAY);
        assert_eq!(hedges.due(now), None);
    }

    #[test]
    fn a_nonfatal_failure_brings_the_next_attempt_forward_and_a_fatal_one_ends_the_call() {
        let now = Instant::now();
        let mut hedges = hedges(None, now);
        hedges.began(&Arc::default(), now);
        assert_eq!(hedges.failed(Code::Unavailable, &none(), now), After::GoOn);
        assert_eq!(hedges.due(now), Some(now));
        assert_eq!(hedges.failed(Code::Internal, &none(), now), After::Fatal);
    }

    #[test]
    fn the_server_says_when_or_never() {
        let now = Instant::now();
        let mut hedges = hedges(None, now);
        hedges.began(&Arc::default(), now);
        hedges.failed(Code::Unavailable, &pushback("1234"), now);
        assert_eq!(hedges.due(now), Some(now + Duration::from_millis(1234)));
        assert_eq!(hedges.failed(Code::Unavailable, &pushback("-1"), now), After::GoOn);
        assert_eq!(hedges.due(now), None);
        hedges.failed(Code::Unavailable, &none(), now);
        assert_eq!(hedges.due(now), None, "never is never");
    }

    #[test]
    fn hedges_stop_at_the_throttle_but_the_first_attempt_is_sent() {
        let now = Instant::now();
        let throttle = Arc::new(Throttle::new(RetryThrottling { max_tokens: 4, token_ratio_milli: 100 }));
        let mut hedges = hedges(Some(&throttle), now);
        (0..2).for_each(|_| _ = throttle.failed());
        assert_eq!(hedges.due(now), Some(now), "the first");
        hedges.began(&Arc::default(), now);
        assert_eq!(hedges.due(now), None, "half of the tokens are gone");
    }

    #[test]
    fn an_attempt_that_was_not_processed_is_replaced_even_after_the_last() {
        let now = Instant::now();
        let mut hedges = hedges(None, now);
        (0..3).for_each(|_| hedges.began(&Arc::default(), now));
        hedges.not_processed();
        assert_eq!(hedges.due(now), Some(now));
        let mut headers = none();
        hedges.write_header(&mut headers);
        assert_eq!(headers[PREVIOUS_ATTEMPTS], "2");
        hedges.began(&Arc::default(), now);
        assert_eq!(hedges.due(now), None);
    }
}
