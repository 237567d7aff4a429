//! What a subscriber of the catalog sees: a snapshot first, then changes, and how fresh both are.

use std::sync::Arc;

use tokio::time::Instant;

use super::entry::{BadEntry, Entry, IntentEntry, PolicyEntry};
use crate::name::{Revision, ServiceName};

/// What is followed: one service or all, and what of it.
///
/// ```
/// use svc_registry::ServiceName;
/// use svc_registry::catalog::Selector;
/// let clients = Selector::service(ServiceName::new("greeter")?);
/// let tools = Selector::all().with_draining().with_intents();
/// # Ok::<(), svc_registry::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    pub(super) service: Option<ServiceName>,
    pub(super) draining: bool,
    pub(super) intents: bool,
    pub(super) policies: bool,
}

impl Selector {
    /// The instances of one service that take new work: one watch in etcd, shared by all who follow it.
    pub fn service(service: ServiceName) -> Self {
        Self { service: Some(service), draining: false, intents: false, policies: false }
    }

    /// Those of all services.
    pub fn all() -> Self {
        Self { service: None, draining: false, intents: false, policies: false }
    }

    /// Also those that drain or have drained: a second watch, for tools.
    #[must_use]
    pub fn with_draining(self) -> Self {
        Self { draining: true, ..self }
    }

    /// Also the operators' drain intents: one watch for the whole process.
    #[must_use]
    pub fn with_intents(self) -> Self {
        Self { intents: true, ..self }
    }

    /// Also how operators want clients to behave: one watch for the whole process.
    #[must_use]
    pub fn with_policies(self) -> Self {
        Self { policies: true, ..self }
    }
}

/// One step of a subscription.
#[derive(Debug, Clone)]
pub enum CatalogEvent {
    /// Everything, once, at the beginning; also when there is nothing.
    Snapshot(Snapshot),
    /// What changed since the event before. All changes of one etcd transaction under one root come together; a
    /// subscriber that is slow gets several steps as one, never a backlog.
    Changes(Changes),
    /// etcd went away, or came back. What is known stays.
    Freshness(Freshness),
}

/// A service, or all, at a revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The store's revision that it is of; of several ranges the lowest.
    pub revision: Revision,
    /// The instances, by service and id; one entry per id.
    pub instances: Vec<Arc<Entry>>,
    /// What has vanished in masses and is not given up yet. Not present, and of use to clients only.
    pub held: Vec<(Arc<Entry>, Instant)>,
    /// The drain intents, if they were asked for.
    pub intents: Vec<Arc<IntentEntry>>,
    /// The live service configs, if they were asked for.
    pub policies: Vec<Arc<PolicyEntry>>,
    /// Keys whose values cannot be used.
    pub bad: Vec<Arc<BadEntry>>,
}

/// What changed, in one step.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The highest revision that is in it.
    pub revision: Revision,
    /// The changes, at most one for each key.
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An instance that was not there.
    Added(Arc<Entry>),
    /// An instance whose record or lease changed; a move between the two roots is one of these.
    Modified(Arc<Entry>),
    /// An instance is gone; its last record.
    Removed(Arc<Entry>),
    /// An instance is gone from etcd together with most others, which nobody may have meant: a client keeps it while
    /// its connection lives, until then at most; for everybody else it is gone. `Removed` follows, or `Added` when it is back.
    Held(Arc<Entry>, Instant),
    /// An operator wishes this.
    Intent(Arc<IntentEntry>),
    /// An operator's wish is taken back.
    IntentGone(Arc<IntentEntry>),
    /// An operator wants the service's clients to behave so.
    Policy(Arc<PolicyEntry>),
    /// As they were built, from here on.
    PolicyGone(Arc<PolicyEntry>),
    /// A key whose value cannot be used appeared or changed. An instance that was there under it is gone.
    Bad(Arc<BadEntry>),
    /// A bad key is gone, or good again.
    BadGone(Arc<BadEntry>),
}

/// Whether what is known is what etcd holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// The watch runs: a change in etcd is here within milliseconds.
    Live,
    /// etcd cannot be reached, or refuses: the last known set stays.
    Stale {
        /// Since when.
        since: Instant,
        /// What etcd or the connection said.
        reason: Arc<str>,
        /// etcd can be reached and refuses: the user lacks a permission.
        denied: bool,
    },
}
