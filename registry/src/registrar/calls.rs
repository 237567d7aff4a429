//! The calls to etcd that are under way, and those that wait for their turn.
//!
//! Reads and commits of many registrations that wait at the same time go in one transaction: a process that starts with
//! thousands of instances, or finds etcd empty, costs etcd few of them. A registration that is alone waits for nobody.
//! At most one read or commit of a registration is under way, and it can be abandoned: then its transaction is dropped by
//! the task that owns this, so nothing is sent after that, and the others that were in it are asked again. Every commit
//! is guarded and knows its own work, so asking twice does no harm.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::entry::Outcome;
use super::execute;
use super::ownership::{Change, Keys, Seen};
use super::table::{EntryId, GroupId, Trouble};
use crate::etcd::Etcd;
use crate::name::LeaseId;

/// How many calls to etcd are under way at once; more would only queue there.
const CALLS: usize = 64;
/// How many registrations share a transaction: five keys each, and etcd takes 128 operations (`--max-txn-ops`).
const TOGETHER: usize = 25;

/// The answer of a call to etcd.
#[derive(Debug)]
pub(super) enum Done {
    Granted { group: GroupId, lease: LeaseId, result: Result<Duration, Trouble> },
    Revoked { group: GroupId },
    Read { entry: EntryId, result: Result<Box<Seen>, Trouble> },
    Committed { entry: EntryId, lease: Option<LeaseId>, result: Result<Outcome, Trouble> },
}

/// A registration's five keys, to be read.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) entry: EntryId,
    pub(super) keys: Keys,
}

/// A registration's transaction.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) entry: EntryId,
    pub(super) keys: Keys,
    pub(super) change: Change,
}

/// Registrations that are asked for in one transaction.
#[derive(Clone, Debug)]
enum Batch {
    Reads(Vec<Read>),
    Commits(Vec<Commit>),
}

/// Names a transaction that is under way; never reused.
type BatchId = u64;
/// What ended, and its batch if it was one.
type Ended = (Option<BatchId>, Vec<Done>);
type Call = Pin<Box<dyn Future<Output = Ended> + Send>>;

pub(super) struct Calls {
    etcd: Etcd,
    /// Grants and revokes.
    leases: VecDeque<Call>,
    reads: VecDeque<Read>,
    commits: VecDeque<Commit>,
    running: FuturesUnordered<Call>,
    batches: HashMap<BatchId, (AbortHandle, Batch)>,
    /// Where the read or commit of a registration is under way.
    of: HashMap<EntryId, BatchId>,
    last: BatchId,
}

impl Calls {
    pub(super) fn new(etcd: Etcd) -> Calls {
        Calls {
            etcd,
            leases: VecDeque::new(),
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            running: FuturesUnordered::new(),
            batches: HashMap::new(),
            of: HashMap::new(),
            last: 0,
        }
    }

    pub(super) fn grant(&mut self, group: GroupId, lease: LeaseId, ttl: Duration) {
        let etcd = self.etcd.clone();
        self.leases.push_back(Box::pin(async move {
            let result = execute::grant(etcd, lease, ttl).await;
            (None, vec![Done::Granted { group, lease, result }])
        }));
    }

    pub(super) fn revoke(&mut self, group: GroupId, lease: LeaseId) {
        let etcd = self.etcd.clone();
        self.leases.push_back(Box::pin(async move {
            execute::revoke(etcd, lease).await;
            (None, vec![Done::Revoked { group }])
        }));
    }

    pub(super) fn read(&mut self, read: Read) {
        self.reads.push_back(read);
    }

    pub(super) fn commit(&mut self, commit: Commit) {
        self.commits.push_back(commit);
    }

    /// Drops what waits or is under way for a registration.
    pub(super) fn abandon(&mut self, entry: EntryId) {
        self.reads.retain(|read| read.entry != entry);
        self.commits.retain(|commit| commit.entry != entry);
        let Some((running, batch)) = self.of.remove(&entry).and_then(|batch| self.batches.remove(&batch))
        else {
            return;
        };
        running.abort();
        for other in batch.entries() {
            self.of.remove(&other);
        }
        match batch {
            Batch::Reads(reads) => self.reads.extend(reads.into_iter().filter(|read| read.entry != entry)),
            Batch::Commits(commits) => {
                self.commits.extend(commits.into_iter().filter(|commit| commit.entry != entry));
            }
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn send(&mut self) {
        while self.running.len() < CALLS {
            // Leases first: every commit needs one. Commits before reads: what was begun is ended.
            if let Some(call) = self.leases.pop_front() {
                self.running.push(call);
            } else if !self.commits.is_empty() {
                let commits = self.commits.drain(..self.commits.len().min(TOGETHER)).collect();
                self.start(Batch::Commits(commits));
            } else if !self.reads.is_empty() {
                let reads = self.reads.drain(..self.reads.len().min(TOGETHER)).collect();
                self.start(Batch::Reads(reads));
            } else {
                return;
            }
        }
    }

    /// What ended next; never, while nothing is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Vec<Done> {
        let Some((batch, done)) = self.running.next().await else { return std::future::pending().await };
        if let Some(batch) = batch {
            self.batches.remove(&batch);
            for entry in done.iter().filter_map(entry) {
                self.of.remove(&entry);
            }
        }
        done
    }

    fn start(&mut self, batch: Batch) {
        self.last += 1;
        let (id, etcd) = (self.last, self.etcd.clone());
        for entry in batch.entries() {
            self.of.insert(entry, id);
        }
        let (call, handle) = abortable(ask(etcd, batch.clone()));
        self.batches.insert(id, (handle, batch));
        // Abandoned: it is no batch any more, and has no answers.
        self.running.push(Box::pin(async move { (Some(id), call.await.unwrap_or_default()) }));
    }
}

impl Batch {
    fn entries(&self) -> Vec<EntryId> {
        match self {
            Batch::Reads(reads) => reads.iter().map(|read| read.entry).collect(),
            Batch::Commits(commits) => commits.iter().map(|commit| commit.entry).collect(),
        }
    }
}

fn entry(done: &Done) -> Option<EntryId> {
    match done {
        Done::Read { entry, .. } | Done::Committed { entry, .. } => Some(*entry),
        Done::Granted { .. } | Done::Revoked { .. } => None,
    }
}

async fn ask(etcd: Etcd, batch: Batch) -> Vec<Done> {
    match batch {
        Batch::Reads(reads) => {
            let results = execute::read(etcd, reads.iter().map(|read| &read.keys).collect()).await;
            let answered = reads.iter().zip(results);
            answered
                .map(|(read, result)| Done::Read { entry: read.entry, result: result.map(Box::new) })
                .collect()
        }
        Batch::Commits(commits) => {
            let asked = commits.iter().map(|commit| (&commit.keys, &commit.change)).collect();
            let results = execute::commit(etcd, asked).await;
            let answered = commits.iter().zip(results);
            answered
                .map(|(commit, result)| {
                    let lease = commit.change.puts.first().map(|(_, _, lease)| *lease);
                    Done::Committed { entry: commit.entry, lease, result }
                })
                .collect()
        }
    }
}
