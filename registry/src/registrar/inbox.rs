//! What users ask of registrations, between their handles and the owner task.
//!
//! Asking never waits and nothing is lost, so this is no queue: it holds at most one wish for each registration,
//! and what comes later is merged into it. It is bounded by the number of registrations, which stay in memory anyway.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::instance::Instance;
use super::status::RegistrationStatus;
use super::table::EntryId;
use crate::drain::Phase;

/// Where a registration's state is published.
#[derive(Debug)]
pub(super) struct Publishers {
    pub(super) status: watch::Sender<RegistrationStatus>,
    pub(super) phase: watch::Sender<Phase>,
}

/// A goodbye, its deadline, and who waits for it.
#[derive(Debug)]
pub(super) struct Goodbye {
    pub(super) deadline: Instant,
    pub(super) left: oneshot::Sender<Result<(), Arc<str>>>,
}

/// All that is asked of one registration since the task last looked.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) register: Option<(Instance, Publishers)>,
    pub(super) update: Option<Instance>,
    pub(super) inflight: Option<u64>,
    pub(super) ready: Option<Result<(), Arc<str>>>,
    /// Whether the server's health says SERVING.
    pub(super) shown: Option<bool>,
    pub(super) stop: bool,
    pub(super) deregister: Option<Goodbye>,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    wishes: Mutex<BTreeMap<EntryId, Wish>>,
    news: Notify,
    last_id: AtomicU64,
    /// Handles that could still ask for something new.
    handles: AtomicU64,
}

impl Inbox {
    /// A name for a new registration; the first is 1.
    pub(super) fn next_id(&self) -> EntryId {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn ask(&self, id: EntryId, ask: impl FnOnce(&mut Wish)) {
        ask(self.lock().entry(id).or_default());
        self.news.notify_one();
    }

    /// Waits for wishes and takes them, oldest registration first. Cancel safe: nothing is taken before the end.
    pub(super) async fn take(&self) -> BTreeMap<EntryId, Wish> {
        loop {
            let wishes = std::mem::take(&mut *self.lock());
            if !wishes.is_empty() {
                return wishes;
            }
            self.news.notified().await;
            if self.is_closed() {
                return std::mem::take(&mut *self.lock());
            }
        }
    }

    pub(super) fn opened(&self) {
        self.handles.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn closed(&self) {
        self.handles.fetch_sub(1, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// No handle is left and nothing is asked for.
    pub(super) fn is_closed(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0 && self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, Wish>> {
        // A user's `update` closure never runs under this lock, so a poisoned one holds whole wishes.
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
