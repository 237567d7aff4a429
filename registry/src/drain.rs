//! How an instance leaves service and comes back, as a pure table.
//!
//! In come an operator's intent, a stop, the process's own readiness, the in-flight count, "written" and the time; out
//! come what the record should say ([`Drain::want`], [`Drain::reason`]) and the phase that the server obeys
//! ([`Drain::phase`]). The registration (`registrar/entry.rs`) writes the one, `serve` follows the other.
//!
//! ```text
//! state      wants in etcd                phase     left by
//! Serving    serving, first root          Serving*  a cause -> Marking (not yet registered: intent or stop -> Drained,
//!                                                   unready -> Emptying)
//! Marking    draining, first root         Serving   written -> Moving
//! Moving     draining, draining root      Serving   written -> Noticing
//! Noticing   draining, draining root      Draining  notice is over -> Emptying
//! Emptying   draining, draining root      Draining  no call in flight, and an intent or a stop -> Drained
//! Drained    drained, draining root       Drained   written, then: remove -> Removed
//! Removed    nothing                      Removed
//! Returning  serving, first root          Serving   written -> Serving
//! ```
//! * Starting until the intents have been read once: nobody knows before whether it may serve.
//!
//! A cause is an intent, a stop, or not being ready. The end of the last one leads from Marking to Serving and from all
//! later states to Returning; a stop is for good. `drained` tells an operator that nothing follows, so an instance that
//! is only not ready stays in Emptying: it may be back with the next check. An intent that ends while the instance is not
//! ready leads from Drained and Removed to Emptying.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::intent::Then;
use crate::keys::Root;
use crate::record::State;

/// How often the in-flight count is written while draining (law 9).
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What the process itself does about its drain; observed by `Serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// etcd has not said yet whether an operator wants it out of service: health is NOT_SERVING.
    Starting,
    /// Takes new work: health is SERVING.
    Serving,
    /// Takes no new work and finishes what it has: health is NOT_SERVING.
    Draining,
    /// Has no work left and stays so.
    Drained,
    /// Has no work left and was asked to end.
    Exit,
    /// Has no work left and no record, until the intent is gone.
    Removed,
}

/// What etcd should hold for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    Record { root: Root, state: State, inflight: Option<u64> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Serving,
    Marking,
    Moving,
    Noticing { until: Instant },
    Emptying,
    Drained { written: bool },
    Removed,
    Returning,
}

/// The drain of one instance; see the module's table.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    at: At,
    /// How long clients are given to take note before in-flight zero counts.
    notice: Duration,
    /// The operator's wish, as last read; whether it was read at all.
    intent: Option<Then>,
    known: bool,
    /// The process is stopping: no way back.
    stopping: bool,
    /// Why the process can do no work, by its own judgement.
    unready: Option<Arc<str>>,
    /// The intent was found at the first registration, where `exit` counts as `stay`.
    found: bool,
    inflight: u64,
    /// Somebody counts: then "no call in flight" is believed only if it was said after the drain had begun.
    counted: bool,
    fresh: bool,
    /// What the record says of it, and since when; nothing before it was counted in this drain.
    shown: Option<u64>,
    shown_at: Option<Instant>,
}

impl Drain {
    pub(crate) fn new(notice: Duration) -> Drain {
        Drain {
            at: At::Serving,
            notice,
            intent: None,
            known: false,
            stopping: false,
            unready: None,
            found: false,
            inflight: 0,
            counted: false,
            fresh: true,
            shown: None,
            shown_at: None,
        }
    }

    /// What etcd should hold now.
    pub(crate) fn want(&self) -> Want {
        let record = |root, state, inflight| Want::Record { root, state, inflight };
        match self.at {
            At::Serving | At::Returning => record(Root::Serving, State::Serving, None),
            At::Marking => record(Root::Serving, State::Draining, self.shown),
            At::Moving | At::Noticing { .. } | At::Emptying => {
                record(Root::Draining, State::Draining, self.shown)
            }
            At::Drained { .. } => record(Root::Draining, State::Drained, Some(0)),
            At::Removed => Want::Nothing,
        }
    }

    /// Why the process itself keeps out of service, for the record.
    pub(crate) fn reason(&self) -> Option<&Arc<str>> {
        let serves = matches!(self.at, At::Serving | At::Returning);
        self.unready.as_ref().filter(|_| !serves)
    }

    /// What the server does now.
    pub(crate) fn phase(&self) -> Phase {
        match self.at {
            At::Serving | At::Returning if !self.known => Phase::Starting,
            At::Serving | At::Returning | At::Marking | At::Moving => Phase::Serving,
            At::Noticing { .. } | At::Emptying => Phase::Draining,
            At::Drained { written: true } if self.exits() => Phase::Exit,
            At::Drained { .. } => Phase::Drained,
            At::Removed => Phase::Removed,
        }
    }

    /// Whether an operator's intent keeps the record away.
    pub(crate) fn is_removed(&self) -> bool {
        self.at == At::Removed
    }

    /// The intents were read, by a transaction or after an event. `registered`: a record of ours is, or was, there.
    pub(crate) fn intent(&mut self, intent: Option<Then>, registered: bool) {
        self.intent = intent;
        self.known = true;
        match (intent, self.at) {
            (Some(then), At::Serving | At::Returning | At::Emptying) if !registered => {
                // Nothing was served under this registration yet: there is nothing to finish.
                self.found = true;
                self.at = if then == Then::Remove { At::Removed } else { At::Drained { written: false } };
            }
            (Some(_), At::Serving) => self.begin(),
            // The serving record is not put yet, or is being put: the draining one is what has to stand.
            (Some(_), At::Returning) => self.at = At::Moving,
            (Some(Then::Remove), At::Drained { written: true }) => self.at = At::Removed,
            // Weakened from remove: the record comes back as drained.
            (Some(Then::Stay | Then::Exit), At::Removed) => self.at = At::Drained { written: false },
            (None, _) if !self.stopping => self.undrain(),
            _ => {}
        }
    }

    /// The process is stopping; it drains whatever the operator says, and does not return. `registered`: a record of
    /// ours is, or was, there.
    pub(crate) fn stop(&mut self, registered: bool) {
        self.stopping = true;
        match self.at {
            // Nobody was sent here: a record that only leaves again would be one more change for every client.
            At::Serving | At::Returning if !registered => self.at = At::Drained { written: false },
            At::Serving => self.begin(),
            At::Returning => self.at = At::Moving,
            _ => {}
        }
    }

    /// The process can do its work, or cannot, for this reason. The reason with which it went out stays while it is
    /// out: one that changes with every check would be a write for every check.
    pub(crate) fn ready(&mut self, ready: Result<(), Arc<str>>, registered: bool) {
        match (ready, self.at) {
            (Ok(()), _) => {
                if self.unready.take().is_some() && !self.is_asked() {
                    self.undrain();
                }
            }
            (Err(_), _) if self.unready.is_some() => {}
            (Err(reason), at) => {
                self.unready = Some(reason);
                match at {
                    // Nobody was sent here: the record appears where clients do not look.
                    At::Serving | At::Returning if !registered => self.at = At::Emptying,
                    At::Serving => self.begin(),
                    At::Returning => self.at = At::Moving,
                    _ => {}
                }
            }
        }
    }

    /// The in-flight count changed.
    pub(crate) fn inflight(&mut self, inflight: u64) {
        self.inflight = inflight;
        self.counted = true;
        self.fresh = true;
    }

    /// What [`Drain::want`] says is in etcd.
    pub(crate) fn written(&mut self, now: Instant) {
        match self.at {
            At::Marking => self.at = At::Moving,
            At::Moving => {
                self.at = At::Noticing { until: now + self.notice };
                self.fresh = !self.counted;
            }
            At::Returning => self.at = At::Serving,
            At::Drained { .. } if self.intent == Some(Then::Remove) && !self.stopping => {
                self.at = At::Removed;
            }
            At::Drained { .. } => self.at = At::Drained { written: true },
            At::Serving | At::Noticing { .. } | At::Emptying | At::Removed => {}
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let At::Noticing { until } = self.at
            && now >= until
        {
            self.at = At::Emptying;
        }
        if self.at == At::Emptying && self.is_asked() && self.inflight == 0 && self.fresh {
            self.at = At::Drained { written: false };
        }
        if self.counts() && self.count_due().is_none_or(|due| now >= due) {
            self.shown = self.known().or(self.shown);
            self.shown_at = Some(now);
        }
    }

    /// When [`Drain::tick`] has something to do next.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let notice = match self.at {
            At::Noticing { until } => Some(until),
            _ => None,
        };
        let count = self
            .count_due()
            .filter(|_| self.counts() && self.known().is_some_and(|known| Some(known) != self.shown));
        [notice, count].into_iter().flatten().min()
    }

    fn exits(&self) -> bool {
        self.intent == Some(Then::Exit) && !self.found && !self.stopping
    }

    /// Somebody wants it out of service, whatever it says of itself.
    fn is_asked(&self) -> bool {
        self.intent.is_some() || self.stopping
    }

    fn counts(&self) -> bool {
        matches!(self.at, At::Marking | At::Moving | At::Noticing { .. } | At::Emptying)
    }

    /// When the record may be written for the count's sake; the first count is told at once.
    fn count_due(&self) -> Option<Instant> {
        self.shown.and(self.shown_at).map(|shown| shown + COUNT_EVERY)
    }

    /// The count, if it was taken in this drain: one from before would tell an operator of calls that are none.
    fn known(&self) -> Option<u64> {
        (self.counted && self.fresh).then_some(self.inflight)
    }

    fn begin(&mut self) {
        self.fresh = !self.counted;
        self.shown = None;
        self.shown_at = None;
        self.at = At::Marking;
    }

    /// Nobody wants it out of service any more: it returns if it is ready.
    fn undrain(&mut self) {
        self.found = false;
        match self.at {
            At::Drained { .. } | At::Removed if self.unready.is_some() => {
                self.shown = self.known();
                self.shown_at = None;
                self.at = At::Emptying;
            }
            _ if self.unready.is_some() => {}
            At::Marking => self.at = At::Serving,
            At::Serving | At::Returning => {}
            _ => self.at = At::Returning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: Duration = Duration::from_secs(1);

    fn word(drain: &Drain) -> &'static str {
        match drain.want() {
            Want::Nothing => "nothing",
            Want::Record { root: Root::Serving, state: State::Serving, .. } => "serving",
            Want::Record { root: Root::Serving, state: State::Draining, .. } => "marked",
            Want::Record { root: Root::Draining, state: State::Draining, .. } => "draining",
            Want::Record { root: Root::Draining, state: State::Drained, .. } => "drained",
            Want::Record { .. } => "impossible",
        }
    }

    /// A drain that has written its record once, at an instant.
    fn serving() -> (Drain, Instant) {
        let (mut drain, now) = (Drain::new(NOTICE), Instant::now());
        shows(&drain, "serving", Phase::Starting);
        drain.intent(None, false);
        drain.written(now);
        (drain, now)
    }

    fn shows(drain: &Drain, want: &str, phase: Phase) {
        assert_eq!((word(drain), drain.phase()), (want, phase), "{drain:?}");
    }

    #[test]
    fn a_drain_marks_then_moves_then_notices_then_empties() {
        let (mut drain, now) = serving();
        drain.inflight(2);
        drain.intent(Some(Then::Stay), true);
        shows(&drain, "marked", Phase::Serving);
        drain.written(now);
        shows(&drain, "draining", Phase::Serving);
        drain.written(now);
        shows(&drain, "draining", Phase::Draining);
        drain.inflight(0);
        drain.tick(now + NOTICE / 2);
        shows(&drain, "draining", Phase::Draining); // zero within the notice: what still arrives is served
        drain.inflight(1);
        drain.tick(now + NOTICE);
        shows(&drain, "draining", Phase::Draining);
        drain.inflight(0);
        drain.tick(now + NOTICE);
        shows(&drain, "drained", Phase::Drained);
    }

    #[test]
    fn a_count_from_before_the_drain_is_not_believed() {
        let (mut drain, now) = serving();
        drain.inflight(0);
        drain.intent(Some(Then::Stay), true);
        drain.written(now);
        drain.written(now);
        drain.tick(now + NOTICE);
        shows(&drain, "draining", Phase::Draining);
        drain.inflight(0);
        drain.tick(now + NOTICE);
        shows(&drain, "drained", Phase::Drained);
    }

    #[test]
    fn an_undrain_returns_from_every_state() {
        for steps in 0..6 {
            let (mut drain, now) = serving();
            drain.intent(Some(Then::Remove), true);
            for step in 0..steps {
                drain.written(now);
                drain.tick(now + NOTICE * (step + 1));
            }
            drain.intent(None, true);
            drain.written(now);
            shows(&drain, "serving", Phase::Serving);
            assert_eq!(drain.at, At::Serving, "after {steps} steps");
        }
    }

    #[test]
    fn an_intent_found_at_the_first_registration_never_serves_and_never_exits() {
        for then in [Then::Stay, Then::Exit] {
            let mut drain = Drain::new(NOTICE);
            drain.intent(Some(then), false);
            shows(&drain, "drained", Phase::Drained);
        }
        let mut drain = Drain::new(NOTICE);
        drain.intent(Some(Then::Remove), false);
        shows(&drain, "nothing", Phase::Removed);
        drain.intent(None, false);
        shows(&drain, "serving", Phase::Serving);
    }

    #[test]
    fn exit_and_remove_act_once_drained() {
        for (then, want, phase) in
            [(Then::Exit, "drained", Phase::Exit), (Then::Remove, "nothing", Phase::Removed)]
        {
            let (mut drain, now) = serving();
            drain.intent(Some(then), true);
            drain.written(now);
            drain.written(now);
            drain.tick(now + NOTICE);
            drain.written(now);
            shows(&drain, want, phase);
        }
    }

    #[test]
    fn a_stop_is_for_good() {
        let (mut drain, now) = serving();
        drain.stop(true);
        drain.intent(None, true);
        drain.written(now);
        drain.written(now);
        drain.tick(now + NOTICE);
        drain.intent(None, true);
        shows(&drain, "drained", Phase::Drained);
    }

    fn unready(drain: &mut Drain, reason: &str) {
        drain.ready(Err(reason.into()), true);
    }

    /// Everything happens that may happen by itself: it is written, the notice is over, no call is in flight.
    fn rest(drain: &mut Drain, now: Instant) {
        for step in 1..=8 {
            drain.written(now);
            drain.inflight(0);
            drain.tick(now + NOTICE * step);
        }
    }

    #[test]
    fn an_instance_that_is_not_ready_leaves_as_in_a_drain_and_is_never_drained() {
        let (mut drain, now) = serving();
        drain.inflight(1);
        unready(&mut drain, "disk full");
        shows(&drain, "marked", Phase::Serving);
        drain.written(now);
        shows(&drain, "draining", Phase::Serving);
        drain.written(now);
        shows(&drain, "draining", Phase::Draining);
        rest(&mut drain, now);
        shows(&drain, "draining", Phase::Draining);
        assert_eq!(drain.reason().map(|reason| &**reason), Some("disk full"));
        drain.ready(Ok(()), true);
        shows(&drain, "serving", Phase::Serving);
        drain.written(now);
        assert_eq!((drain.at, drain.reason()), (At::Serving, None));
    }

    #[test]
    fn the_reason_with_which_it_went_out_stays() {
        let (mut drain, _) = serving();
        unready(&mut drain, "first");
        unready(&mut drain, "second");
        assert_eq!(drain.reason().map(|reason| &**reason), Some("first"));
        drain.ready(Ok(()), true);
        unready(&mut drain, "third");
        assert_eq!(drain.reason().map(|reason| &**reason), Some("third"));
    }

    #[test]
    fn being_ready_again_returns_from_every_state() {
        for steps in 0..6 {
            let (mut drain, now) = serving();
            unready(&mut drain, "away");
            for step in 0..steps {
                drain.written(now);
                drain.tick(now + NOTICE * (step + 1));
            }
            drain.ready(Ok(()), true);
            drain.written(now);
            assert_eq!(drain.at, At::Serving, "after {steps} steps");
        }
    }

    /// What an instance rests at, for each set of causes, in whatever order they came and went.
    #[test]
    fn it_serves_only_without_any_cause_whatever_the_order() {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Event {
            Drain,
            Undrain,
            Unready,
            Ready,
            Stop,
        }
        use Event::*;
        let events = [Drain, Undrain, Unready, Ready, Stop];
        for number in 0..5_usize.pow(5) {
            for settles in [false, true] {
                let (mut drain, now) = serving();
                let (mut intent, mut able, mut stopped) = (None, true, false);
                let story: Vec<Event> = (0..5).map(|digit| events[number / 5_usize.pow(digit) % 5]).collect();
                for event in &story {
                    match event {
                        Drain | Undrain => {
                            intent = (*event == Drain).then_some(Then::Stay);
                            drain.intent(intent, true);
                        }
                        Unready | Ready => {
                            able = *event == Ready;
                            drain.ready(if able { Ok(()) } else { Err("away".into()) }, true);
                        }
                        Stop => {
                            stopped = true;
                            drain.stop(true);
                        }
                    }
                    if settles {
                        rest(&mut drain, now);
                    }
                }
                rest(&mut drain, now);
                let expected = match (intent.is_some() || stopped, able) {
                    (true, _) => ("drained", Phase::Drained),
                    (false, false) => ("draining", Phase::Draining),
                    (false, true) => ("serving", Phase::Serving),
                };
                assert_eq!((word(&drain), drain.phase()), expected, "{story:?}: {drain:?}");
                assert_eq!(drain.reason().is_some(), !able, "{story:?}: {drain:?}");
            }
        }
    }

    #[test]
    fn an_operators_drain_outlasts_a_passing_check_and_a_failing_check_outlasts_an_undrain() {
        let (mut drain, now) = serving();
        unready(&mut drain, "away");
        drain.intent(Some(Then::Remove), true);
        rest(&mut drain, now);
        shows(&drain, "nothing", Phase::Removed);
        drain.ready(Ok(()), true);
        shows(&drain, "nothing", Phase::Removed);
        unready(&mut drain, "away again");
        drain.intent(None, true);
        shows(&drain, "draining", Phase::Draining);
        drain.ready(Ok(()), true);
        shows(&drain, "serving", Phase::Serving);
    }

    #[test]
    fn who_is_not_ready_when_it_first_registers_is_never_seen_by_clients() {
        let mut drain = Drain::new(NOTICE);
        drain.ready(Err("warming up".into()), false);
        shows(&drain, "draining", Phase::Draining);
        drain.intent(Some(Then::Exit), false);
        drain.written(Instant::now());
        shows(&drain, "drained", Phase::Drained); // found at the first registration: `exit` counts as `stay`
        drain.intent(None, false);
        shows(&drain, "draining", Phase::Draining);
        drain.ready(Ok(()), false);
        shows(&drain, "serving", Phase::Serving);
    }

    #[test]
    fn a_count_is_shown_once_it_was_taken_in_this_drain() {
        let (mut drain, now) = serving();
        let shown = |drain: &Drain| match drain.want() {
            Want::Record { inflight, .. } => inflight,
            Want::Nothing => None,
        };
        drain.inflight(0);
        drain.intent(Some(Then::Stay), true);
        drain.tick(now);
        assert_eq!(shown(&drain), None, "what was counted before says nothing");
        drain.inflight(5);
        drain.tick(now + Duration::from_millis(1));
        assert_eq!(shown(&drain), Some(5), "the first count is told at once");
        drain.written(now + Duration::from_millis(2));
        drain.written(now + Duration::from_millis(3));
        drain.tick(now + Duration::from_secs(2));
        assert_eq!(shown(&drain), Some(5), "the last count stands until there is another");
    }

    #[test]
    fn the_count_is_written_at_most_once_a_second_and_only_while_draining() {
        let (mut drain, now) = serving();
        let shown = |drain: &Drain| match drain.want() {
            Want::Record { inflight, .. } => inflight,
            Want::Nothing => None,
        };
        drain.inflight(9);
        drain.tick(now);
        assert_eq!(shown(&drain), None, "no writes in steady state");
        drain.intent(Some(Then::Stay), true);
        drain.tick(now);
        for (ms, inflight, expected) in [(0, 9, 9), (10, 8, 9), (999, 7, 9), (1000, 6, 6), (1500, 5, 6)] {
            drain.inflight(inflight);
            drain.tick(now + Duration::from_millis(ms));
            assert_eq!(shown(&drain), Some(expected), "after {ms} ms");
        }
        assert_eq!(drain.wakeup(), Some(now + Duration::from_secs(2)));
    }
}
