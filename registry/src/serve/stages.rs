//! How a server stops: one stage after another, each with its limit.
//!
//! ```text
//! Serving --signal--> Notice --1 s--> Grace --20 s, or all closed--> Rest --3 s, or all closed--> Cut
//! ```
//! - Notice: the record says draining and has left clients' sight; health is NOT_SERVING; everything is served.
//! - Grace: no connection is accepted; GOAWAY on each; calls in flight are finished; health streams are ended.
//! - Rest: streams are ended with UNAVAILABLE; other calls may still finish.
//! - Cut: connections are dropped.
//!
//! Each stage has a token that is cancelled when it begins, or a [`Beginning`], so that layers, bodies and sockets can
//! wait for theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio_util::sync::CancellationToken;

/// The limits of the stages of a stop.
///
/// # Defaults
/// 1 s, 20 s, 3 s, and 2 s for the goodbye to etcd. With an etcd that does not answer, which costs the notice twice,
/// that is 27 s together, below the 30 s after which Kubernetes kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// How long clients are given to take note, after the record has left their sight; also how long etcd may take
    /// for that.
    pub notice: Duration,
    /// How long calls in flight may take after GOAWAY.
    pub grace: Duration,
    /// How long the rest may take, streams having been ended.
    pub rest: Duration,
    /// How long the goodbye to etcd may take.
    pub goodbye: Duration,
}

impl Default for Stages {
    fn default() -> Stages {
        Stages {
            notice: Duration::from_secs(1),
            grace: Duration::from_secs(20),
            rest: Duration::from_secs(3),
            goodbye: Duration::from_secs(2),
        }
    }
}

/// The beginning of a stage that the body of every call knows of: neither a clone of it nor a look at it takes a lock,
/// which a token's do, and all calls of a process would share that lock.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    came: Arc<AtomicBool>,
    told: Arc<Notify>,
}

impl Beginning {
    pub(super) fn come(&self) {
        // In this order: whoever begins to wait too late to be told sees it.
        self.came.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(super) fn has_come(&self) -> bool {
        self.came.load(Ordering::Acquire)
    }

    /// Ends when it comes, if that is after this call: whoever waits for it looks first.
    pub(super) fn coming(&self) -> OwnedNotified {
        Arc::clone(&self.told).notified_owned()
    }

    /// Waits until it has come. Cancel safe.
    pub(super) async fn wait(self) {
        let coming = self.coming();
        if !self.has_come() {
            coming.await;
        }
    }
}

/// The beginnings of the stages.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    pub(super) grace: Beginning,
    pub(super) rest: Beginning,
    pub(super) cut: CancellationToken,
    /// All connections are closed.
    pub(super) closed: CancellationToken,
}

impl Stage {
    /// Waits until all connections are closed, at most `limit`.
    pub(super) async fn closed_within(&self, limit: Duration) {
        // Whether they were is asked by the next stage, which ends at once.
        let _ = tokio::time::timeout(limit, self.closed.cancelled()).await;
    }

    /// All stages at once.
    pub(super) fn abort(&self) {
        self.grace.come();
        self.rest.come();
        self.cut.cancel();
    }

    /// GOAWAY, grace, rest, cut; returns when all connections are closed or cut.
    pub(super) async fn wind_down(&self, limits: Stages) {
        self.grace.come();
        self.closed_within(limits.grace).await;
        self.rest.come();
        self.closed_within(limits.rest).await;
        self.cut.cancel();
    }
}

/// Cuts all connections when it is dropped, so that none outlives the server's future.
#[derive(Debug)]
#[must_use]
pub(super) struct CutOnDrop(pub(super) CancellationToken);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
