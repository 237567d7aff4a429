//! The read side: which instances there are, now and as they change.
//!
//! ```text
//! etcd -> wire, stream -> session (pure) -> mailbox -> join (pure) -> Subscription -> resolver, svcctl
//!           ^               |                       range: what is watched; set, guard: what it holds
//!           +---- task <----+ actions
//! ```
//!
//! [`Catalog::watch`] gives a snapshot and then changes; [`Catalog::list`], [`Catalog::get`] and
//! [`Catalog::instances_at`] read once. One process has one watch stream, with one watch for each service that
//! somebody follows, however many do; without followers there is neither.
//!
//! What is promised: a list and the watch behind it leave no gap and no overlap; all changes of one transaction come
//! together; an etcd that is away is not empty: the last known set stays, and its age is told; a store that was wiped
//! or restored is found, and instances that vanish in masses are held for a while; a value that cannot be used harms
//! nothing but itself.

mod entry;
mod event;
mod guard;
mod inbox;
mod join;
mod mailbox;
mod range;
mod read;
mod session;
mod set;
mod stream;
mod subscription;
mod tally;
mod task;
mod wire;

use std::sync::Arc;

pub use entry::{BadEntry, Entry, IntentEntry, PolicyEntry};
pub use event::{CatalogEvent, Change, Changes, Freshness, Selector, Snapshot};
pub use subscription::Subscription;

use self::inbox::{Handle, Inbox, Newcomer};
use self::mailbox::Mailbox;
use self::range::{Range, Scope};
use self::task::Task;
use crate::Error;
use crate::etcd::Etcd;
use crate::name::{InstanceId, Revision, ServiceName};

/// Follows services in etcd. One per process; cheap to clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::StreamExt;
/// use svc_registry::catalog::{Catalog, CatalogEvent, Selector};
/// use svc_registry::{Etcd, ServiceName};
///
/// let catalog = Catalog::new(&Etcd::from_env()?);
/// let mut events = catalog.watch(Selector::service(ServiceName::new("greeter")?));
/// while let Some(event) = events.next().await {
///     match event {
///         CatalogEvent::Snapshot(all) => println!("{} instances", all.instances.len()),
///         CatalogEvent::Changes(step) => println!("{:?}", step.changes),
///         CatalogEvent::Freshness(freshness) => println!("{freshness:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Catalog {
    etcd: Etcd,
    handle: Arc<Handle>,
}

impl Catalog {
    /// A catalog on this etcd. Asks nothing of it before somebody watches.
    pub fn new(etcd: &Etcd) -> Self {
        crate::metrics::describe_catalog();
        let inbox = Arc::new(Inbox::default());
        // Owned by the handles: ends when the last `Catalog` and the last `Subscription` are dropped. Bounded by what
        // is followed; its errors are the subscribers' to see, as `Freshness`.
        etcd.runtime().spawn(Task::new(etcd.clone(), inbox.clone()).run());
        Self { etcd: etcd.clone(), handle: Arc::new(Handle::new(inbox)) }
    }

    /// Follows what the selector means: a [`CatalogEvent::Snapshot`] first, also when there is nothing, then changes.
    /// With etcd away the snapshot comes when it is back.
    pub fn watch(&self, selector: Selector) -> Subscription {
        let (ranges, mailbox) = (selector.ranges(), Mailbox::default());
        let Selector { service, .. } = selector;
        let newcomer = Newcomer { ranges: ranges.clone(), service, mailbox: mailbox.clone() };
        self.handle.subscribe(newcomer);
        Subscription::new(ranges, mailbox, self.handle.clone())
    }

    /// Reads once what the selector means, all of one revision.
    ///
    /// # Errors
    /// When etcd cannot be reached within the command timeout or refuses; the message says which and the remedy.
    pub async fn list(&self, selector: Selector) -> Result<Snapshot, Error> {
        read::list(&self.etcd, &selector, None).await
    }

    /// The same as it was at a revision of the past.
    ///
    /// # Errors
    /// As [`list`](Self::list), and when etcd has compacted that revision or not reached it.
    pub async fn instances_at(&self, selector: Selector, revision: Revision) -> Result<Snapshot, Error> {
        read::list(&self.etcd, &selector, Some(revision)).await
    }

    /// Reads one instance, under whichever root it lies.
    ///
    /// # Errors
    /// As [`list`](Self::list), and when the record that lies there cannot be used.
    pub async fn get(&self, service: &ServiceName, id: &InstanceId) -> Result<Option<Arc<Entry>>, Error> {
        read::get(&self.etcd, service, id).await
    }

    /// Says that the connection to a held instance has ended, so that there is nothing to hold: its removal is
    /// published now. Without effect for one that is present.
    pub fn release(&self, service: &ServiceName, id: &InstanceId) {
        let key = self.etcd.prefix().record(service, id);
        self.handle.release(Range::Records(Scope::Service(service.clone())), key.into_bytes().into());
    }
}

impl Selector {
    /// The ranges that it is made of, the records' first.
    fn ranges(&self) -> Vec<Range> {
        let scope = match &self.service {
            Some(service) => Scope::Service(service.clone()),
            None => Scope::All,
        };
        let mut ranges = vec![Range::Records(scope.clone())];
        if self.draining {
            ranges.push(Range::Draining(scope));
        }
        if self.intents {
            ranges.push(Range::Intents);
        }
        if self.policies {
            ranges.push(Range::Policies);
        }
        ranges
    }

    /// Whether a key of one of its ranges is meant: some ranges are those of all services.
    fn wants(&self, etcd: &Etcd, range: &Range, key: &[u8]) -> bool {
        range.concerns(etcd.prefix(), self.service.as_ref(), key)
    }
}
