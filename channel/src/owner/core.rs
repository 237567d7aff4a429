//! The set of endpoints, as a pure machine: what discovery and connections report goes in with the time, [`Action`]s
//! come out. It adds to the life of each endpoint (`subchannel/state.rs`) what concerns the set: turns to dial, alarms,
//! never ejecting the last one, and what becomes of a call when none is ready.

mod reports;
mod rest;
pub(crate) mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::presence::Presence;
use super::siblings::{Connections, Siblings};
use crate::endpoint::{Address, Endpoint};
use crate::health::outlier::{Detection, Kept, OutlierDetection, Tally};
use crate::policy::warming::{SlowStart, Warming};
use crate::subchannel::face::Standing;
use crate::subchannel::id::{ConnectionId, EndpointId};
use crate::subchannel::state::{Cause, Effect, Event, Life, Settings, State};

/// What the task is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Dial {
        endpoint: EndpointId,
        id: ConnectionId,
        to: Arc<Endpoint>,
        extra: bool,
    },
    /// Another connection may be asked for again.
    MayGrow(EndpointId),
    Close(ConnectionId),
    Kill(ConnectionId),
    Ping(ConnectionId),
    Check(ConnectionId),
    Uncheck(ConnectionId),
    Forgive(EndpointId),
    /// For the books: an endpoint was ejected.
    Ejected(Detection),
    /// For the books: an endpoint that the statistics found out was kept.
    Kept(Detection, Kept),
}

/// What a connection reported, as far as the set cares.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    Ready,
    DialFailed(Arc<str>),
    GoAway {
        served: bool,
    },
    Lost {
        reason: Arc<str>,
        served: bool,
    },
    Pong,
    /// The health check says that the server serves, or why not.
    Health(Option<Arc<str>>),
    Suspect(Cause),
    /// Calls wait for a stream.
    Saturated,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) life: Life,
    /// Since when it is in its state.
    pub(crate) since: Instant,
    presence: Presence,
    siblings: Siblings,
    alarm: Option<Instant>,
}

impl Entry {
    /// What decides whether it takes calls.
    pub(crate) fn standing(&self) -> Standing {
        Standing { serves: self.life.serves(), ejected_for: self.life.ejected_for() }
    }

    /// Its connections that take calls, the link first.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.life.link().into_iter().chain(self.siblings.ready().iter().copied())
    }
}

/// A connection of an endpoint's, and which of the addresses it goes to, once that is known.
#[derive(Debug)]
struct Owned {
    endpoint: EndpointId,
    at: Option<Address>,
}

#[derive(Debug)]
pub(crate) struct EndpointSet {
    settings: Settings,
    outliers: OutlierDetection,
    connections: Connections,
    connects_all: bool,
    max_dials: usize,
    slow_start: Option<SlowStart>,
    /// When the last window of slow start that is known of ends.
    warm_at: Option<Instant>,
    /// Servers are to tell their health, where the policy uses more than one.
    wants_checks: bool,
    rng: fastrand::Rng,
    /// What the statistics have found of the endpoint that is ejected next.
    reckoned: Option<Detection>,
    entries: BTreeMap<EndpointId, Entry>,
    owners: HashMap<ConnectionId, Owned>,
    queue: VecDeque<EndpointId>,
    dialling: HashSet<ConnectionId>,
    alarms: BTreeSet<(Instant, EndpointId)>,
    next_connection: u64,
    /// The channel is idle: nothing is dialled.
    asleep: bool,
    changed: bool,
    /// Something takes calls no longer.
    urgent: bool,
    /// Those of which something was changed that is shown, or that came or went.
    touched: Vec<EndpointId>,
    actions: Vec<Action>,
}

impl EndpointSet {
    pub(crate) fn new(
        max_backoff: Duration,
        outliers: OutlierDetection,
        connections: Connections,
        connects_all: bool,
        max_dials: usize,
        rng: fastrand::Rng,
    ) -> Self {
        let settings = Settings {
            max_backoff,
            base_ejection: outliers.base_ejection_time,
            max_ejection: outliers.max_ejection_time,
            checks: false,
        };
        Self {
            settings,
            outliers,
            connections,
            connects_all,
            max_dials,
            slow_start: None,
            warm_at: None,
            wants_checks: false,
            rng,
            reckoned: None,
            entries: BTreeMap::new(),
            owners: HashMap::new(),
            queue: VecDeque::new(),
            dialling: HashSet::new(),
            alarms: BTreeSet::new(),
            next_connection: 0,
            asleep: false,
            changed: true,
            urgent: false,
            touched: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Leads endpoints that are new up to their share.
    pub(crate) fn set_slow_start(&mut self, slow_start: Option<SlowStart>) {
        self.slow_start = slow_start.filter(|s| !s.window().is_zero());
    }

    /// Slow start, where it is on and one endpoint is not enough for all calls.
    fn slow_start(&self) -> Option<SlowStart> {
        self.slow_start.filter(|_| self.connects_all)
    }

    /// Other settings, from here on. Connections stay as they are: where one endpoint has become enough for all calls,
    /// those that are connected remain in reserve; where it is so no longer, all are connected.
    pub(crate) fn configure(&mut self, outliers: OutlierDetection, connects_all: bool, now: Instant) {
        self.settings.base_ejection = outliers.base_ejection_time;
        self.settings.max_ejection = outliers.max_ejection_time;
        self.outliers = outliers;
        self.connects_all = connects_all;
        self.changed = true;
        self.touched.extend(self.entries.keys()); // slow start is not for those where one is enough
        if self.settings.checks != (self.wants_checks && connects_all) {
            self.set_checks(self.wants_checks, now);
        }
        if connects_all {
            let idle = self.entries().filter(|(_, e)| e.life.state() == State::Idle).map(|(id, _)| id);
            for id in idle.collect::<Vec<_>>() {
                self.tell(id, Event::Wanted, now);
            }
        }
        self.settle(now);
    }

    /// Has servers tell their health before they take calls, those that are connected anew; not where one endpoint is
    /// enough for all calls: as gRFC A17 has it, `pick_first` does not check.
    pub(crate) fn set_checks(&mut self, wanted: bool, now: Instant) {
        self.wants_checks = wanted;
        let checks = wanted && self.connects_all;
        if std::mem::replace(&mut self.settings.checks, checks) || checks {
            for id in self.entries.keys().copied().collect::<Vec<_>>() {
                self.tell(id, Event::Checks(checks), now);
            }
        }
    }

    /// Discovery has the endpoint, new or changed.
    pub(crate) fn insert(&mut self, id: EndpointId, endpoint: Endpoint, now: Instant) {
        let endpoint = Arc::new(endpoint);
        let held = endpoint.held_until.is_some();
        match self.entries.get_mut(&id) {
            Some(entry) => {
                if entry.endpoint == endpoint {
                    return;
                }
                let before = std::mem::replace(&mut entry.endpoint, endpoint.clone());
                self.touch_one(id);
                self.compare_addresses(id, &before, now);
                self.tell(id, Event::Held(held), now);
            }
            // Held from the start: it was never connected, and is not to be.
            None if held => return,
            None => {
                self.touch_one(id);
                let entry = Entry {
                    endpoint,
                    life: Life::default(),
                    since: now,
                    presence: Presence::default(),
                    siblings: Siblings::default(),
                    alarm: None,
                };
                self.entries.insert(id, entry);
                if self.connects_all {
                    self.tell(id, Event::Wanted, now);
                }
            }
        }
        self.settle(now);
    }

    /// An endpoint was told anew: connects it anew where it is no longer to be reached as it is. Addresses that come, or
    /// move within the list, change nothing while the one in use stays.
    fn compare_addresses(&mut self, id: EndpointId, before: &Endpoint, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        let (life, after) = (&entry.life, &entry.endpoint);
        let has = |endpoint: &Endpoint, one: &Address| endpoint.addresses().any(|a| a == one);
        let gone = before.addresses().any(|a| !has(after, a));
        let new = after.addresses().any(|a| !has(before, a));
        // An authority that is only the first address's changes with the order, and means nothing.
        let target = |endpoint: &Endpoint| (endpoint.given_authority().cloned(), endpoint.secure);
        let changed = target(before) != target(after);
        let link = life.link();
        let moved = match link {
            // What is being dialled may be gone.
            _ if life.dialling().is_some() => gone,
            Some(link) => {
                let at =
                    self.owners.get(&link).and_then(|owned| owned.at.as_ref()).unwrap_or(&before.address);
                !has(after, at)
            }
            // Who waits after a failure has something new to try.
            None => gone || (new && life.state() == State::Backoff),
        };
        if changed || moved {
            self.tell(id, Event::Readdressed, now);
        } else if let (true, Some(link)) = (gone, link) {
            self.renew_siblings(id, link);
        }
    }

    /// Discovery has it no longer.
    pub(crate) fn remove(&mut self, id: EndpointId, now: Instant) {
        let Some(mut entry) = self.entries.remove(&id) else { return };
        self.touch_one(id);
        self.urgent |= entry.life.serves();
        if let Some(alarm) = entry.alarm {
            self.alarms.remove(&(alarm, id));
        }
        let own = [entry.life.link(), entry.life.dialling()].into_iter().flatten();
        for connection in own.chain(entry.siblings.clear()) {
            self.close(connection);
        }
        self.settle(now);
    }

    /// Which of its endpoint's addresses a connection goes to: said before it is reported as ready.
    pub(crate) fn reached(&mut self, connection: ConnectionId, address: Address) {
        if let Some(owned) = self.owners.get_mut(&connection) {
            owned.at = Some(address);
        }
    }

    /// Only for what happened on a connection that takes its calls, and never the last that takes calls.
    fn may_eject(&self, id: EndpointId, connection: ConnectionId) -> bool {
        self.entries.get(&id).is_some_and(|e| e.connections().any(|c| c == connection))
            && self.is_dispensable(id)
    }

    /// Whether others take calls too. The count stops at the second: it does not grow with the set.
    fn is_dispensable(&self, id: EndpointId) -> bool {
        let is_ready = |e: &Entry| e.life.state() == State::Ready;
        self.entries.get(&id).is_some_and(is_ready)
            && self.entries.values().filter(|e| is_ready(e)).nth(1).is_some()
    }

    /// An interval of the statistics is over.
    pub(crate) fn sweep(&mut self, tallies: &[Tally], now: Instant) {
        let found = self.outliers.outliers(tallies, &mut self.rng);
        let spared = found.kept.into_iter().map(|(detection, reason)| Action::Kept(detection, reason));
        self.actions.extend(spared);
        for (id, detection) in found.outliers {
            if self.is_dispensable(id) {
                self.reckoned = Some(detection);
                self.tell(id, Event::Eject(Cause::Failing), now);
            } else if self.entries.get(&id).is_some_and(|e| e.life.state() == State::Ready) {
                self.actions.push(Action::Kept(detection, Kept::Last));
            }
        }
        self.reckoned = None;
        self.settle(now);
    }

    /// The settings by which endpoints are ejected.
    pub(crate) fn outlier_detection(&self) -> &OutlierDetection {
        &self.outliers
    }

    /// When [`alarm`](Self::alarm) wants to be called.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at).into_iter().chain(self.warm_at).min()
    }

    /// The time of [`next_alarm`](Self::next_alarm) has come.
    pub(crate) fn alarm(&mut self, now: Instant) {
        if self.warm_at.take_if(|at| *at <= now).is_some() {
            self.changed = true; // the picker goes on without slow start
        }
        while let Some(&(at, id)) = self.alarms.first().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.alarm = None;
            }
            self.rested(id, now);
            self.tell(id, Event::Alarm, now);
        }
        self.settle(now);
    }

    /// What requests see has changed for a reason outside the set.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// What is shown of one endpoint has changed.
    fn touch_one(&mut self, id: EndpointId) {
        self.changed = true;
        self.touched.push(id);
    }

    /// What is to be done, and whether what requests see has changed since the last call: true where something takes
    /// calls no longer, so that it is urgent.
    pub(crate) fn take(&mut self) -> (Vec<Action>, Option<bool>) {
        let (changed, urgent) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.urgent));
        (std::mem::take(&mut self.actions), changed.then_some(urgent))
    }

    /// The endpoints of which something has changed since the last call, some of them gone by now.
    pub(crate) fn take_touched(&mut self) -> Vec<EndpointId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    pub(crate) fn entry(&self, id: EndpointId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All endpoints, in the order of discovery.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (EndpointId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// The endpoints that take calls, in the order of discovery.
    #[cfg(test)]
    pub(crate) fn ready(&self) -> Vec<(EndpointId, &Entry)> {
        let census = self.outliers.census(self.entries.values().map(Entry::standing));
        self.entries().filter(|(_, e)| census.takes_calls(e.standing())).collect()
    }

    /// Where an endpoint that takes calls stands in slow start, if it does.
    pub(crate) fn warming(&self, entry: &Entry, now: Instant) -> Option<Warming> {
        let (settings, since) = (self.slow_start()?, entry.presence.new_since()?);
        Some(Warming { since, settings }).filter(|w| entry.life.state() == State::Ready && !w.is_over(now))
    }

    fn tell(&mut self, id: EndpointId, event: Event, now: Instant) {
        if self.asleep && !matches!(event, Event::Held(_)) {
            return;
        }
        let slow_start = self.slow_start();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let seen = |entry: &Entry| {
            let life = &entry.life;
            (life.state(), life.link(), life.is_hopeful(), life.last_error().cloned(), entry.standing())
        };
        let before = seen(entry);
        let mut effects = Vec::new();
        entry.life.on(event, now, &self.settings, &mut self.rng, &mut effects);
        let after = seen(entry);
        if before.0 != after.0 {
            entry.since = now;
            if after.0 == State::Ready && entry.presence.came(now) {
                let end = slow_start.map(|s| now + s.window());
                self.warm_at = self.warm_at.max(end);
            } else if before.0 == State::Ready {
                entry.presence.went(now);
            }
        }
        if let (true, Some(cause)) = (before.0 != State::Ejected, entry.life.ejected_for()) {
            self.actions.push(Action::Ejected(self.reckoned.take().unwrap_or(cause.into())));
        }
        self.urgent |= before.0 == State::Ready && after.0 != State::Ready;
        if before != after {
            self.touch_one(id);
        }
        self.set_alarm(id);
        for effect in effects {
            match effect {
                Effect::Queue => self.queue.push_back(id),
                Effect::Close(connection) => self.close(connection),
                Effect::Kill(connection) => self.actions.push(Action::Kill(connection)),
                Effect::Ping(connection) => self.actions.push(Action::Ping(connection)),
                Effect::Check(connection) => self.actions.push(Action::Check(connection)),
                Effect::Uncheck(connection) => self.actions.push(Action::Uncheck(connection)),
                Effect::Forgive => self.actions.push(Action::Forgive(id)),
                Effect::Forget => {
                    self.remove(id, now);
                    return;
                }
            }
        }
    }

    fn set_alarm(&mut self, id: EndpointId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let alarm = [entry.life.alarm(), entry.siblings.alarm()].into_iter().flatten().min();
        if entry.alarm != alarm {
            if let Some(old) = std::mem::replace(&mut entry.alarm, alarm) {
                self.alarms.remove(&(old, id));
            }
            self.alarms.extend(alarm.map(|at| (at, id)));
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.owners.remove(&connection);
        self.dialling.remove(&connection);
        self.actions.push(Action::Close(connection));
    }

    /// Gives out turns to dial.
    fn settle(&mut self, now: Instant) {
        if self.asleep {
            return;
        }
        if !self.connects_all {
            self.want_one(now);
        }
        while self.dialling.len() < self.max_dials {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(entry) = self.entries.get(&id).filter(|e| e.life.is_queued()) else { continue };
            let to = entry.endpoint.clone();
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            self.owners.insert(connection, Owned { endpoint: id, at: None });
            self.dialling.insert(connection);
            self.tell(id, Event::Turn(connection), now);
            self.actions.push(Action::Dial { endpoint: id, id: connection, to, extra: false });
        }
    }

    /// Where one endpoint is enough: none is dialled while one is connected; else one after the other.
    fn want_one(&mut self, now: Instant) {
        let connected = self.entries().find(|(_, e)| e.life.link().is_some()).map(|(id, _)| id);
        let trying =
            self.entries().find(|(_, e)| e.life.is_queued() || e.life.dialling().is_some()).map(|(id, _)| id);
        let idle = self.entries().find(|(_, e)| e.life.state() == State::Idle).map(|(id, _)| id);
        if let Some(keep) = connected.or(trying) {
            let others: Vec<_> = self
                .entries()
                .filter(|(id, e)| *id != keep && matches!(e.life.state(), State::Connecting))
                .map(|(id, _)| id)
                .collect();
            for id in others {
                self.tell(id, Event::NotNeeded, now);
            }
        } else if let Some(next) = idle {
            self.tell(next, Event::Wanted, now);
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "core_model_tests.rs"]
mod model;
