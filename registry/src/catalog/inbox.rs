//! How handles and subscriptions reach the catalog's task without waiting for it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::mailbox::Mailbox;
use super::range::{Key, Range};
use crate::name::ServiceName;

/// A subscription that the task has not seen yet.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) ranges: Vec<Range>,
    /// Whose intents it wants; `None` means all.
    pub(super) service: Option<ServiceName>,
    pub(super) mailbox: Mailbox,
}

/// Shared by the task and all handles. It holds no more than there are subscriptions and held instances.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    inner: Mutex<Letters>,
    notify: Notify,
}

/// What is waiting for the task.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) newcomers: Vec<Newcomer>,
    pub(super) released: HashSet<(Range, Key)>,
    /// The last handle is gone.
    pub(super) closed: bool,
}

impl Inbox {
    /// Waits until there may be something. Cancel safe.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> Letters {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = inner.closed;
        Letters { closed, ..std::mem::take(&mut *inner) }
    }

    fn write(&self, write: impl FnOnce(&mut Letters)) {
        write(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }
}

/// What every `Catalog` and every subscription holds; the last one's drop ends the task.
#[derive(Debug)]
pub(super) struct Handle(Arc<Inbox>);

impl Handle {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    pub(super) fn subscribe(&self, newcomer: Newcomer) {
        self.0.write(|letters| letters.newcomers.push(newcomer));
    }

    pub(super) fn release(&self, range: Range, key: Key) {
        self.0.write(|letters| {
            letters.released.insert((range, key));
        });
    }

    /// A subscription is being dropped: the task looks which mailbox has no reader any more.
    pub(super) fn left(&self) {
        self.0.write(|_| {});
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.write(|letters| letters.closed = true);
    }
}
