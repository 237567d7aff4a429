//! All registrations of a process and the leases that they share, as a pure table: events and `now` in, actions out.
//!
//! The task (`task.rs`) feeds it and carries its actions out; it owns no runtime, socket or clock. A registration
//! lives in a group of at most `KEYS_PER_LEASE` keys over one lease (`table/groups.rs`): a bound on what one lost
//! lease takes along, and on what etcd has to walk for each put when authentication is on.

mod groups;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::groups::Group;
use super::entry::{Entry, Outcome, Process, Stage, Step};
use super::instance::Instance;
use super::ownership::{Keys, Seen};
use super::status::RegistrationStatus;
use crate::backoff::Backoff;
use crate::drain::Phase;
use crate::etcd::Failure;
use crate::keys::Prefix;
use crate::name::{InstanceId, LeaseId, Revision, ServiceName};

/// Names a registration within its process; never reused.
pub(super) type EntryId = u64;
/// Names a group of registrations over one lease; never reused.
pub(super) type GroupId = u64;

/// What the task does for the table.
#[derive(Debug)]
pub(super) enum Action {
    Grant {
        group: GroupId,
        lease: LeaseId,
        ttl: Duration,
    },
    Renew {
        lease: LeaseId,
        ttl: Duration,
        sent: Instant,
    },
    Revoke {
        group: GroupId,
        lease: LeaseId,
    },
    /// Read the five keys at one revision.
    Read {
        entry: EntryId,
        keys: Keys,
    },
    /// Send the transaction; if its compares fail, read the five keys with it.
    Commit {
        entry: EntryId,
        keys: Keys,
        change: super::ownership::Change,
    },
    /// Drop whatever is under way for this entry.
    Abandon {
        entry: EntryId,
    },
    WatchKeys {
        entry: EntryId,
        keys: Keys,
        from: Revision,
    },
    WatchIntents {
        from: Revision,
    },
    Status {
        entry: EntryId,
        status: RegistrationStatus,
    },
    Phase {
        entry: EntryId,
        phase: Phase,
    },
    /// The goodbye is said (`Ok`), or could not be said in time.
    Left {
        entry: EntryId,
        result: Result<(), Arc<str>>,
    },
    /// A lease was lost: to be counted.
    LeaseLost,
    /// A record that was another's is ours now: to be counted.
    TookOver,
    /// The entry is no more.
    Forget {
        entry: EntryId,
    },
}

/// Why a call to etcd failed.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    pub(super) text: Arc<str>,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    group: GroupId,
    status: RegistrationStatus,
    phase: Phase,
    /// A caller waits for the goodbye, until then.
    waiting: Option<Instant>,
    /// It has been counted out of its group's living.
    resting: bool,
    /// When it is to be looked at again, as in the table's timers.
    timer: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Table {
    prefix: Prefix,
    process: Process,
    ttl: Duration,
    notice: Duration,
    random: fastrand::Rng,
    rows: BTreeMap<EntryId, Row>,
    groups: BTreeMap<GroupId, Group>,
    next_group: GroupId,
    names: HashMap<(ServiceName, InstanceId), EntryId>,
    timers: BTreeSet<(Instant, EntryId)>,
    /// Where the watch on the intents starts.
    intents_from: Option<Revision>,
    intents_backoff: Backoff,
    actions: Vec<Action>,
}

impl Table {
    pub(super) fn new(prefix: Prefix, process: Process, ttl: Duration, notice: Duration, seed: u64) -> Table {
        Table {
            prefix,
            process,
            ttl,
            notice,
            random: fastrand::Rng::with_seed(seed),
            rows: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_group: 0,
            names: HashMap::new(),
            timers: BTreeSet::new(),
            intents_from: None,
            intents_backoff: Backoff::stream(),
            actions: Vec::new(),
        }
    }

    /// Takes what is to be done since the last call.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.groups.is_empty()
    }

    /// When [`Table::tick`] has something to do next.
    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let living = self.groups.values().filter(|group| group.active > 0);
        let leases = living.filter_map(|group| group.lease.wakeup(now));
        leases.chain(self.timers.first().map(|(due, _)| *due)).min()
    }

    // What users ask for.

    pub(super) fn register(&mut self, id: EntryId, instance: Instance, now: Instant) {
        let name = (instance.service().clone(), instance.id().clone());
        // Before the older registration goes: the lease that its record stands on is kept for the newer one.
        let group = self.group_with_room(now);
        let keys = Keys::new(&self.prefix, &name.0, &name.1);
        let mut entry = Entry::new(keys, instance, self.process, self.notice);
        if let Some(old) = self.names.insert(name, id) {
            if let Some(old) = self.rows.get(&old) {
                entry.inherit(&old.entry);
            }
            self.replace(old, now);
        }
        let status = RegistrationStatus::Registering { reason: "waiting for etcd".into() };
        let row =
            Row { entry, group, status, phase: Phase::Starting, waiting: None, resting: false, timer: None };
        self.rows.insert(id, row);
        self.pump_group(group, now);
        self.pump(id, now);
    }

    /// The process registers the same id again: the newer registration takes it.
    fn replace(&mut self, old: EntryId, now: Instant) {
        if let Some(row) = self.rows.get_mut(&old) {
            row.entry.replaced();
            self.actions.push(Action::Abandon { entry: old });
            self.pump(old, now);
        }
    }

    pub(super) fn update(&mut self, id: EntryId, instance: Instance, now: Instant) {
        self.with(id, now, |entry| entry.update(instance, now));
    }

    pub(super) fn inflight(&mut self, id: EntryId, inflight: u64, now: Instant) {
        self.with(id, now, |entry| entry.drain.inflight(inflight));
    }

    /// The server's health says SERVING, or does not.
    pub(super) fn shown(&mut self, id: EntryId, serving: bool, now: Instant) {
        self.with(id, now, |entry| entry.shown = Some(serving));
    }

    /// The process can do its work, or cannot, for this reason.
    pub(super) fn ready(&mut self, id: EntryId, ready: Result<(), Arc<str>>, now: Instant) {
        self.with(id, now, |entry| entry.ready(ready));
    }

    /// The process stops: drain for good.
    pub(super) fn stop(&mut self, id: EntryId, now: Instant) {
        self.with(id, now, Entry::stop);
    }

    /// Says goodbye; [`Action::Left`] tells when it is said, at the latest at `deadline`.
    pub(super) fn deregister(&mut self, id: EntryId, deadline: Instant, now: Instant) {
        let Some(row) = self.rows.get_mut(&id) else {
            self.actions.push(Action::Left { entry: id, result: Ok(()) });
            return;
        };
        self.actions.push(Action::Abandon { entry: id });
        let ttl = self.groups.get(&row.group).map_or(self.ttl, |group| group.lease.ttl());
        row.entry.leave(deadline.max(now) + ttl);
        row.waiting = Some(deadline);
        self.pump(id, now);
    }

    // What etcd says.

    pub(super) fn read(&mut self, id: EntryId, result: Result<Seen, Trouble>, now: Instant) {
        let random = &mut self.random;
        let Some(row) = self.rows.get_mut(&id) else { return };
        match result {
            Ok(seen) => {
                let revision = seen.revision;
                let watch = row.entry.read(seen, now);
                self.learned(id, revision, watch);
            }
            Err(trouble) => row.entry.failed(&trouble.text, now, random),
        }
        self.pump(id, now);
    }

    pub(super) fn committed(
        &mut self,
        id: EntryId,
        lease: Option<LeaseId>,
        result: Result<Outcome, Trouble>,
        now: Instant,
    ) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        match result {
            Ok(outcome) => {
                let revision = match &outcome {
                    Outcome::Done(revision) => *revision,
                    Outcome::Conflict(seen) => seen.revision,
                };
                let done = row.entry.is_applied(&outcome);
                if done && row.entry.takes_over() {
                    self.actions.push(Action::TookOver);
                }
                let watch = row.entry.committed(outcome, now);
                if done && let Some(group) = self.groups.get_mut(&row.group) {
                    group.lease.proven();
                }
                self.learned(id, revision, watch);
            }
            Err(trouble) if trouble.failure == Failure::LeaseNotFound => {
                row.entry.lease_gone();
                if let Some(lease) = lease {
                    self.lost(lease, now);
                }
            }
            Err(trouble) => row.entry.failed(&trouble.text, now, &mut self.random),
        }
        self.pump(id, now);
    }

    /// A key of this entry was touched.
    pub(super) fn touched(&mut self, id: EntryId, revision: Revision, now: Instant) {
        self.with(id, now, |entry| entry.touched(revision, now));
    }

    pub(super) fn doubt(&mut self, id: EntryId, now: Instant) {
        let mut random = self.random.fork();
        self.with(id, now, |entry| entry.doubt(now, &mut random));
    }

    /// A key under the control root was touched.
    pub(super) fn intent_touched(&mut self, key: &[u8], revision: Revision, now: Instant) {
        self.intents_backoff.reset();
        if let Some(Ok(name)) = self.prefix.parse_set_intent(key) {
            if let Some(id) = self.names.get(&name).copied() {
                self.touched(id, revision, now);
            }
            return;
        }
        // Other control keys share the root, and a key that names nobody concerns nobody.
        let Some(Ok(target)) = self.prefix.parse_drain_intent(key) else { return };
        let concerned: Vec<EntryId> = match &target.id {
            Some(id) => self.names.get(&(target.service, id.clone())).copied().into_iter().collect(),
            None => {
                let ours = |name: &(ServiceName, InstanceId)| name.0 == target.service;
                self.names.iter().filter(|(name, _)| ours(name)).map(|(_, id)| *id).collect()
            }
        };
        for id in concerned {
            self.touched(id, revision, now);
        }
    }

    /// The watch on the intents is over: every registration reads its own, the first of them starts another watch.
    pub(super) fn intents_doubt(&mut self, now: Instant) {
        self.intents_from = None;
        let mut random = self.random.fork();
        let ids: Vec<EntryId> = self.rows.keys().copied().collect();
        let pause = now + self.intents_backoff.next(&mut random);
        for id in ids {
            self.with(id, now, |entry| entry.doubt(pause, &mut random));
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.pump_group(group, now);
        }
        let due: Vec<EntryId> =
            self.timers.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.pump(id, now);
        }
    }

    // Inside.

    fn with(&mut self, id: EntryId, now: Instant, change: impl FnOnce(&mut Entry)) {
        if let Some(row) = self.rows.get_mut(&id) {
            change(&mut row.entry);
            self.pump(id, now);
        }
    }

    /// Starts the watches that what was learned at `revision` asks for.
    fn learned(&mut self, id: EntryId, revision: Revision, watch: Option<Revision>) {
        let Some(row) = self.rows.get(&id) else { return };
        if let Some(from) = watch {
            self.actions.push(Action::WatchKeys { entry: id, keys: row.entry.keys.clone(), from });
        }
        // From the lowest revision that any registration's intents were read at: those that know more ignore the
        // rest. After a wipe it is lower than ever.
        if self.intents_from.is_none_or(|from| revision.next() < from) {
            self.intents_from = Some(revision.next());
            self.actions.push(Action::WatchIntents { from: revision.next() });
        }
    }

    /// Finds the next step of an entry and publishes where it stands.
    fn pump(&mut self, id: EntryId, now: Instant) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let Some(group) = self.groups.get_mut(&row.group) else { return };
        row.entry.expire(group.active == 0, now);
        let step = row.entry.step(&group.lease, now);
        let rests = row.entry.stage != Stage::Active && !row.resting;
        if rests {
            row.resting = true;
            group.active -= 1;
        }
        let last = rests && group.active == 0;
        let status = row.entry.status(&group.lease, &group.trouble, now);
        if status != row.status && !row.status.is_final() {
            row.status = status.clone();
            self.actions.push(Action::Status { entry: id, status });
        }
        // The phase before the commit: an instance that returns is SERVING before its record says so.
        let phase = row.entry.phase();
        if phase != row.phase {
            row.phase = phase;
            self.actions.push(Action::Phase { entry: id, phase });
        }
        let keys = || row.entry.keys.clone();
        match step {
            Some(Step::Read) => self.actions.push(Action::Read { entry: id, keys: keys() }),
            Some(Step::Commit(change)) => {
                self.actions.push(Action::Commit { entry: id, keys: keys(), change });
            }
            None => {}
        }
        self.wind_down(id, now);
        self.schedule(id, now);
        if last {
            // Those that leave too, and waited for the lease's other members, are alone now.
            let group = self.rows.get(&id).map(|row| row.group);
            for member in group.map_or_else(Vec::new, |group| self.members(group)) {
                if member != id {
                    self.pump(member, now);
                }
            }
        }
    }

    fn schedule(&mut self, id: EntryId, now: Instant) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let due = row.entry.wakeup(now).into_iter().chain(row.waiting).min();
        if let Some(old) = std::mem::replace(&mut row.timer, due) {
            self.timers.remove(&(old, id));
        }
        if let Some(due) = due {
            self.timers.insert((due, id));
        }
    }

    fn answer_waiting(&mut self, id: EntryId, result: Result<(), Arc<str>>) {
        if let Some(row) = self.rows.get_mut(&id)
            && row.waiting.take().is_some()
        {
            self.actions.push(Action::Left { entry: id, result });
        }
    }

    fn forget(&mut self, id: EntryId) {
        let Some(row) = self.rows.remove(&id) else { return };
        if let Some(due) = row.timer {
            self.timers.remove(&(due, id));
        }
        if let Some(group) = self.groups.get_mut(&row.group) {
            group.members -= 1;
        }
        let name = (row.entry.instance.service().clone(), row.entry.instance.id().clone());
        if self.names.get(&name) == Some(&id) {
            self.names.remove(&name);
        }
        self.actions.push(Action::Forget { entry: id });
    }
}
