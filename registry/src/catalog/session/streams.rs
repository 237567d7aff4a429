//! The stream: opened with the first watch, shared by all, resumed after every end, doubted on every start.

use std::sync::Arc;

use tokio::time::Instant;

use super::message::{Action, Create, KeyEvent, Refusal, Response};
use super::watch::{Check, Phase, stored};
use super::{Due, Session, Stream};
use crate::catalog::event::Freshness;
use crate::catalog::range::Range;
use crate::etcd::{Failure, Liveness, UNANSWERED, Verdict};

impl Session {
    /// A range is known: its watch is asked for as soon as there is a stream.
    pub(super) fn want_watch(&mut self, range: &Range, now: Instant) {
        if let Some(watch) = self.watches.get_mut(range) {
            watch.phase = Phase::Ready;
        }
        match self.stream {
            Stream::Idle => self.open(range, now),
            Stream::Open { .. } => {
                if let Some(create) = self.create(range, now) {
                    self.actions.push(Action::Create(create));
                }
            }
            // Both end in a look at all that are ready.
            Stream::Waiting { .. } | Stream::Opening { .. } => {}
        }
    }

    fn open(&mut self, range: &Range, now: Instant) {
        let Some(watch) = self.create(range, now) else { return };
        let number = self.draw();
        self.stream = Stream::Opening { number };
        self.actions.push(Action::Open { stream: number, watch });
    }

    fn create(&mut self, range: &Range, now: Instant) -> Option<Create> {
        let id = i64::try_from(self.draw()).unwrap_or(i64::MAX);
        let watch = self.watches.get_mut(range)?;
        let start = watch.applied?.next();
        watch.phase = Phase::Opening { id };
        self.ids.insert(id, range.clone());
        self.wake(now + UNANSWERED, Due::Answer(id));
        Some(Create { range: range.clone(), id, start })
    }

    fn ready(&self) -> Vec<Range> {
        self.watches.iter().filter(|(_, w)| matches!(w.phase, Phase::Ready)).map(|(r, _)| r.clone()).collect()
    }

    pub(super) fn opened(&mut self, number: u64, member: Arc<str>, now: Instant) {
        if !matches!(self.stream, Stream::Opening { number: n } if n == number) {
            return;
        }
        let liveness = Liveness::new(now);
        self.wake(liveness.first_look(), Due::Look(number));
        self.stream = Stream::Open { number, member, liveness };
        self.verify();
        for range in self.ready() {
            self.want_watch(&range, now);
        }
    }

    pub(super) fn response(&mut self, number: u64, response: Response, now: Instant) {
        let Stream::Open { number: n, liveness, .. } = &mut self.stream else { return };
        if *n != number {
            return;
        }
        if liveness.heard(now) {
            self.replaced_for_silence = false;
        }
        let Some((id, range)) = self.concerned(&response) else {
            // Nobody's any more, unsubscribed while it was being created; a progress notice is nobody's either.
            if response.created && response.canceled.is_none() {
                self.actions.push(Action::Cancel { id: response.id });
            }
            return;
        };
        // A refusal is created and canceled at once, so that is asked first.
        if let Some(canceled) = response.canceled {
            self.ids.remove(&id);
            if canceled.compacted {
                // etcd keeps it in its books until it is cancelled, as etcd's own client does.
                self.actions.push(Action::Cancel { id });
            }
            self.canceled(&range, canceled.compacted, &canceled.refusal, now);
        } else {
            if response.created {
                self.created(&range, id);
            }
            self.events(range, response.events, response.fragment, now);
        }
    }

    /// Whose response this is. From 3.5 on etcd refuses a watch under the id -1 (3.5.1 to 3.5.5: 0) in place of the one
    /// that we chose; watches are answered in the order in which they were asked for, so the oldest that waits is meant.
    fn concerned(&self, response: &Response) -> Option<(i64, Range)> {
        if let Some(range) = self.ids.get(&response.id) {
            return Some((response.id, range.clone()));
        }
        if response.id > 0 || !response.created || response.canceled.is_none() {
            return None;
        }
        let waits =
            |range: &Range| self.watches.get(range).is_some_and(|w| matches!(w.phase, Phase::Opening { .. }));
        let (id, range) = self.ids.iter().filter(|(_, range)| waits(range)).min_by_key(|(id, _)| **id)?;
        Some((*id, range.clone()))
    }

    /// The watch runs: from here on nothing is missed, if the store is the one that was listed.
    fn created(&mut self, range: &Range, id: i64) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        let Some(at) = watch.applied else { return };
        watch.phase = Phase::Live { id };
        watch.check = Some(Check { ticket: None, retry: None, at, anchor: watch.set.anchor() });
        self.tell(range, Freshness::Live);
        self.read_anchor(range);
    }

    fn canceled(&mut self, range: &Range, compacted: bool, refusal: &Refusal, now: Instant) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        watch.phase = Phase::Ready;
        watch.check = None;
        watch.fragments.clear();
        // Which keys a user may not read is what an operator has to know.
        let reason = format!("watching {}*: {}", range.prefix(&self.prefix), refusal.reason).into();
        let refusal = Refusal { failure: refusal.failure, reason };
        if !compacted && self.tell_stale(range, &refusal, now) {
            self.actions.push(Action::Log(Some(refusal.reason)));
        }
        self.retry_later(range, compacted, now);
    }

    fn events(&mut self, range: Range, events: Vec<KeyEvent>, fragment: bool, now: Instant) {
        let Some(watch) = self.watches.get_mut(&range) else { return };
        let Some(events) = watch.take(events, fragment) else { return };
        let prefix = &self.prefix;
        let events = events.into_iter().map(|event| match event {
            KeyEvent::Put(kv) => {
                let (key, stored) = stored(&range, prefix, &kv);
                (key, Some(stored))
            }
            KeyEvent::Delete { key, .. } => (key, None),
        });
        let deltas = watch.set.apply(events, now);
        self.history.reached(watch.applied.unwrap_or_default());
        self.wake_for_held(&range, &deltas);
        self.publish(range, deltas);
    }

    pub(super) fn ended(&mut self, number: u64, refusal: &Refusal, now: Instant) {
        match self.stream {
            Stream::Opening { number: n } | Stream::Open { number: n, .. } if n == number => {}
            _ => return,
        }
        self.close();
        let until = now + self.backoff.next(&mut self.random);
        self.stream = Stream::Waiting { until };
        self.wake(until, Due::Reopen);
        self.away(refusal);
        for range in self.ready() {
            self.tell_stale(&range, refusal, now);
            // What was too large to decode would be so again: it is listed, in pages that shrink.
            if refusal.failure == Failure::TooLarge {
                self.list(&range);
            }
        }
    }

    /// Forgets the stream and everything that was on it.
    pub(super) fn close(&mut self) {
        if matches!(self.stream, Stream::Opening { .. } | Stream::Open { .. }) {
            self.actions.push(Action::Close);
        }
        self.stream = Stream::Idle;
        self.ids.clear();
        self.verifying = None;
        for watch in self.watches.values_mut().filter(|w| w.id().is_some()) {
            watch.phase = Phase::Ready;
            watch.check = None;
            watch.fragments.clear();
        }
    }

    pub(super) fn reopen(&mut self, now: Instant) {
        if matches!(self.stream, Stream::Waiting { until } if until <= now) {
            self.stream = Stream::Idle;
            // Any will do; another each time, should one of them be what ends the stream.
            let ready = self.ready();
            if let Some(range) = self.random.choice(&ready) {
                self.open(range, now);
            }
        }
    }

    pub(super) fn look(&mut self, number: u64, now: Instant) {
        let Stream::Open { number: n, liveness, .. } = &mut self.stream else { return };
        if *n != number {
            return;
        }
        match liveness.look(now) {
            Verdict::Wait(at) => self.wake(at, Due::Look(number)),
            Verdict::Ask(at) => {
                self.actions.push(Action::AskProgress);
                self.wake(at, Due::Look(number));
            }
            Verdict::Silent { ever } => self.silent(number, ever, now),
        }
    }

    /// A watch that was asked for and never answered would be believed to run.
    pub(super) fn unanswered(&mut self, id: i64, now: Instant) {
        let waits = self.ids.get(&id).and_then(|range| self.watches.get(range));
        let waits = waits.is_some_and(|watch| matches!(watch.phase, Phase::Opening { .. }));
        if let (true, Stream::Open { number, member, .. }) = (waits, &self.stream) {
            let (number, reason) = (*number, format!("etcd at {member} left a watch unanswered").into());
            self.ended(number, &Refusal { failure: Failure::TimedOut, reason }, now);
        }
    }

    fn silent(&mut self, number: u64, ever: bool, now: Instant) {
        let Stream::Open { member, liveness, .. } = &self.stream else { return };
        if ever || !self.replaced_for_silence {
            self.replaced_for_silence |= !ever;
            let reason = format!(
                "the watch stream of etcd at {member} is silent and leaves a progress request unanswered"
            );
            let reason = reason.into();
            self.ended(number, &Refusal { failure: Failure::Unreachable, reason }, now);
        } else {
            let at = liveness.first_look();
            self.wake(at, Due::Look(number));
        }
    }

    /// One line in the log for an outage, however long it is.
    pub(super) fn away(&mut self, refusal: &Refusal) {
        if !std::mem::replace(&mut self.away, true) {
            self.actions.push(Action::Log(Some(refusal.reason.clone())));
        }
    }
}
