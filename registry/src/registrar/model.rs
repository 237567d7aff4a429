//! A small model of etcd, and processes whose tables run on it: for the tests of the table and its transactions.
//!
//! Everything is a value and happens in the order in which the test says; a process's actions are carried out at
//! once unless the test holds them back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::entry::{Outcome, Process};
use super::instance::Instance;
use super::ownership::{Change, Held, Keys, Overridden, Seen, Wished};
use super::status::RegistrationStatus;
use super::table::{Action, EntryId, Table, Trouble};
use crate::drain::Phase;
use crate::etcd::{Answer, Failure};
use crate::intent::{DrainIntent, SetIntent};
use crate::keys::{Prefix, RecordKey, Root};
use crate::name::{Incarnation, InstanceId, LeaseId, Revision, ServiceName};
use crate::record::{Record, decode};

pub(super) const TTL: Duration = Duration::from_secs(15);
pub(super) const NOTICE: Duration = Duration::from_secs(1);

pub(super) const SERVING: &str = "/services/greeter/i-1";
pub(super) const DRAINING: &str = "/services-draining/greeter/i-1";
pub(super) const INTENT: &str = "/services-control/drain/greeter/i-1";
pub(super) const INTENT_FOR_ALL: &str = "/services-control/drain/greeter/*";
pub(super) const SET: &str = "/services-control/set/greeter/i-1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) value: Vec<u8>,
    pub(super) lease: LeaseId,
    pub(super) create: i64,
    pub(super) revision: i64,
}

/// The store: keys, leases with their deadlines, one revision.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) keys: BTreeMap<String, Stored>,
    pub(super) leases: BTreeMap<LeaseId, Instant>,
    pub(super) revision: i64,
    pub(super) up: bool,
    /// Keys touched and not yet told to watchers.
    news: Vec<(String, Revision)>,
    pub(super) writes: usize,
    pub(super) grants: usize,
}

impl Model {
    pub(super) fn put(&mut self, key: &str, value: &[u8], lease: LeaseId) {
        self.revision += 1;
        self.place(key, value, lease);
    }

    fn place(&mut self, key: &str, value: &[u8], lease: LeaseId) {
        let create = self.keys.get(key).map_or(self.revision, |stored| stored.create);
        let stored = Stored { value: value.to_vec(), lease, create, revision: self.revision };
        self.keys.insert(key.to_owned(), stored);
        self.news.push((key.to_owned(), Revision(self.revision)));
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            self.news.push((key.to_owned(), Revision(self.revision)));
        }
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let dead: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, stored)| stored.lease == lease)
            .map(|(key, _)| key.clone())
            .collect();
        if !dead.is_empty() {
            self.revision += 1;
        }
        for key in dead {
            self.keys.remove(&key);
            self.news.push((key, Revision(self.revision)));
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<LeaseId> =
            self.leases.iter().filter(|(_, end)| now > **end).map(|(lease, _)| *lease).collect();
        for lease in over {
            self.revoke(lease);
        }
    }

    /// Back with its data; as etcd does, every lease gets its full time to live.
    pub(super) fn back(&mut self, now: Instant) {
        self.up = true;
        self.leases.values_mut().for_each(|end| *end = now + TTL);
    }

    /// Everything is gone, the revision starts anew, watchers hear nothing.
    pub(super) fn wipe(&mut self) {
        *self = Model { up: self.up, writes: self.writes, grants: self.grants, ..Model::default() };
    }

    pub(super) fn seen(&self, keys: &Keys) -> Seen {
        let held = |key: &String| {
            self.keys.get(key).map(|stored| {
                let record = record_of(&stored.value);
                Held {
                    mod_revision: Revision(stored.revision),
                    lease: stored.lease,
                    incarnation: record.as_ref().and_then(|record| record.incarnation),
                    epoch: record.as_ref().and_then(|record| record.epoch),
                    value: stored.value.clone(),
                }
            })
        };
        let wished = |key: &String| {
            self.keys.get(key).map(|stored| Wished {
                mod_revision: Revision(stored.revision),
                intent: DrainIntent::decode(&stored.value),
            })
        };
        Seen {
            revision: Revision(self.revision),
            serving: held(&keys.serving),
            draining: held(&keys.draining),
            intent: wished(&keys.intent),
            intent_for_all: wished(&keys.intent_for_all),
            set: self.keys.get(&keys.set).map(|stored| Overridden {
                mod_revision: Revision(stored.revision),
                set: SetIntent::decode(&stored.value),
            }),
        }
    }

    /// One transaction, as etcd applies it.
    pub(super) fn commit(&mut self, keys: &Keys, change: &Change) -> Result<Outcome, Trouble> {
        if !self.up {
            return Err(trouble(Failure::Unreachable));
        }
        let holds = change
            .compares
            .iter()
            .all(|(key, revision)| self.keys.get(key).map_or(0, |stored| stored.revision) == revision.0);
        if !holds {
            return Ok(Outcome::Conflict(Box::new(self.seen(keys))));
        }
        if change.puts.iter().any(|(_, _, lease)| !self.leases.contains_key(lease)) {
            return Err(trouble(Failure::LeaseNotFound));
        }
        self.writes += 1;
        self.revision += 1;
        for key in &change.deletes {
            self.keys.remove(key);
            self.news.push((key.clone(), Revision(self.revision)));
        }
        for (key, value, lease) in &change.puts {
            self.place(key, value, *lease);
        }
        Ok(Outcome::Done(Revision(self.revision)))
    }

    pub(super) fn record(&self, key: &str) -> Option<Record> {
        self.keys.get(key).and_then(|stored| record_of(&stored.value))
    }
}

fn record_of(value: &[u8]) -> Option<Record> {
    let (service, id) = (ServiceName::new("greeter").ok()?, InstanceId::new("i-1").ok()?);
    decode(&RecordKey { root: Root::Serving, service, id }, value).ok()
}

pub(super) fn trouble(failure: Failure) -> Trouble {
    Trouble { failure, text: failure.to_string().into() }
}

/// A commit that was sent and has not arrived.
#[derive(Debug)]
pub(super) struct OnTheWire {
    pub(super) entry: EntryId,
    pub(super) keys: Keys,
    pub(super) change: Change,
    /// Nobody waits for its answer any more.
    pub(super) given_up: bool,
}

/// One process on the model.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) table: Table,
    pub(super) statuses: BTreeMap<EntryId, RegistrationStatus>,
    pub(super) phases: BTreeMap<EntryId, Phase>,
    pub(super) left: BTreeMap<EntryId, Result<(), Arc<str>>>,
    watched: BTreeMap<EntryId, (Keys, Revision)>,
    intents_from: Option<Revision>,
    /// A process that is stopped (SIGSTOP) does nothing and hears nothing until it goes on.
    pub(super) stopped: bool,
    missed: Vec<(String, Revision)>,
    /// Commits are kept here instead of being carried out.
    pub(super) hold_commits: bool,
    pub(super) held: Vec<OnTheWire>,
    /// Commits go to two members, and the answer of the second is the first to come.
    pub(super) sends_twice: bool,
    pub(super) renewals: usize,
    /// Renewals wait for an answer that will not come, since then.
    silent: Option<Instant>,
}

/// Processes and their etcd, and the time.
#[derive(Debug)]
pub(super) struct World {
    pub(super) etcd: Model,
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
}

impl World {
    /// A world with one process, which started at 1000 ms of 1970.
    pub(super) fn new() -> World {
        let mut world =
            World { etcd: Model { up: true, ..Model::default() }, nodes: Vec::new(), now: Instant::now() };
        world.start(1000);
        world
    }

    /// Another process; returns its number.
    pub(super) fn start(&mut self, started_ms: u64) -> usize {
        let number = self.nodes.len();
        let incarnation = Incarnation(number as u64 + 1);
        let started_at = UNIX_EPOCH + Duration::from_millis(started_ms);
        let process = Process { incarnation, started_at };
        let table = Table::new(Prefix::default(), process, TTL, NOTICE, number as u64 + 7);
        self.nodes.push(Node {
            table,
            statuses: BTreeMap::new(),
            phases: BTreeMap::new(),
            left: BTreeMap::new(),
            watched: BTreeMap::new(),
            intents_from: None,
            stopped: false,
            missed: Vec::new(),
            hold_commits: false,
            held: Vec::new(),
            sends_twice: false,
            renewals: 0,
            silent: None,
        });
        number
    }

    /// The process registers `greeter/i-<id>` as its entry `id`.
    pub(super) fn register(&mut self, node: usize, id: EntryId) {
        let instance = Instance::new("greeter", &format!("i-{id}"), "10.0.0.1:50051").expect("valid");
        self.nodes[node].table.register(id, instance, self.now);
        self.settle();
    }

    pub(super) fn status(&self, node: usize, id: EntryId) -> &str {
        self.nodes[node].statuses.get(&id).map_or("registering", RegistrationStatus::as_str)
    }

    pub(super) fn phase(&self, node: usize) -> Phase {
        self.nodes[node].phases.get(&1).copied().unwrap_or(Phase::Starting)
    }

    /// Which of the two keys of `i-1` holds what state.
    pub(super) fn standing(&self) -> Vec<(Root, String)> {
        let state = |key, root| self.etcd.record(key).map(|record| (root, record.state.to_string()));
        [state(SERVING, Root::Serving), state(DRAINING, Root::Draining)].into_iter().flatten().collect()
    }

    /// Carries out actions and tells news until nobody has anything to do at this instant.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            for number in 0..self.nodes.len() {
                if self.nodes[number].stopped {
                    continue;
                }
                for action in self.nodes[number].table.actions() {
                    idle = false;
                    self.act(number, action);
                }
            }
            for (key, revision) in std::mem::take(&mut self.etcd.news) {
                idle = false;
                for node in &mut self.nodes {
                    node.missed.push((key.clone(), revision));
                }
            }
            for number in 0..self.nodes.len() {
                if !self.nodes[number].stopped && self.etcd.up {
                    self.tell(number);
                }
            }
            if idle {
                return;
            }
        }
        panic!("it never comes to rest: {self:#?}");
    }

    fn tell(&mut self, number: usize) {
        let (node, now) = (&mut self.nodes[number], self.now);
        for (key, revision) in std::mem::take(&mut node.missed) {
            let concerned = node.watched.iter().filter(|(_, (keys, from))| {
                (keys.serving == key || keys.draining == key) && revision >= *from
            });
            for id in concerned.map(|(id, _)| *id).collect::<Vec<_>>() {
                node.table.touched(id, revision, now);
            }
            if key.starts_with("/services-control/") && node.intents_from.is_some_and(|from| revision >= from)
            {
                node.table.intent_touched(key.as_bytes(), revision, now);
            }
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        if let Action::Commit { entry, keys, change } = action {
            if self.nodes[number].hold_commits {
                self.nodes[number].held.push(OnTheWire { entry, keys, change, given_up: false });
            } else {
                let result = self.commit(number, &keys, &change);
                let lease = change.puts.first().map(|(_, _, lease)| *lease);
                self.nodes[number].table.committed(entry, lease, result, self.now);
            }
            return;
        }
        let (node, etcd, now) = (&mut self.nodes[number], &mut self.etcd, self.now);
        match action {
            Action::Grant { group, lease, ttl } => {
                let result = if etcd.up {
                    etcd.grants += 1;
                    etcd.leases.insert(lease, now + ttl);
                    Ok(ttl)
                } else {
                    Err(trouble(Failure::Unreachable))
                };
                node.table.granted(group, lease, result, now);
            }
            Action::Renew { lease, sent, .. } => {
                node.renewals += 1;
                match etcd.leases.get_mut(&lease) {
                    _ if !etcd.up => _ = node.silent.get_or_insert(now),
                    Some(end) => {
                        *end = now + TTL;
                        node.table.answer(Answer::Renewed { lease, sent }, now);
                    }
                    None => node.table.answer(Answer::Gone { lease }, now),
                }
            }
            Action::Revoke { group, lease } => {
                if etcd.up {
                    etcd.revoke(lease);
                }
                node.table.revoked(group);
            }
            Action::Read { entry, keys } => {
                let result = if etcd.up { Ok(etcd.seen(&keys)) } else { Err(trouble(Failure::Unreachable)) };
                node.table.read(entry, result, now);
            }
            Action::Commit { .. } => {} // above
            Action::Abandon { entry } => {
                node.held.iter_mut().filter(|sent| sent.entry == entry).for_each(|sent| sent.given_up = true);
            }
            Action::WatchKeys { entry, keys, from } => {
                node.watched.insert(entry, (keys, from));
            }
            Action::WatchIntents { from } => node.intents_from = Some(from),
            Action::LeaseLost | Action::TookOver => {}
            Action::Status { entry, status } => {
                node.statuses.insert(entry, status);
            }
            Action::Phase { entry, phase } => {
                node.phases.insert(entry, phase);
            }
            Action::Left { entry, result } => {
                node.left.insert(entry, result);
            }
            Action::Forget { entry } => {
                node.watched.remove(&entry);
            }
        }
    }

    /// A process's transaction, which must not delete what another one owns (law 4).
    fn commit(&mut self, number: usize, keys: &Keys, change: &Change) -> Result<Outcome, Trouble> {
        let ours = Incarnation(number as u64 + 1);
        let owner = |key: &String| self.etcd.record(key).and_then(|record| record.incarnation);
        let others: Vec<_> =
            change.deletes.iter().filter(|key| owner(key).is_some_and(|of| of != ours)).collect();
        let goodbye = change.puts.is_empty() && !others.is_empty();
        let result = self.etcd.commit(keys, change);
        assert!(!goodbye || !matches!(result, Ok(Outcome::Done(_))), "process {number} deleted {others:?}");
        if self.nodes[number].sends_twice { self.etcd.commit(keys, change) } else { result }
    }

    /// What a process has on the wire arrives, and is answered if somebody still waits.
    pub(super) fn arrive(&mut self, number: usize) {
        for sent in std::mem::take(&mut self.nodes[number].held) {
            let result = self.commit(number, &sent.keys, &sent.change);
            let lease = sent.change.puts.first().map(|(_, _, lease)| *lease);
            if !sent.given_up {
                self.nodes[number].table.committed(sent.entry, lease, result, self.now);
            }
        }
        self.settle();
    }

    /// What a process has on the wire is late: its callers are told that nobody answered.
    pub(super) fn time_out(&mut self, number: usize) {
        let (node, now) = (&mut self.nodes[number], self.now);
        for sent in node.held.iter_mut().filter(|sent| !sent.given_up) {
            sent.given_up = true;
            node.table.committed(sent.entry, None, Err(trouble(Failure::TimedOut)), now);
        }
        self.settle();
    }

    /// A process's connection ends, and with it what it has on the wire.
    pub(super) fn cut(&mut self, number: usize) {
        let (node, now) = (&mut self.nodes[number], self.now);
        for sent in std::mem::take(&mut node.held) {
            if !sent.given_up {
                node.table.committed(sent.entry, None, Err(trouble(Failure::Unreachable)), now);
            }
        }
    }

    /// Lets time pass, from one thing that is due to the next.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        for _ in 0..100_000 {
            let running = self.nodes.iter().filter(|node| !node.stopped);
            let due = running.flat_map(|node| {
                node.table.wakeup(self.now).into_iter().chain(node.silent.map(|since| since + TTL / 3))
            });
            let ends = self.etcd.leases.values().filter(|_| self.etcd.up);
            let next = due.chain(ends.map(|end| *end + Duration::from_millis(1))).min();
            // What is due already gets its tick a little later: time never stands still.
            let next = next.map(|due| due.max(self.now + Duration::from_micros(100)));
            match next.filter(|due| *due <= end) {
                Some(due) => self.now = due,
                None => {
                    self.now = end;
                    return;
                }
            }
            if self.etcd.up {
                self.etcd.expire(self.now);
            }
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                if node.silent.take_if(|since| self.now >= *since + TTL / 3).is_some() {
                    node.table.answer(Answer::Down { reason: "unreachable".into() }, self.now);
                }
                node.table.tick(self.now);
            }
            self.settle();
        }
        panic!("too much to do within {time:?}: {self:#?}");
    }
}
