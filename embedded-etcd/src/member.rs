//! The thin shell around the [node](crate::node): the lock, tokio's clock, and the faults in force.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::journal::Journal;
use crate::node::Node;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::watch::StreamId;

/// How long etcd lets a request wait for a leader: 5 s and two election timeouts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// What goes wrong at the moment. Connections, calls and streams follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Counts starts and stops: what belongs to an earlier one is cut.
    pub(crate) run: u64,
    /// Between a start and the next stop. Otherwise time stands still for leases.
    pub(crate) running: bool,
    /// Counts the times that all streams were dropped.
    pub(crate) dropped: u64,
    /// Counts the times that all watch streams fell silent.
    pub(crate) muted: u64,
    /// Nothing is read or written on any connection.
    pub(crate) frozen: bool,
    pub(crate) leaderless: bool,
    /// Before each call and each answer on a stream.
    pub(crate) delay: Duration,
}

/// The node and where its changes go: one lock, so that they are written in their order.
#[derive(Debug)]
struct Held {
    node: Node,
    journal: Option<Journal>,
}

impl Held {
    /// Writes what was changed before anybody is told of it.
    fn save(&mut self) {
        let records = self.node.take_unsaved();
        let Some(journal) = self.journal.as_mut().filter(|_| !records.is_empty()) else { return };
        let mut result = journal.append(&records);
        if result.is_ok() && journal.has_grown() {
            result = journal.rewrite(&self.node.dump());
        }
        self.check(result);
    }

    /// Writes the whole state anew.
    fn save_all(&mut self) {
        self.node.take_unsaved();
        let Some(journal) = &mut self.journal else { return };
        let result = journal.rewrite(&self.node.dump());
        self.check(result);
    }

    /// After a failed write the end of the file is unknown: nothing more goes there, and everybody who asks for the
    /// status is told.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "embedded etcd: the data folder cannot be written; nothing is stored any more");
            self.node.unsaved_why = Some(error.to_string());
            self.journal = None;
        }
    }
}

/// A node that tasks share.
#[derive(Debug)]
pub(crate) struct Member {
    held: Mutex<Held>,
    expiry_changed: Notify,
    streams: AtomicU64,
    /// Where it listens while it runs.
    pub(crate) addresses: Mutex<Vec<SocketAddr>>,
    pub(crate) faults: watch::Sender<Faults>,
    pub(crate) progress_interval: Duration,
    pub(crate) settings: Settings,
}

impl Member {
    pub(crate) fn new(
        node: Node,
        settings: Settings,
        progress_interval: Duration,
        journal: Option<Journal>,
    ) -> Self {
        let calm = Faults {
            run: 0,
            running: false,
            dropped: 0,
            muted: 0,
            frozen: false,
            leaderless: false,
            delay: Duration::ZERO,
        };
        Self {
            held: Mutex::new(Held { node, journal }),
            expiry_changed: Notify::new(),
            streams: AtomicU64::new(0),
            addresses: Mutex::new(Vec::new()),
            faults: watch::Sender::new(calm),
            progress_interval,
            settings,
        }
    }

    /// Looks at or changes the node, at the present time. What has run out by now is gone before.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Node, Instant) -> T) -> T {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tokio::time::Instant::now().into_std();
        let node = &mut held.node;
        let planned = node.next_expiry();
        let alive = {
            let faults = self.faults.borrow();
            faults.running && !faults.frozen
        };
        // While everything stands still no lease ends; what is overdue then ends when it moves again.
        if alive {
            node.expire(now);
        }
        let result = act(node, now);
        if node.next_expiry() != planned {
            self.expiry_changed.notify_one();
        }
        held.save();
        result
    }

    /// Writes the whole state to the data folder anew, if there is one.
    pub(crate) fn save_all(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).save_all();
    }

    /// Lets go of the data folder, for the next to open it.
    pub(crate) fn close(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).journal = None;
    }

    /// Ends leases when their time is over, for ever.
    pub(crate) async fn expire_leases(&self) {
        let mut faults = self.faults.subscribe();
        loop {
            // Only fails once the sender is gone, and we hold it.
            let _ = faults.wait_for(|faults| !faults.frozen).await;
            let next = self.with(|node, _| node.next_expiry());
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.expiry_changed.notified() => {}
            }
        }
    }

    /// Where it listens, as it tells clients.
    pub(crate) fn urls(&self) -> Vec<String> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().map(|address| format!("http://{address}")).collect()
    }

    /// An id for a stream, never used twice.
    pub(crate) fn stream_id(&self) -> StreamId {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets a call wait, or fail, as the faults in force say.
    pub(crate) async fn admit(&self, metadata: &MetadataMap, needs_leader: bool) -> Result<(), Status> {
        self.delay().await;
        if !self.faults.borrow().leaderless {
            return Ok(());
        }
        if requires_leader(metadata) {
            return Err(Refusal::NoLeader.into());
        }
        if needs_leader {
            let mut faults = self.faults.subscribe();
            let elected = faults.wait_for(|faults| !faults.leaderless);
            tokio::time::timeout(REQUEST_TIMEOUT, elected).await.map_err(|_| Refusal::TimedOut)?.ok();
        }
        Ok(())
    }

    pub(crate) async fn delay(&self) {
        let delay = self.faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Resolves when the streams that are open now have to end, with the reason.
    pub(crate) async fn streams_end(&self, requires_leader: bool) -> Status {
        let mut faults = self.faults.subscribe();
        let begun = faults.borrow_and_update().clone();
        let ended = faults
            .wait_for(|now| {
                now.run != begun.run || now.dropped != begun.dropped || now.leaderless && requires_leader
            })
            .await;
        match ended {
            Ok(now) if now.run == begun.run && now.dropped == begun.dropped => Refusal::NoLeader.into(),
            _ => Refusal::Stopped.into(),
        }
    }
}

/// Whether the client wants an error rather than a node that has lost its leader.
pub(crate) fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}
