//! [`EtcdDiscover`]: the tower `Discover` over the catalog.
//!
//! In come the catalog's events, through the filter; out go inserts and removals, made into what the consumer balances
//! over. The catalog's own task moves it, whether requests come or not; a consumer that is slow finds the latest state,
//! not a backlog.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use svc_channel::{Resolution, ServiceConfig};
use svc_registry::catalog::{CatalogEvent, Change, Freshness, Subscription};
use tokio::sync::watch;
use tokio::time::Sleep;
use tower::discover::Change as Discovered;

use crate::filter::{Difference, Filter};
use crate::live::Live;
use crate::resolved::{InstanceKey, MakeEndpoint, Resolved};

/// How long an unreachable etcd may leave discovery without a first answer before that counts as one: a little less
/// than the 5 s for which a channel's calls wait for it, so that they fail with the reason.
const FIRST_ANSWER: Duration = Duration::from_secs(4);

/// A tower `Discover` over the instances of a service: a stream of inserts and removals that never ends and never errs.
///
/// Made by [`Resolver::discover`](crate::Resolver::discover). What is made of an instance, and whether the consumer
/// takes updates in place, is its [`MakeEndpoint`]'s to say.
///
/// # Cancel safety
/// Nothing is lost when a `next()` on it is dropped.
pub struct EtcdDiscover<M: MakeEndpoint> {
    /// What is followed, for logs.
    target: String,
    feed: Feed,
    filter: Filter,
    make: M,
    /// What the consumer has, as it was last told.
    told: HashMap<InstanceKey, Resolved>,
    changes: VecDeque<Discovered<InstanceKey, M::Service>>,
    freshness: Freshness,
    /// Something is to be said of discovery itself, once all changes before it have been handed over.
    news: bool,
    resolution: watch::Sender<Resolution>,
    live: Live,
    /// Runs until the first answer.
    patience: Option<Pin<Box<Sleep>>>,
}

pub(crate) enum Feed {
    Catalog(Box<Subscription>),
    /// A list that does not change; nothing comes after it.
    Fixed(Option<Vec<Resolved>>),
}

impl<M: MakeEndpoint> EtcdDiscover<M> {
    pub(crate) fn new(target: String, feed: Feed, filter: Filter, make: M) -> Self {
        Self {
            live: Live::new(target.clone()),
            target,
            feed,
            filter,
            make,
            told: HashMap::new(),
            changes: VecDeque::new(),
            freshness: Freshness::Live,
            news: false,
            resolution: watch::Sender::new(Resolution::Pending),
            patience: None,
        }
    }

    /// What discovery says of itself, beside the changes: for
    /// [`ChannelBuilder::resolution`](svc_channel::ChannelBuilder::resolution). It moves as this is polled.
    pub fn resolution(&self) -> watch::Receiver<Resolution> {
        self.resolution.subscribe()
    }

    /// The service config that operators put into etcd, as it changes. It moves as this is polled.
    pub(crate) fn service_config(&self) -> watch::Receiver<Option<ServiceConfig>> {
        self.live.configs()
    }

    /// The next thing that happened, turned into changes; pending while nothing did.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let event = match &mut self.feed {
            Feed::Fixed(instances) => {
                let Some(instances) = instances.take() else { return Poll::Pending };
                self.news = true;
                instances.into_iter().for_each(|instance| self.insert(instance));
                return Poll::Ready(());
            }
            Feed::Catalog(events) => match Pin::new(&mut **events).poll_next(cx) {
                Poll::Ready(Some(event)) => event,
                // The runtime is ending; until it has, what is known stays.
                Poll::Ready(None) => return Poll::Pending,
                Poll::Pending => return self.poll_patience(cx),
            },
        };
        let differences = match event {
            CatalogEvent::Snapshot(snapshot) => {
                // It says more than impatience did; should it still be stale, that comes next.
                (self.patience, self.freshness) = (None, Freshness::Live);
                snapshot.policies.iter().for_each(|policy| self.live.put(policy));
                self.filter.start(snapshot)
            }
            CatalogEvent::Changes(step) => {
                for change in &step.changes {
                    match change {
                        Change::Policy(policy) => self.live.put(policy),
                        Change::PolicyGone(_) => self.live.delete(),
                        _ => {}
                    }
                }
                self.filter.apply(step.changes)
            }
            CatalogEvent::Freshness(freshness) => {
                self.freshness = freshness;
                Vec::new()
            }
        };
        for difference in differences {
            match difference {
                Difference::Use(instance) => self.insert(instance),
                Difference::Drop(key) => self.remove(key),
            }
        }
        self.news = true;
        Poll::Ready(())
    }

    /// Without a first answer: etcd's refusal counts as one at once, its absence after a while.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Feed::Catalog(events) = &self.feed else { return Poll::Pending };
        if *self.resolution.borrow() != Resolution::Pending {
            return Poll::Pending;
        }
        let Some(freshness @ Freshness::Stale { denied, .. }) = events.freshness() else {
            return Poll::Pending;
        };
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(FIRST_ANSWER)));
        if *denied || patience.as_mut().poll(cx).is_ready() {
            self.freshness = freshness.clone();
            self.news = true;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn describe(&self) -> Resolution {
        match &self.freshness {
            Freshness::Live => Resolution::Live { known: self.told.len() },
            Freshness::Stale { since, reason, .. } => {
                Resolution::Stale { since: *since, reason: Arc::clone(reason) }
            }
        }
    }

    fn insert(&mut self, instance: Resolved) {
        let key = instance.key.clone();
        let moved = match self.told.get(&key) {
            Some(told) if !M::UPDATES_IN_PLACE && told.address == instance.address => {
                self.told.insert(key, instance);
                return;
            }
            Some(_) => !M::UPDATES_IN_PLACE,
            None => false,
        };
        match self.make.make(&instance) {
            Ok(service) => {
                if moved {
                    self.changes.push_back(Discovered::Remove(key.clone()));
                }
                self.changes.push_back(Discovered::Insert(key.clone(), service));
                self.told.insert(key, instance);
            }
            Err(error) => {
                tracing::warn!(target = self.target, instance = %key, %error, "an instance cannot be used");
                self.remove(key);
            }
        }
    }

    fn remove(&mut self, key: InstanceKey) {
        if self.told.remove(&key).is_some() {
            self.changes.push_back(Discovered::Remove(key));
        }
    }
}

/// Nothing in it is pinned in place.
impl<M: MakeEndpoint> Unpin for EtcdDiscover<M> {}

impl<M: MakeEndpoint> Stream for EtcdDiscover<M> {
    type Item = Result<Discovered<InstanceKey, M::Service>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            if std::mem::take(&mut self.news) {
                self.resolution.send_replace(self.describe());
            }
            if self.poll_feed(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<M: MakeEndpoint> fmt::Debug for EtcdDiscover<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdDiscover")
            .field("target", &self.target)
            .field("told", &self.told.len())
            .field("resolution", &*self.resolution.borrow())
            .finish_non_exhaustive()
    }
}
