//! The thin loop: carries events to the session and its actions to etcd and to the subscribers.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::inbox::{Inbox, Newcomer};
use super::mailbox::Mailbox;
use super::range::Range;
use super::session::{Action, Event, Refusal, Session};
use super::set::Delta;
use super::stream::{Request, Stream};
use super::tally::Shown;
use super::wire;
use crate::etcd::Etcd;
use crate::keys::Prefix;
use crate::metrics::{CHANGES, HEARD, LISTS, STREAMS};
use crate::name::{Revision, ServiceName};

struct Subscriber {
    mailbox: Mailbox,
    ranges: Vec<Range>,
    /// Of the ranges of all services it wants the keys of this one; of all if `None`.
    service: Option<ServiceName>,
    prefix: Prefix,
}

pub(super) struct Task {
    etcd: Etcd,
    inbox: Arc<Inbox>,
    session: Session,
    subscribers: HashMap<u64, Subscriber>,
    /// Who follows a range: its reference count, and where its differences go.
    followers: HashMap<Range, Vec<u64>>,
    /// What dashboards see of each range that is followed.
    shown: HashMap<Range, Shown>,
    last_subscriber: u64,
    /// Reads under way: at most one list and one anchor a range, and one of the revision.
    reads: JoinSet<Event>,
    stream: Stream,
}

impl Task {
    pub(super) fn new(etcd: Etcd, inbox: Arc<Inbox>) -> Self {
        let session = Session::new(etcd.prefix().clone(), fastrand::u64(..));
        Self {
            etcd,
            inbox,
            session,
            subscribers: HashMap::new(),
            followers: HashMap::new(),
            shown: HashMap::new(),
            last_subscriber: 0,
            reads: JoinSet::new(),
            stream: Stream::None,
        }
    }

    /// Runs until the last handle is dropped; what is under way then is dropped with it.
    pub(super) async fn run(mut self) {
        loop {
            let timer = self.session.next_timer();
            // Fair: every branch is short, and none may starve the others.
            let event = tokio::select! {
                () = self.inbox.notified() => {
                    if self.read_inbox() {
                        return;
                    }
                    continue;
                }
                event = self.stream.next(&self.etcd) => event,
                Some(read) = self.reads.join_next() => match read {
                    Ok(event) => event,
                    Err(panic) => {
                        tracing::error!(%panic, "a read of the catalog ended unexpectedly");
                        continue;
                    }
                },
                () = sleep_until(timer) => Event::Timer,
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        if event.is_heard() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics::gauge!(HEARD).set(now.as_secs_f64());
        }
        for action in self.session.handle(event, Instant::now()) {
            self.perform(action);
        }
    }

    /// `true`: the last handle is gone.
    fn read_inbox(&mut self) -> bool {
        let letters = self.inbox.take();
        for newcomer in letters.newcomers {
            self.welcome(newcomer);
        }
        for (range, key) in letters.released {
            self.handle(Event::Release { range, key });
        }
        let abandoned = self.subscribers.iter().filter(|(_, s)| s.mailbox.is_abandoned()).map(|(id, _)| *id);
        for id in abandoned.collect::<Vec<_>>() {
            self.leave(id);
        }
        letters.closed
    }

    fn welcome(&mut self, newcomer: Newcomer) {
        let Newcomer { ranges, service, mailbox } = newcomer;
        self.last_subscriber += 1;
        let id = self.last_subscriber;
        for range in &ranges {
            self.followers.entry(range.clone()).or_default().push(id);
            self.shown.entry(range.clone()).or_insert_with(|| Shown::new(range));
        }
        let prefix = self.etcd.prefix().clone();
        let subscriber = Subscriber { mailbox, ranges: ranges.clone(), service, prefix };
        for range in &ranges {
            if let Some((revision, seen)) = self.session.known(range) {
                let seen = seen.filter(|(key, _)| subscriber.wants(range, key));
                subscriber.mailbox.seed(range, revision, seen);
            }
            if let Some(freshness) = self.session.freshness(range) {
                subscriber.mailbox.tell(range, freshness);
            }
        }
        self.subscribers.insert(id, subscriber);
        for range in ranges {
            self.handle(Event::Subscribe(range));
        }
    }

    fn leave(&mut self, id: u64) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        for range in subscriber.ranges {
            let Some(followers) = self.followers.get_mut(&range) else { continue };
            followers.retain(|follower| *follower != id);
            if followers.is_empty() {
                self.followers.remove(&range);
                self.shown.remove(&range);
                self.handle(Event::Unsubscribe(range));
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::List { range, ticket, at, after, limit, drained } => {
                if after.is_none() {
                    let list = if self.session.known(&range).is_some() { "again" } else { "first" };
                    metrics::counter!(LISTS, "list" => list).increment(1);
                }
                let etcd = self.etcd.clone();
                self.reads.spawn(async move {
                    let page = async {
                        let mut page = wire::page(&etcd, &range, at, after, limit).await?;
                        if drained {
                            page.drained = wire::drained(&etcd, &range, page.header.revision).await?;
                        }
                        Ok(page)
                    };
                    let page = page.await.map_err(|e| refused(&etcd, "listing", &range, e));
                    Event::Listed { range, ticket, page }
                });
            }
            Action::Verify { ticket } => {
                let etcd = self.etcd.clone();
                self.reads.spawn(async move {
                    let header = wire::verify(&etcd).await;
                    let header = header.map_err(|e| wire::refusal(&etcd, "reading the revision", e));
                    Event::Verified { ticket, header }
                });
            }
            Action::ReadAnchor { range, ticket, at, anchor } => {
                let etcd = self.etcd.clone();
                self.reads.spawn(async move {
                    let found = wire::anchor(&etcd, &range, at, &anchor).await;
                    let found = found.map_err(|e| refused(&etcd, "checking", &range, e));
                    Event::Anchored { range, ticket, found }
                });
            }
            Action::Open { stream, watch } => {
                metrics::counter!(STREAMS).increment(1);
                let etcd = self.etcd.clone();
                let opening = Box::pin(async move { wire::open(&etcd, &watch).await });
                let generation = self.etcd.token_generation();
                self.stream = Stream::Opening { number: stream, stream: opening, generation };
            }
            Action::Create(create) => self.stream.say(Request::Create(create)),
            Action::Cancel { id } => self.stream.say(Request::Cancel(id)),
            Action::AskProgress => self.stream.say(Request::Progress),
            Action::Close => self.stream = Stream::None,
            Action::Publish { range, revision, deltas } => {
                metrics::counter!(CHANGES).increment(deltas.len() as u64);
                if let Some(shown) = self.shown.get_mut(&range) {
                    shown.counts(self.session.tally(&range));
                }
                for subscriber in self.followers_of(&range) {
                    subscriber.put(&range, revision, &deltas);
                }
            }
            Action::Tell { range, freshness } => {
                if let Some(shown) = self.shown.get_mut(&range) {
                    shown.is(&freshness);
                }
                for subscriber in self.followers_of(&range) {
                    subscriber.mailbox.tell(&range, freshness.clone());
                }
            }
            Action::Log(Some(reason)) => {
                tracing::warn!(%reason, "the catalog cannot follow etcd; the last known instances stay");
            }
            Action::Log(None) => tracing::info!("the catalog follows etcd again"),
        }
    }

    fn followers_of(&self, range: &Range) -> impl Iterator<Item = &Subscriber> {
        let ids = self.followers.get(range).into_iter().flatten();
        ids.filter_map(|id| self.subscribers.get(id))
    }
}

impl Drop for Task {
    /// However the task ends, no subscriber waits for ever.
    fn drop(&mut self) {
        for subscriber in self.subscribers.values() {
            subscriber.mailbox.close();
        }
    }
}

impl Subscriber {
    fn wants(&self, range: &Range, key: &[u8]) -> bool {
        range.concerns(&self.prefix, self.service.as_ref(), key)
    }

    fn put(&self, range: &Range, revision: Revision, deltas: &[Delta]) {
        if range.is_shared() {
            let wanted: Vec<Delta> = deltas.iter().filter(|d| self.wants(range, &d.key)).cloned().collect();
            self.mailbox.put(range, revision, &wanted);
        } else {
            self.mailbox.put(range, revision, deltas);
        }
    }
}

fn refused(etcd: &Etcd, doing: &str, range: &Range, error: etcd_client::Error) -> Refusal {
    wire::refusal(etcd, &format!("{doing} {}", range.prefix(etcd.prefix())), error)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
