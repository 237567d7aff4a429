//! [`Front`]: what calls share with the owner. The owner publishes the snapshot that calls read, and calls wake it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::DropGuard;

use crate::admission::Admission;
use crate::attempt::budget::Budget;
use crate::metrics;
use crate::owner::idle::Mark;
use crate::owner::snapshot::Snapshot;
use crate::subchannel::slots::SlotFreed;

/// What keeps the owner at work: the channel's clones, and its calls until they are answered (`oneshot` drops the
/// channel as soon as it has called it). The last one's drop ends the owner.
pub(crate) struct Handle {
    front: Arc<Front>,
    _end: DropGuard,
}

impl Handle {
    pub(crate) fn new(front: Arc<Front>, end: DropGuard) -> Self {
        Self { front, _end: end }
    }
}

impl Deref for Handle {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

/// What calls share with the owner.
pub(crate) struct Front {
    /// The channel's name in errors and dumps.
    pub(crate) name: Arc<str>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) admission: Admission,
    pub(crate) replay: Arc<Budget>,
    /// `None` where calls are not measured.
    pub(crate) metrics: Option<metrics::Methods>,
    pub(crate) subchannels: Arc<metrics::subchannel::Subchannels>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Woken at each publication, for calls that wait.
    pub(crate) published: Notify,
    pub(crate) slot_freed: Arc<SlotFreed>,
    pub(crate) state: watch::Sender<ConnectivityState>,
    /// Where there is an idle timeout.
    pub(crate) mark: Option<Mark>,
}

impl Front {
    /// Somebody needs the channel.
    pub(crate) fn wake(&self) {
        if let Some(mark) = &self.mark {
            mark.wake();
        }
    }

    /// Shows calls something new, and wakes those that wait.
    pub(crate) fn publish(&self, snapshot: Snapshot, state: ConnectivityState) {
        self.snapshot.store(Arc::new(snapshot));
        self.published.notify_waiters();
        self.state.send_if_modified(|s| std::mem::replace(s, state) != state);
    }
}

/// The channel as a whole, in gRPC's words (gRPC "Connectivity Semantics and API").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub enum ConnectivityState {
    /// There was no call for the idle timeout: nothing is connected. The next call, or [`Channel::connect`](crate::Channel::connect), wakes it.
    Idle,
    /// No endpoint is ready yet; some are being connected, or discovery has not answered.
    Connecting,
    /// At least one endpoint is ready.
    Ready,
    /// No endpoint can be reached, or there is none; it is tried again and again.
    TransientFailure,
}
