//! The one loop that owns a process's registrations: wishes, etcd's answers and the time go into the table, its
//! actions go out.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::calls::{Calls, Commit, Done, Read};
use super::entry::Outcome;
use super::inbox::{Goodbye, Inbox, Publishers, Wish};
use super::status::{Narrator, RegistrationStatus, Standing};
use super::table::{Action, EntryId, Table};
use crate::drain::Phase;
use crate::etcd::{Etcd, Keepalive, Range, Renewal, WatchEvent, Watcher};
use crate::metrics::{KEEPALIVES, LEASES_LOST, TAKEOVERS, WRITES};
use crate::name::{InstanceId, ServiceName};

/// The watch on the intents; those of registrations are `2 * id` and `2 * id + 1`, and ids start at 1.
const INTENTS: u64 = 0;

/// What the outside sees of one registration.
struct Face {
    service: ServiceName,
    id: InstanceId,
    status: watch::Sender<RegistrationStatus>,
    standing: Standing,
    phase: watch::Sender<Phase>,
    left: Option<oneshot::Sender<Result<(), Arc<str>>>>,
}

pub(super) struct Task {
    pub(super) etcd: Etcd,
    pub(super) table: Table,
    pub(super) inbox: Arc<Inbox>,
    keepalive: Keepalive,
    watcher: Watcher,
    faces: HashMap<EntryId, Face>,
    calls: Calls,
    narrator: Narrator,
}

impl Task {
    pub(super) fn new(etcd: Etcd, table: Table, inbox: Arc<Inbox>) -> Task {
        Task {
            keepalive: Keepalive::start(etcd.clone()),
            watcher: Watcher::start(etcd.clone()),
            calls: Calls::new(etcd.clone()),
            etcd,
            table,
            inbox,
            faces: HashMap::new(),
            narrator: Narrator::default(),
        }
    }

    /// Runs until no handle can register any more and nothing is registered.
    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            for action in self.table.actions() {
                self.act(action, now);
            }
            self.calls.send();
            if self.inbox.is_closed() && self.table.is_empty() {
                return;
            }
            let wakeup = self.table.wakeup(now);
            // Fair: every branch is short, and a flood of answers must not keep a wish or a renewal waiting.
            tokio::select! {
                wishes = self.inbox.take() => {
                    for (entry, wish) in wishes {
                        self.wish(entry, wish, Instant::now());
                    }
                }
                done = self.calls.next() => {
                    for done in done {
                        self.done(done, Instant::now());
                    }
                }
                Some(answer) = self.keepalive.next() => self.table.answer(answer, Instant::now()),
                Some(event) = self.watcher.next() => self.event(event, Instant::now()),
                () = until(wakeup) => self.table.tick(Instant::now()),
            }
        }
    }

    fn wish(&mut self, entry: EntryId, wish: Wish, now: Instant) {
        if let Some((instance, Publishers { status, phase })) = wish.register {
            let standing = Standing::new(&status.borrow(), now);
            let (service, id) = (instance.service().clone(), instance.id().clone());
            self.faces.insert(entry, Face { service, id, status, standing, phase, left: None });
            self.table.register(entry, instance, now);
        }
        if let Some(instance) = wish.update {
            self.table.update(entry, instance, now);
        }
        if let Some(inflight) = wish.inflight {
            self.table.inflight(entry, inflight, now);
        }
        if let Some(shown) = wish.shown {
            self.table.shown(entry, shown, now);
        }
        if let Some(ready) = wish.ready {
            self.table.ready(entry, ready, now);
        }
        if wish.stop {
            self.table.stop(entry, now);
        }
        if let Some(Goodbye { deadline, left }) = wish.deregister {
            match self.faces.get_mut(&entry) {
                Some(face) => {
                    face.left = Some(left);
                    self.table.deregister(entry, deadline, now);
                }
                // Forgotten already: superseded, or registered again and gone. The asker may have given up too.
                None => drop(left.send(Ok(()))),
            }
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::Granted { group, lease, result } => self.table.granted(group, lease, result, now),
            Done::Revoked { group } => self.table.revoked(group),
            Done::Read { entry, result } => {
                self.table.read(entry, result.map(|seen| *seen), now);
            }
            Done::Committed { entry, lease, result } => {
                let outcome = match &result {
                    Ok(Outcome::Done(_)) => "applied",
                    Ok(Outcome::Conflict(_)) => "conflict",
                    Err(_) => "failed",
                };
                metrics::counter!(WRITES, "result" => outcome).increment(1);
                self.table.committed(entry, lease, result, now);
            }
        }
    }

    fn event(&mut self, event: WatchEvent, now: Instant) {
        match event {
            WatchEvent::Touched { token: INTENTS, keys } => {
                for (key, revision) in keys {
                    self.table.intent_touched(&key, revision, now);
                }
            }
            WatchEvent::Touched { token, keys } => {
                for (_, revision) in keys {
                    self.table.touched(token / 2, revision, now);
                }
            }
            WatchEvent::Doubt { token, reason } => {
                tracing::debug!(token, %reason, "watch in doubt; reading again");
                if token == INTENTS {
                    self.table.intents_doubt(now);
                } else {
                    self.table.doubt(token / 2, now);
                }
            }
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Grant { group, lease, ttl } => self.calls.grant(group, lease, ttl),
            Action::Revoke { group, lease } => self.calls.revoke(group, lease),
            Action::Read { entry, keys } => self.calls.read(Read { entry, keys }),
            Action::Commit { entry, keys, change } => self.calls.commit(Commit { entry, keys, change }),
            Action::Abandon { entry } => self.calls.abandon(entry),
            Action::Renew { lease, ttl, sent } => {
                metrics::counter!(KEEPALIVES).increment(1);
                // A full queue is a stuck stream, which is dropped for its silence.
                if !self.keepalive.renew(Renewal { lease, ttl, sent }) {
                    self.table.unsent(lease);
                }
            }
            Action::WatchKeys { entry, keys, from } => {
                let both = self.watcher.watch(2 * entry, Range::Key(keys.serving), from)
                    && self.watcher.watch(2 * entry + 1, Range::Key(keys.draining), from);
                if !both {
                    self.table.doubt(entry, now);
                }
            }
            Action::WatchIntents { from } => {
                let control = self.etcd.prefix().control();
                if !self.watcher.watch(INTENTS, Range::Prefix(control), from) {
                    self.table.intents_doubt(now);
                }
            }
            Action::Status { entry, status } => {
                if let Some(face) = self.faces.get_mut(&entry) {
                    face.standing.is(&status, now);
                    let before = face.status.send_replace(status.clone());
                    self.narrator.tell(&face.service, &face.id, &before, &status, now);
                }
            }
            Action::LeaseLost => metrics::counter!(LEASES_LOST).increment(1),
            Action::TookOver => metrics::counter!(TAKEOVERS).increment(1),
            Action::Phase { entry, phase } => {
                if let Some(face) = self.faces.get(&entry) {
                    tracing::info!(service = %face.service, id = %face.id, ?phase, "drain");
                    face.phase.send_replace(phase);
                }
            }
            Action::Left { entry, result } => {
                if let Some(left) = self.faces.get_mut(&entry).and_then(|face| face.left.take()) {
                    // Whoever asked may have stopped waiting.
                    let _ = left.send(result);
                }
            }
            Action::Forget { entry } => {
                self.watcher.stop(2 * entry);
                self.watcher.stop(2 * entry + 1);
                self.faces.remove(&entry);
            }
        }
    }
}

async fn until(wakeup: Option<Instant>) {
    match wakeup {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
