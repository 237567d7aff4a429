//! One registration, as a pure state machine: what etcd holds is brought to what is wanted, one step at a time.
//!
//! There is one way to be right after anything that may have happened (a foreign put, a delete, a lost lease, an
//! intent, an answer that never came): know what the five keys hold, decide, and commit a transaction that fails if
//! the knowledge was stale, which reads the truth back. So every event only marks the knowledge as stale, or changes
//! what is wanted, and [`Entry::step`] finds the next thing to do. At most one step is under way.
//!
//! ```text
//! Active ──deregister──> Leaving ──nothing of ours is left──> Ghost ──one TTL──> Over
//!   └──a newer owner──> Over (Superseded)
//! ```
//! A ghost deletes what a put of ours that was already on the wire may still bring (law 5).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::instance::Instance;
use super::lease::Lease;
use super::ownership::{Change, Held, Keys, Owner, Seen, Verdict, applied, goodbye, judge, landed, settle};
use super::status::RegistrationStatus;
use crate::backoff::Backoff;
use crate::drain::{Drain, Phase, Want};
use crate::name::{Incarnation, LeaseId, Revision};
use crate::record::{BadRecord, Record, State, readable};

/// The least time between two writes that nobody is waiting for: updates are coalesced, and a foreign writer that
/// overwrites our record again and again is answered ten times a second, not as fast as etcd allows.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Which process we are; the same for all its registrations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    pub(super) started_at: SystemTime,
}

impl Process {
    fn started_ms(self) -> u64 {
        let since = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The next thing to do for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Commit(Change),
}

/// What became of a commit.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Applied at this revision.
    Done(Revision),
    /// The compares failed; this is what is true.
    Conflict(Box<Seen>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Active,
    /// Deletes its record; `until` the lease has certainly run out, should etcd not answer.
    Leaving {
        until: Instant,
    },
    Ghost {
        until: Instant,
    },
    /// Nothing more to do; whether a newer owner was the reason.
    Over {
        superseded: bool,
    },
}

#[derive(Clone, Debug)]
enum Doing {
    Nothing,
    Read,
    Commit(Change),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) keys: Keys,
    pub(super) instance: Instance,
    pub(super) drain: Drain,
    pub(super) stage: Stage,
    /// Whether the server's health says SERVING; `None` where there is no such server.
    pub(super) shown: Option<bool>,
    process: Process,
    owner: Owner,
    /// What the five keys hold as far as we know.
    known: Seen,
    /// The knowledge is doubtful: read before deciding.
    stale: bool,
    /// Events were seen up to this revision since the last read was sent.
    touched: Option<Revision>,
    doing: Doing,
    /// A put of ours was sent, and may land as long as its lease lives.
    sent: bool,
    /// A commit of ours was applied.
    registered: bool,
    /// Where the watch on our keys started.
    watching: Option<Revision>,
    not_before: Option<Instant>,
    last_write: Option<Instant>,
    backoff: Backoff,
    doubts: Backoff,
    reason: Arc<str>,
}

impl Entry {
    pub(super) fn new(keys: Keys, instance: Instance, process: Process, notice: Duration) -> Entry {
        Entry {
            keys,
            instance,
            drain: Drain::new(notice),
            stage: Stage::Active,
            shown: None,
            owner: Owner { incarnation: process.incarnation, epoch: None },
            process,
            known: Seen::default(),
            // Read before the first write: what is taken over has to be known when that write's answer is lost.
            stale: true,
            touched: None,
            doing: Doing::Nothing,
            sent: false,
            registered: false,
            watching: None,
            not_before: None,
            last_write: None,
            backoff: Backoff::registration(),
            doubts: Backoff::stream(),
            reason: "waiting for etcd".into(),
        }
    }

    /// The next thing to do, noted as being done.
    pub(super) fn step(&mut self, lease: &Lease, now: Instant) -> Option<Step> {
        self.drain.tick(now);
        if !matches!(self.doing, Doing::Nothing) || self.not_before.is_some_and(|instant| now < instant) {
            return None;
        }
        self.not_before = None;
        if matches!(self.stage, Stage::Over { .. }) {
            return None;
        }
        if self.stale {
            self.doing = Doing::Read;
            // Events from here on may be newer than the answer.
            self.touched = None;
            return Some(Step::Read);
        }
        let change = match self.stage {
            Stage::Active => self.register(lease, now)?,
            _ => match self.farewell(lease.leftover()) {
                Some(change) => change,
                None => {
                    if let Stage::Leaving { .. } = self.stage {
                        self.stage = Stage::Ghost { until: now + lease.ttl() };
                    }
                    return None;
                }
            },
        };
        self.sent |= !change.puts.is_empty();
        self.doing = Doing::Commit(change.clone());
        self.last_write = Some(now);
        Some(Step::Commit(change))
    }

    /// The transaction that an active registration needs next, if any.
    fn register(&mut self, lease: &Lease, now: Instant) -> Option<Change> {
        // Each round but the last is one that etcd holds already; the drain's table has no circle.
        loop {
            let want = self.drain.want();
            let change = match want {
                Want::Nothing => self.farewell(lease.id()),
                // Law 6: health first. The phase has told the server, which answers.
                Want::Record { state: State::Serving, .. } if self.shown == Some(false) => return None,
                Want::Record { root, state, inflight } => {
                    let on = lease.id()?;
                    let epoch = match judge(self.owner, self.process.started_ms(), &self.known) {
                        Verdict::Owner(epoch) => epoch,
                        Verdict::Superseded { by } => {
                            self.superseded(by);
                            return None;
                        }
                    };
                    let mut record = self.instance.record();
                    record.state = state;
                    record.inflight = inflight;
                    record.incarnation = Some(self.process.incarnation);
                    record.epoch = Some(epoch);
                    record.started_at = Some(self.process.started_at);
                    record.ttl_s = u32::try_from(lease.ttl().as_secs()).ok();
                    record.reason = self.drain.reason().cloned();
                    let value = match self.overridden(record) {
                        Ok(value) => value,
                        Err(bad) => {
                            self.reason = format!("no client could read the record: {bad}").into();
                            return None;
                        }
                    };
                    let change = settle(&self.keys, &self.known, root, &value, on);
                    if change.is_some() {
                        self.owner.epoch = Some(epoch);
                    }
                    change
                }
            };
            if change.is_some() {
                return change;
            }
            self.drain.written(now);
            self.drain.tick(now);
            if self.drain.want() == want {
                return None;
            }
        }
    }

    /// The record's bytes as the operator wants them. An override with which no client could read the record is none: it must
    /// not keep an instance away. Nor must the reason for which it is out keep it in.
    fn overridden(&self, mut record: Record) -> Result<Vec<u8>, BadRecord> {
        if let Some(overridden) = &self.known.set {
            let mut changed = record.clone();
            overridden.set.apply(&mut changed);
            if let Ok(value) = readable(&changed) {
                return Ok(value);
            }
        }
        readable(&record).or_else(|bad| match record.reason.take() {
            Some(_) => readable(&record),
            None => Err(bad),
        })
    }

    fn farewell(&self, lease: Option<LeaseId>) -> Option<Change> {
        goodbye(&self.keys, &self.known, self.process.incarnation, lease)
    }

    fn superseded(&mut self, by: Option<Incarnation>) {
        let by = by.map_or_else(|| "another owner".to_owned(), |by| format!("incarnation {by}"));
        self.reason = format!("{by} has taken over the id; give every process an id of its own").into();
        self.stage = Stage::Over { superseded: true };
    }

    /// Takes the id from an older registration of the same process: whatever that one has put, or has on the wire, is now
    /// this one's to delete.
    pub(super) fn inherit(&mut self, older: &Entry) {
        self.sent = older.sent;
    }

    /// Another registration of the same process took the id.
    pub(super) fn replaced(&mut self) {
        self.reason = "registered again by this process".into();
        self.stage = Stage::Over { superseded: true };
        self.doing = Doing::Nothing;
    }

    /// A read was answered. Returns the revision at which a watch has to begin, if one has to.
    pub(super) fn read(&mut self, seen: Seen, now: Instant) -> Option<Revision> {
        self.doing = Doing::Nothing;
        self.learn(seen, now)
    }

    /// Whether the commit that is under way was applied, as this answer to it tells.
    pub(super) fn is_applied(&self, outcome: &Outcome) -> bool {
        match (outcome, &self.doing) {
            (Outcome::Done(_), _) => true,
            (Outcome::Conflict(seen), Doing::Commit(change)) => landed(&self.keys, change, seen),
            (Outcome::Conflict(_), _) => false,
        }
    }

    /// Whether the commit that is under way puts a record where another's stood: an earlier process's, or a stranger's.
    pub(super) fn takes_over(&self) -> bool {
        let puts = matches!(&self.doing, Doing::Commit(change) if !change.puts.is_empty());
        let mut held = self.known.serving.iter().chain(&self.known.draining);
        puts && held.any(|held| held.incarnation != Some(self.process.incarnation))
    }

    /// A commit was answered. Returns as [`Entry::read`].
    pub(super) fn committed(&mut self, outcome: Outcome, now: Instant) -> Option<Revision> {
        let is_applied = self.is_applied(&outcome);
        let Doing::Commit(change) = std::mem::replace(&mut self.doing, Doing::Nothing) else { return None };
        if is_applied {
            self.registered |= !change.puts.is_empty();
            self.backoff.reset();
            self.reason = "".into();
        } else if !self.registered {
            // The first registration reads, and takes over, anew.
            self.owner.epoch = None;
        }
        let seen = match outcome {
            Outcome::Done(revision) => applied(&self.keys, &self.known, &change, revision, self.owner),
            Outcome::Conflict(seen) => *seen,
        };
        self.learn(seen, now)
    }

    fn learn(&mut self, seen: Seen, now: Instant) -> Option<Revision> {
        let revision = seen.revision;
        // An event newer than a read that was sent before it: read again.
        self.stale = self.touched.is_some_and(|touched| touched > revision);
        let gone = self.known.serving.is_some() || self.known.draining.is_some();
        if gone && seen.serving.is_none() && seen.draining.is_none() && self.drain.want() != Want::Nothing {
            self.reason = "the record was deleted, or ran out with its lease".into();
        }
        self.known = seen;
        // One whose answer was lost counts too.
        self.registered |= self.ours().is_some();
        let then = self.known.wish().map(|intent| intent.then);
        self.drain.intent(then, self.registered);
        self.drain.tick(now);
        // Before what we watched: etcd was wiped or restored.
        let rewound = self.watching.is_some_and(|from| revision.next() < from);
        if self.watching.is_none() || rewound {
            self.watching = Some(revision.next());
            return self.watching;
        }
        None
    }

    /// A read or commit failed; after a commit nobody knows whether it was applied.
    pub(super) fn failed(&mut self, reason: &str, now: Instant, random: &mut fastrand::Rng) {
        self.doing = Doing::Nothing;
        self.stale = true;
        self.reason = reason.into();
        self.not_before = Some(now + self.backoff.next(random));
    }

    /// The lease of a commit does not exist: nothing was applied, and the next one goes on another lease.
    pub(super) fn lease_gone(&mut self) {
        self.doing = Doing::Nothing;
        self.stale |= self.touched.is_some_and(|touched| touched > self.known.revision);
        self.reason = "the lease has run out or was revoked".into();
    }

    /// The group has a new lease: the one before was lost, perhaps with everything else in etcd. A record is put on
    /// it, which tells what is true; who wants none has to look.
    pub(super) fn lease_is_new(&mut self) {
        if self.drain.is_removed() {
            self.stale = true;
        }
    }

    /// One of our keys, or an intent, changed at `revision`.
    pub(super) fn touched(&mut self, revision: Revision, now: Instant) {
        // The watch works, be it by telling us of our own put.
        self.doubts.reset();
        if revision <= self.known.revision {
            return;
        }
        self.touched = self.touched.max(Some(revision));
        if matches!(self.doing, Doing::Nothing) {
            self.stale = true;
            self.coalesce(now);
        }
    }

    /// The watch on our keys is over and may have missed something.
    pub(super) fn doubt(&mut self, now: Instant, random: &mut fastrand::Rng) {
        self.watching = None;
        self.stale = true;
        self.not_before = self.not_before.max(Some(now + self.doubts.next(random)));
    }

    /// The user changed weight, tags or zone.
    pub(super) fn update(&mut self, instance: Instance, now: Instant) {
        self.instance.adopt(instance);
        self.coalesce(now);
    }

    fn coalesce(&mut self, now: Instant) {
        let earliest = self.last_write.map(|last| last + WRITE_EVERY).filter(|earliest| *earliest > now);
        self.not_before = self.not_before.max(earliest);
    }

    /// The process stops: drain for good.
    pub(super) fn stop(&mut self) {
        self.drain.stop(self.may_be_seen());
    }

    /// The process can do its work, or cannot.
    pub(super) fn ready(&mut self, ready: Result<(), Arc<str>>) {
        self.drain.ready(ready, self.may_be_seen());
    }

    /// Clients know it, or will once what was sent arrives.
    fn may_be_seen(&self) -> bool {
        self.registered || self.sent
    }

    /// Says goodbye. What is under way is abandoned by the caller, so nobody knows whether it was applied.
    pub(super) fn leave(&mut self, until: Instant) {
        if self.stage == Stage::Active {
            self.stage = if self.sent { Stage::Leaving { until } } else { Stage::Over { superseded: false } };
            self.stale = true;
            self.doing = Doing::Nothing;
            self.not_before = None;
        }
    }

    /// Ends what time ends. `lonely`: no living registration keeps the lease alive.
    pub(super) fn expire(&mut self, lonely: bool, now: Instant) {
        match self.stage {
            Stage::Ghost { until } if now >= until => self.stage = Stage::Over { superseded: false },
            Stage::Leaving { until } if lonely && now >= until => {
                self.stage = Stage::Over { superseded: false }
            }
            _ => {}
        }
    }

    /// When [`Entry::step`] or [`Entry::expire`] has something to do next.
    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let until = match self.stage {
            Stage::Leaving { until } | Stage::Ghost { until } => Some(until),
            Stage::Active | Stage::Over { .. } => None,
        };
        // A leaver that is not alone goes on after its time.
        let until = until.filter(|until| *until > now);
        let pause = self.not_before.filter(|_| matches!(self.doing, Doing::Nothing));
        [pause, self.drain.wakeup(), until].into_iter().flatten().min()
    }

    pub(super) fn phase(&self) -> Phase {
        self.drain.phase()
    }

    pub(super) fn status(&self, lease: &Lease, trouble: &Arc<str>, now: Instant) -> RegistrationStatus {
        use RegistrationStatus as S;
        match self.stage {
            Stage::Over { superseded: true } => return S::Superseded { reason: self.reason.clone() },
            Stage::Over { superseded: false } | Stage::Ghost { .. } => return S::Deregistered,
            Stage::Active | Stage::Leaving { .. } => {}
        }
        if self.drain.is_removed() && self.ours().is_none() {
            let reason = self.known.wish().map_or("", |intent| intent.reason.as_str());
            return S::Removed { reason: reason.into() };
        }
        // Without a lease it is what keeps it away that matters, not what happened to the record before.
        let leaseless = lease.id().is_none();
        let reason = if leaseless || self.reason.is_empty() { trouble } else { &self.reason }.clone();
        match lease.id() {
            Some(id) if self.ours().is_some_and(|held| held.lease == id) => {
                if lease.is_suspect(now) {
                    S::Suspect { reason: trouble.clone() }
                } else {
                    S::Registered
                }
            }
            _ if self.registered => S::Lost { reason },
            _ => S::Registering { reason },
        }
    }

    /// The record of ours that stands as far as we know.
    fn ours(&self) -> Option<&Held> {
        let ours = |held: &&Held| held.incarnation == Some(self.process.incarnation);
        self.known.serving.iter().chain(&self.known.draining).find(ours)
    }
}
