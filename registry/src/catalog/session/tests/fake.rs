//! An etcd as a value, and what carries a session's actions to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::*;
use crate::catalog::entry::Item;
use crate::catalog::range::{Kv, Scope};
use crate::catalog::set::Anchor;
use crate::etcd::Failure;
use crate::name::{LeaseId, ServiceName};

/// Ranges 0 and 1 are a tool's, of all services; range 2 is a client's, of one, and guarded.
pub(super) fn range(n: u16) -> Range {
    match n {
        0 => Range::Records(Scope::All),
        1 => Range::Draining(Scope::All),
        _ => Range::Records(Scope::Service(ServiceName::new("guarded").unwrap())),
    }
}

/// Keys 10 to 19 are in range 1, 20 to 29 in range 2 and with all others in range 0.
pub(super) fn key(n: u16) -> Key {
    let service = if (20..30).contains(&n) { "guarded" } else { "greeter" };
    let root = if (10..20).contains(&n) { "/services-draining" } else { "/services" };
    format!("{root}/{service}/i-{n}").into_bytes().into()
}

type Value = Option<(String, i64)>;

/// A store with its whole past.
#[derive(Debug)]
pub(super) struct Fake {
    log: Vec<BTreeMap<Key, Value>>,
    compacted: i64,
    pub(super) cluster: u64,
    pub(super) term: u64,
    /// The lease of every key.
    lease: i64,
    pub(super) away: bool,
    /// Keys in a page at most.
    pub(super) page: usize,
    /// Keys in an answer at most; more is too large.
    pub(super) largest: usize,
    /// Events in a fragment.
    pub(super) fragment: usize,
}

impl Default for Fake {
    fn default() -> Self {
        let most = usize::MAX;
        Self {
            log: vec![],
            compacted: 0,
            cluster: 1,
            term: 2,
            lease: 1,
            away: false,
            page: most,
            largest: most,
            fragment: most,
        }
    }
}

impl Fake {
    /// An empty store whose keys will have this lease.
    fn leasing(lease: i64) -> Self {
        Self { lease, ..Self::default() }
    }

    fn revision(&self) -> i64 {
        self.log.len() as i64
    }

    pub(super) fn header(&self) -> Header {
        Header { cluster: self.cluster, term: self.term, revision: Revision(self.revision()) }
    }

    pub(super) fn put(&mut self, n: u16, value: &str) {
        let created =
            self.at(self.revision()).get(&key(n)).map_or(self.revision() + 1, |(_, created, _)| *created);
        self.log.push(BTreeMap::from([(key(n), Some((value.to_owned(), created)))]));
    }

    pub(super) fn delete(&mut self, n: u16) {
        if self.at(self.revision()).contains_key(&key(n)) {
            self.log.push(BTreeMap::from([(key(n), None)]));
        }
    }

    /// As a revoke does: all in one revision.
    pub(super) fn delete_all(&mut self) {
        let keys = self.at(self.revision());
        self.log.push(keys.into_keys().map(|key| (key, None)).collect());
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision();
    }

    /// Value, create and mod revision of every key at a revision.
    pub(super) fn at(&self, revision: i64) -> BTreeMap<Key, (String, i64, i64)> {
        let mut keys = BTreeMap::new();
        for (changes, modified) in self.log.iter().zip(1..=revision) {
            for (key, value) in changes {
                match value {
                    Some((value, created)) => keys.insert(key.clone(), (value.clone(), *created, modified)),
                    None => keys.remove(key),
                };
            }
        }
        keys
    }

    fn read(&self, at: Option<Revision>) -> Result<BTreeMap<Key, (String, i64, i64)>, Refusal> {
        match at.map_or(self.revision(), |r| r.0) {
            _ if self.away => Err(refusal(Failure::Unreachable)),
            at if at > self.revision() => Err(refusal(Failure::FutureRevision)),
            at if at < self.compacted => Err(refusal(Failure::Compacted)),
            at => Ok(self.at(at)),
        }
    }

    fn kv(&self, key: &Key, value: &str, created: i64, modified: i64) -> Kv {
        let value =
            format!(r#"{{"state":"serving","address":"h-{}:1","version":"{value}"}}"#, key.len() + hash(key));
        let (created, modified) = (Revision(created), Revision(modified));
        Kv { key: key.clone(), value: value.into(), lease: LeaseId(self.lease), created, modified }
    }

    /// The events from a revision on, one list for each revision.
    fn events(&self, range: &Range, from: i64) -> Vec<(i64, Vec<KeyEvent>)> {
        let prefix = range.prefix(&Prefix::default()).into_bytes();
        let revisions = self.log.iter().zip(1..).filter(|(_, at)| *at >= from);
        let events = revisions.map(|(changes, at)| {
            let mine = changes.iter().filter(|(key, _)| key.starts_with(&prefix));
            let event = |(key, value): (&Key, &Value)| match value {
                Some((value, created)) => KeyEvent::Put(self.kv(key, value, *created, at)),
                None => KeyEvent::Delete { key: key.clone(), at: Revision(at) },
            };
            (at, mine.map(event).collect())
        });
        events.filter(|(_, events): &(_, Vec<_>)| !events.is_empty()).collect()
    }
}

/// Each key has an address of its own.
fn hash(key: &Key) -> usize {
    key.iter().fold(0, |sum, byte| (sum * 31 + usize::from(*byte)) % 1_000_000_007)
}

/// What a subscriber sees of a record.
fn shown(version: &str, lease: i64) -> String {
    format!("{version} under {lease}")
}

pub(super) fn refusal(failure: Failure) -> Refusal {
    Refusal { failure, reason: format!("{failure:?}").into() }
}

/// A session, its etcd, and what has been seen of both.
pub(super) struct Sim {
    pub(super) session: Session,
    pub(super) etcd: Fake,
    pub(super) now: Instant,
    reads: VecDeque<Action>,
    stream: Option<u64>,
    /// Watches that are asked for are not answered.
    mute: bool,
    /// Each watch of the stream: its range and where it is.
    watchers: BTreeMap<i64, (Range, i64)>,
    /// How many events of a watch's next revision were said in fragments.
    said: HashMap<i64, usize>,
    /// What subscribers see: the version of each key, or that it is held.
    mirrors: HashMap<Range, BTreeMap<Key, Option<String>>>,
    pub(super) lists: Vec<Option<i64>>,
    pub(super) limits: Vec<i64>,
    pub(super) creates: Vec<Create>,
    pub(super) opened: usize,
    pub(super) published: usize,
    pub(super) differences: usize,
    pub(super) held: usize,
    pub(super) progress_asked: usize,
    pub(super) actions: usize,
    pub(super) logs: usize,
}

impl Sim {
    pub(super) fn new() -> Self {
        Self {
            session: Session::new(Prefix::default(), 7),
            etcd: Fake::default(),
            now: Instant::now(),
            reads: VecDeque::new(),
            stream: None,
            mute: false,
            watchers: BTreeMap::new(),
            said: HashMap::new(),
            mirrors: HashMap::new(),
            lists: vec![],
            limits: vec![],
            creates: vec![],
            opened: 0,
            published: 0,
            differences: 0,
            held: 0,
            progress_asked: 0,
            actions: 0,
            logs: 0,
        }
    }

    /// One that follows range 0 of an empty store.
    pub(super) fn following() -> Self {
        let mut sim = Self::new();
        sim.subscribe(range(0));
        sim.settle();
        sim
    }

    pub(super) fn subscribe(&mut self, range: Range) {
        self.event(Event::Subscribe(range));
    }

    pub(super) fn unsubscribe(&mut self, range: Range) {
        self.mirrors.remove(&range);
        self.event(Event::Unsubscribe(range));
    }

    pub(super) fn event(&mut self, event: Event) {
        for action in self.session.handle(event, self.now) {
            self.actions += 1;
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::List { at, limit, .. } => {
                self.lists.push(at.map(|r| r.0));
                self.limits.push(limit);
                self.reads.push_back(action);
            }
            Action::Verify { .. } | Action::ReadAnchor { .. } => self.reads.push_back(action),
            Action::Open { stream, ref watch } => {
                self.opened += 1;
                self.creates.push(watch.clone());
                self.reads.push_back(Action::Open { stream, watch: watch.clone() });
            }
            Action::Create(create) => {
                assert!(self.stream.is_some(), "a watch is asked for on an open stream only");
                self.creates.push(create.clone());
                self.create(create);
            }
            Action::Cancel { id } => {
                self.watchers.remove(&id);
            }
            Action::AskProgress => self.progress_asked += 1,
            Action::Close => {
                self.stream = None;
                self.watchers.clear();
                self.said.clear();
                self.reads.retain(|read| !matches!(read, Action::Open { .. }));
            }
            Action::Publish { range, deltas, .. } => self.publish(range, deltas),
            Action::Tell { .. } => {}
            Action::Log(_) => self.logs += 1,
        }
    }

    fn publish(&mut self, range: Range, deltas: Vec<Delta>) {
        self.published += 1;
        self.differences += deltas.len();
        let mirror = self.mirrors.entry(range).or_default();
        for Delta { key, was_seen, now } in deltas {
            assert_eq!(was_seen, mirror.contains_key(&key), "a difference says whether its key was seen");
            let next = now.map(|seen| match (seen.held_until, seen.item) {
                (None, Item::Record(entry)) => {
                    entry.record.version.as_deref().map(|version| shown(version, entry.lease.0))
                }
                _ => None,
            });
            assert_ne!(next.as_ref(), mirror.get(&key), "only differences are published");
            match next {
                Some(next) => mirror.insert(key, next),
                None => mirror.remove(&key),
            };
        }
        self.held = self.mirrors.values().flat_map(BTreeMap::values).filter(|v| v.is_none()).count();
    }

    fn create(&mut self, create: Create) {
        let Some(stream) = self.stream.filter(|_| !self.mute) else { return };
        if create.start.0 <= self.etcd.compacted {
            let refusal = Refusal { failure: Failure::Compacted, reason: "compacted".into() };
            let canceled = Some(Canceled { compacted: true, refusal });
            self.say(stream, Response { id: create.id, created: true, canceled, ..Response::default() });
        } else {
            self.watchers.insert(create.id, (create.range, create.start.0));
            self.say(stream, Response { id: create.id, created: true, ..Response::default() });
        }
    }

    pub(super) fn say(&mut self, stream: u64, response: Response) {
        self.event(Event::Response { stream, response });
    }

    /// Carries out the oldest read; `false` if there is none.
    pub(super) fn read_one(&mut self) -> bool {
        let Some(read) = self.reads.pop_front() else { return false };
        match read {
            Action::List { range, ticket, at, after, limit, .. } => {
                let page = self.page(&range, at, after, limit);
                self.event(Event::Listed { range, ticket, page });
            }
            Action::Verify { ticket } => {
                let header =
                    if self.etcd.away { Err(refusal(Failure::Unreachable)) } else { Ok(self.etcd.header()) };
                self.event(Event::Verified { ticket, header });
            }
            Action::ReadAnchor { range, ticket, at, anchor } => {
                let found = self.etcd.read(Some(at)).map(|keys| self.find(&keys, &range, &anchor));
                self.event(Event::Anchored { range, ticket, found });
            }
            Action::Open { stream, .. } if self.etcd.away => {
                self.event(Event::Ended { stream, refusal: refusal(Failure::Unreachable) });
            }
            Action::Open { stream, watch } => {
                self.stream = Some(stream);
                self.event(Event::Opened { stream, member: "fake".into() });
                self.create(watch);
            }
            _ => {}
        }
        true
    }

    fn page(
        &self,
        range: &Range,
        at: Option<Revision>,
        after: Option<Key>,
        limit: i64,
    ) -> Result<Page, Refusal> {
        let keys = self.etcd.read(at)?;
        let prefix = range.prefix(&Prefix::default()).into_bytes();
        let after = after.unwrap_or_else(|| prefix.clone().into());
        let rest: Vec<_> = keys.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
        let limit = if limit == 0 { rest.len() } else { self.etcd.page.min(limit as usize) };
        let page = &rest[..limit.min(rest.len())];
        if page.len() > self.etcd.largest {
            return Err(refusal(Failure::TooLarge));
        }
        let kvs = page
            .iter()
            .map(|(key, (value, created, modified))| self.etcd.kv(key, value, *created, *modified))
            .collect();
        Ok(Page { header: self.etcd.header(), kvs, more: page.len() < rest.len(), drained: vec![] })
    }

    fn find(&self, keys: &BTreeMap<Key, (String, i64, i64)>, range: &Range, anchor: &Anchor) -> Anchor {
        let prefix = range.prefix(&Prefix::default()).into_bytes();
        let found = match anchor {
            Anchor::Newest { key, .. } => keys.get_key_value(key),
            Anchor::Empty => keys.iter().find(|(key, _)| key.starts_with(&prefix)),
        };
        match found {
            None => Anchor::Empty,
            Some((key, (_, created, modified))) => Anchor::Newest {
                key: key.clone(),
                lease: LeaseId(self.etcd.lease),
                created: Revision(*created),
                modified: Revision(*modified),
            },
        }
    }

    /// Lets the stream say one thing, if there is anything to say.
    pub(super) fn hear_one(&mut self) -> bool {
        let Some(stream) = self.stream.filter(|_| !self.etcd.away) else { return false };
        for (id, (range, next)) in self.watchers.clone() {
            if let Some((at, mut events)) = self.etcd.events(&range, next).into_iter().next() {
                let said = self.said.get(&id).copied().unwrap_or(0);
                let rest = events.split_off(said.min(events.len()));
                let now: Vec<_> = rest.iter().take(self.etcd.fragment).cloned().collect();
                let fragment = now.len() < rest.len();
                if fragment {
                    self.said.insert(id, said + now.len());
                } else {
                    self.said.remove(&id);
                    self.watchers.insert(id, (range, at + 1));
                }
                self.say(stream, Response { id, fragment, events: now, ..Response::default() });
                return true;
            }
        }
        false
    }

    pub(super) fn hear(&mut self) {
        while self.hear_one() {}
    }

    /// Says old news again on every watch, though never within a revision's fragments.
    pub(super) fn replay(&mut self, from: i64) {
        let Some(stream) = self.stream else { return };
        for (id, (range, next)) in self.watchers.clone() {
            let old = self.etcd.events(&range, from).into_iter().filter(|(at, _)| *at < next);
            for (_, events) in old.filter(|_| !self.said.contains_key(&id)).collect::<Vec<_>>() {
                self.say(stream, Response { id, events, ..Response::default() });
            }
        }
    }

    pub(super) fn refuse(&mut self, range: &Range, reason: &str) {
        let Some(stream) = self.stream else { return };
        let Some(id) = self.watchers.iter().find(|(_, (r, _))| r == range).map(|(id, _)| *id) else {
            return;
        };
        self.watchers.remove(&id);
        let refusal = Refusal { failure: Failure::Denied, reason: reason.into() };
        let canceled = Some(Canceled { compacted: false, refusal });
        self.say(stream, Response { id, created: true, canceled, ..Response::default() });
    }

    /// Answers the reads and leaves the watch that follows them unanswered.
    pub(super) fn mute_next(&mut self) {
        let creates = self.creates.len();
        self.mute = true;
        while self.creates.len() == creates {
            assert!(self.read_one(), "a watch is asked for");
        }
        self.mute = false;
    }

    /// The same, and refuses it under an id that is not its own.
    pub(super) fn refuse_next_as(&mut self, id: i64, reason: &str) {
        self.mute_next();
        let stream = self.stream.expect("the stream is open");
        let refusal = Refusal { failure: Failure::Denied, reason: reason.into() };
        let canceled = Some(Canceled { compacted: false, refusal });
        self.say(stream, Response { id, created: true, canceled, ..Response::default() });
    }

    pub(super) fn answer_progress(&mut self) {
        if let Some(stream) = self.stream {
            self.say(stream, Response { id: -1, ..Response::default() });
        }
    }

    pub(super) fn cut(&mut self) {
        self.end_stream(Failure::Unreachable);
    }

    /// etcd loses its data: no connection survives that, so neither does a list between its pages.
    pub(super) fn wipe(&mut self, lease: i64) {
        self.etcd = Fake::leasing(lease);
        for read in std::mem::take(&mut self.reads) {
            match read {
                Action::List { range, ticket, at: Some(_), .. } => {
                    self.event(Event::Listed { range, ticket, page: Err(refusal(Failure::Unreachable)) });
                }
                read => self.reads.push_back(read),
            }
        }
        self.cut();
    }

    pub(super) fn end_stream(&mut self, failure: Failure) {
        if let Some(stream) = self.stream.take() {
            self.watchers.clear();
            self.said.clear();
            self.event(Event::Ended { stream, refusal: refusal(failure) });
        }
    }

    /// Opens the stream again and leaves the reads unanswered.
    pub(super) fn open_without_reading(&mut self) {
        while self.stream.is_none() {
            match self.reads.iter().position(|read| matches!(read, Action::Open { .. })) {
                Some(at) => {
                    self.reads.rotate_left(at);
                    self.read_one();
                }
                None => self.tick(Duration::from_secs(2)),
            }
        }
    }

    pub(super) fn answer_verify(&mut self, header: Header) {
        let at =
            self.reads.iter().position(|read| matches!(read, Action::Verify { .. })).expect("it was asked");
        let Some(Action::Verify { ticket }) = self.reads.remove(at) else { return };
        self.event(Event::Verified { ticket, header: Ok(header) });
    }

    /// Lets time pass until the next timer, or for as long.
    pub(super) fn tick(&mut self, most: Duration) {
        let end = self.now + most;
        match self.session.next_timer().filter(|at| *at <= end) {
            Some(at) => {
                self.now = self.now.max(at);
                self.event(Event::Timer);
            }
            None => self.now = end,
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            while self.read_one() || self.hear_one() {}
            self.tick(end - self.now);
        }
        while self.read_one() || self.hear_one() {}
    }

    /// Carries everything out, with the pauses after failures, until all is quiet.
    pub(super) fn settle(&mut self) {
        self.wait(Duration::from_secs(5));
    }

    pub(super) fn watching(&self) -> Vec<Range> {
        self.watchers.values().map(|(range, _)| range.clone()).collect()
    }

    /// Subscribers see what etcd holds: no more, no less, and of each key the last value.
    pub(super) fn assert_exact(&self) {
        let keys = self.etcd.at(self.etcd.revision());
        assert!(!self.session.watches.is_empty());
        for range in self.session.watches.keys() {
            let prefix = range.prefix(&Prefix::default()).into_bytes();
            let expected: BTreeMap<Key, Option<String>> = keys
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(key, (value, ..))| (key.clone(), Some(shown(value, self.etcd.lease))))
                .collect();
            assert_eq!(self.mirrors.get(range).cloned().unwrap_or_default(), expected, "{range:?}");
        }
    }
}
