//! The pure core of the read side: lists, watches, resumes and lists again, so that nothing is lost or doubled.
//!
//! In come [`Event`]s (what etcd answered, what subscribers want, that time has passed) and `now`; out go
//! [`Action`]s: what to ask etcd, and what to publish. `task` carries them between this value and the world.
//!
//! A range is first listed at a revision R (`lists`), then watched from R + 1 on the one stream of the process
//! (`streams`). Each watch keeps its own applied revision, with which it resumes when the stream ends. On every new
//! watch an anchor is read, and on every new stream the revision of the store, by which an etcd that was wiped or
//! restored is told from one that was only away (`history`).

mod checks;
mod history;
mod lists;
mod message;
mod streams;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use self::history::History;
use self::watch::{Phase, Watch};
use super::event::Freshness;
use super::range::{Key, Range};
use super::set::{Delta, Seen};
use super::tally::Tally;
use crate::backoff::Backoff;
use crate::etcd::Liveness;
use crate::keys::Prefix;
use crate::name::Revision;

pub(super) use self::history::Header;
pub(super) use self::message::{Action, Canceled, Create, Event, KeyEvent, Page, Refusal, Response};

/// The one stream that all watches share.
#[derive(Debug)]
enum Stream {
    /// Nobody needs one.
    Idle,
    /// The last one ended; another is opened then.
    Waiting {
        until: Instant,
    },
    Opening {
        number: u64,
    },
    Open {
        number: u64,
        /// For messages.
        member: Arc<str>,
        liveness: Liveness,
    },
}

/// Whom a timer wakes.
#[derive(Debug, Clone)]
enum Due {
    /// Something is due in this range.
    Range(Range),
    /// The pause before a new stream is over.
    Reopen,
    /// The watch of this id may have been left unanswered.
    Answer(i64),
    /// The stream of this number may have gone silent.
    Look(u64),
    /// The read of the store's revision with this ticket is repeated.
    Verify(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    prefix: Prefix,
    watches: HashMap<Range, Watch>,
    /// The range of each watch id on the present stream.
    ids: HashMap<i64, Range>,
    stream: Stream,
    history: History,
    /// The outstanding read of the store's revision, with what was known when it was sent.
    verifying: Option<(u64, History)>,
    /// Watch ids, tickets and stream numbers are drawn from here: never 0, never reused.
    last: u64,
    backoff: Backoff,
    /// A stream that never answered is not replaced twice for silence alone.
    replaced_for_silence: bool,
    away: bool,
    random: fastrand::Rng,
    timers: BTreeMap<(Instant, u64), Due>,
    actions: Vec<Action>,
}

impl Session {
    /// A session without ranges. `seed` is for its jitter.
    pub(super) fn new(prefix: Prefix, seed: u64) -> Self {
        Self {
            prefix,
            watches: HashMap::new(),
            ids: HashMap::new(),
            stream: Stream::Idle,
            history: History::default(),
            verifying: None,
            last: 0,
            backoff: Backoff::stream(),
            replaced_for_silence: false,
            away: false,
            random: fastrand::Rng::with_seed(seed),
            timers: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// Takes an event; what is to be done about it, in order.
    pub(super) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Subscribe(range) => self.subscribe(&range, now),
            Event::Unsubscribe(range) => self.unsubscribe(&range),
            Event::Listed { range, ticket, page } => self.listed(range, ticket, page, now),
            Event::Opened { stream, member } => self.opened(stream, member, now),
            Event::Response { stream, response } => self.response(stream, response, now),
            Event::Ended { stream, refusal } => self.ended(stream, &refusal, now),
            Event::Verified { ticket, header } => self.verified(ticket, header.ok(), now),
            Event::Anchored { range, ticket, found } => self.anchored(range, ticket, found, now),
            Event::Release { range, key } => self.release(range, &key),
            Event::Timer => self.timer(now),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timer`] is due.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The state of a range that has been listed: its revision and all that a new subscriber sees.
    pub(super) fn known(&self, range: &Range) -> Option<(Revision, impl Iterator<Item = (&Key, Seen)>)> {
        let watch = self.watches.get(range)?;
        Some((watch.applied?, watch.set.seen()))
    }

    /// How many instances a range has, by their state.
    pub(super) fn tally(&self, range: &Range) -> Tally {
        self.watches.get(range).map(|watch| watch.set.tally()).unwrap_or_default()
    }

    /// How fresh a range is; `None` before the first answer.
    pub(super) fn freshness(&self, range: &Range) -> Option<Freshness> {
        self.watches.get(range)?.freshness.clone()
    }

    fn subscribe(&mut self, range: &Range, now: Instant) {
        if !self.watches.contains_key(range) {
            self.watches.insert(range.clone(), Watch::new(range, now));
            self.list(range);
        }
    }

    fn unsubscribe(&mut self, range: &Range) {
        let Some(watch) = self.watches.remove(range) else { return };
        if let Some(id) = watch.id() {
            self.ids.remove(&id);
            self.actions.push(Action::Cancel { id });
        }
        if self.watches.is_empty() {
            self.close();
            self.stream = Stream::Idle;
        }
    }

    fn release(&mut self, range: Range, key: &Key) {
        let Some(watch) = self.watches.get_mut(&range) else { return };
        let deltas = watch.set.release(key).into_iter().collect();
        self.publish(range, deltas);
    }

    fn timer(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry().filter(|e| e.key().0 <= now) {
            match entry.remove() {
                Due::Range(range) => self.range_timer(&range, now),
                Due::Reopen => self.reopen(now),
                Due::Answer(id) => self.unanswered(id, now),
                Due::Look(number) => self.look(number, now),
                Due::Verify(ticket) => self.verify_again(ticket),
            }
        }
    }

    /// Timers are not taken back: each looks at what is due when it rings.
    fn range_timer(&mut self, range: &Range, now: Instant) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        let deltas = watch.set.expire(now);
        let retry = watch.check.as_ref().is_some_and(|c| c.retry.is_some_and(|at| at <= now));
        let next = match watch.phase {
            Phase::Waiting { until, list } if until <= now => Some(list),
            _ => None,
        };
        self.publish(range.clone(), deltas);
        if retry {
            self.read_anchor(range);
        }
        match next {
            Some(true) => self.list(range),
            Some(false) => self.want_watch(range, now),
            None => {}
        }
    }

    fn publish(&mut self, range: Range, deltas: Vec<Delta>) {
        if let Some(revision) =
            self.watches.get(&range).and_then(|w| w.applied).filter(|_| !deltas.is_empty())
        {
            self.actions.push(Action::Publish { range, revision, deltas });
        }
    }

    /// `true`: it was not known to be so.
    fn tell(&mut self, range: &Range, freshness: Freshness) -> bool {
        let Some(watch) = self.watches.get_mut(range) else { return false };
        // Of an outage the first reason is told, and its age counts from there.
        let denied = |f: &Freshness| match f {
            Freshness::Live => None,
            Freshness::Stale { denied, .. } => Some(*denied),
        };
        let known = watch.freshness.as_ref().is_some_and(|told| denied(told) == denied(&freshness));
        if !known {
            watch.freshness = Some(freshness.clone());
            self.actions.push(Action::Tell { range: range.clone(), freshness });
        }
        !known
    }

    /// What is held is let go in time.
    fn wake_for_held(&mut self, range: &Range, deltas: &[Delta]) {
        let until = deltas.iter().filter_map(|d| d.now.as_ref()?.held_until).max();
        if let Some(until) = until {
            self.wake(until, Due::Range(range.clone()));
        }
    }

    fn wake(&mut self, at: Instant, due: Due) {
        self.last += 1;
        self.timers.insert((at, self.last), due);
    }

    fn draw(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
