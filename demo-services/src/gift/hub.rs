//! Who waits for gifts on this instance, and how far each inbox is: told at once by the courier beside it, and found by a
//! look at the database when another instance has delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::store::{Error, Store};

/// How often the inboxes of those who wait are looked at: what a gift is late by that another instance delivers.
const LOOK: Duration = Duration::from_millis(250);

/// How many inboxes are looked at with one query.
const AT_ONCE: usize = 500;

/// Users who are waited for at once; a query each LOOK for every AT_ONCE of them.
const WATCHES: usize = 10_000;

/// Those who wait; its drop ends the looking.
#[derive(Debug)]
pub(super) struct Hub {
    waiting: Arc<Waiting>,
    task: AbortHandle,
}

/// The newest position that is known of each user's inbox, for those who are watched.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<i64, watch::Sender<i64>>>);

/// One who waits, until its drop.
#[derive(Debug)]
#[must_use = "dropping it ends the waiting"]
pub(super) struct Waiter {
    uid: i64,
    newest: watch::Receiver<i64>,
    waiting: Arc<Waiting>,
}

impl Hub {
    pub(super) fn start(store: Store) -> Hub {
        let waiting = Arc::new(Waiting::default());
        // Owner: the Hub, whose drop aborts it; it does not end otherwise. Bound: WATCHES. Errors are logged, and met again
        // at the next look.
        let task = tokio::spawn(look(store, waiting.clone())).abort_handle();
        Hub { waiting, task }
    }

    /// Says how far a user's inbox is.
    pub(super) fn tell(&self, uid: i64, position: i64) {
        self.waiting.tell(uid, position);
    }

    /// Waits for a user's gifts; `None` where too many wait already.
    pub(super) fn wait(&self, uid: i64) -> Option<Waiter> {
        let mut users = self.waiting.users();
        if users.values().map(watch::Sender::receiver_count).sum::<usize>() >= WATCHES {
            return None;
        }
        let newest = users.entry(uid).or_default().subscribe();
        Some(Waiter { uid, newest, waiting: self.waiting.clone() })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Waiter {
    /// Resolves when the inbox is known to be further than `position`.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub(super) async fn beyond(&mut self, position: i64) {
        // The sender lives in the hub as long as we do.
        let _ = self.newest.wait_for(|&newest| newest > position).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut users = self.waiting.users();
        // Ours is still counted.
        if users.get(&self.uid).is_some_and(|newest| newest.receiver_count() <= 1) {
            users.remove(&self.uid);
        }
    }
}

impl Waiting {
    fn users(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, uid: i64, position: i64) {
        if let Some(newest) = self.users().get(&uid) {
            newest.send_if_modified(|newest| {
                let is_news = position > *newest;
                *newest = position.max(*newest);
                is_news
            });
        }
    }
}

async fn look(store: Store, waiting: Arc<Waiting>) {
    let mut failing = false;
    loop {
        sleep(LOOK).await;
        let uids: Vec<i64> = waiting.users().keys().copied().collect();
        match found(&store, &waiting, &uids).await {
            Ok(()) => failing = false,
            // Once for each time that it stops working.
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "gifts that other instances deliver are not seen for now");
            }
            Err(_) => {}
        }
    }
}

async fn found(store: &Store, waiting: &Waiting, uids: &[i64]) -> Result<(), Error> {
    for uids in uids.chunks(AT_ONCE) {
        for (uid, position) in store.positions(uids).await? {
            waiting.tell(uid, position);
        }
    }
    Ok(())
}
