//! The one loop: takes what discovery, connections and the clock bring, lets the core decide, acts, and publishes once
//! for each batch.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use tower::discover::{Change, Discover};

use super::config::Config;
use super::core::{Action, EndpointSet, Report};
use super::discovery::{Discovery, Found};
use super::idle::{Idleness, Mark};
use super::loads::Loads;
use super::shown::Shown;
use super::snapshot::Snapshot;
use crate::endpoint::Endpoint;
use crate::front::{ConnectivityState, Front};
use crate::health::check::{self, Check};
use crate::health::orca::LoadReports;
use crate::health::outlier::Tally;
use crate::load;
use crate::metrics::weights::Weights;
use crate::policy::arrange::Arrangement;
use crate::resolution::Resolution;
use crate::subchannel::connection::{Command, Connection, Happening};
use crate::subchannel::dial::{Dial, Transport};
use crate::subchannel::driver;
use crate::subchannel::id::{ConnectionId, EndpointId};
use crate::subchannel::pings::KeepAlive;
use crate::subchannel::state::State;

/// Connections wait for the owner beyond this; it never waits for them.
pub(crate) const HAPPENINGS: usize = 1024;
/// Commands to one connection; it takes them at once.
const COMMANDS: usize = 8;
/// So many changes are taken before others have their turn and the picker is published.
const BATCH: usize = 4096;
/// A connection that was only needed for its streams closes when it was not used for so long.
const EXTRA_IDLE: Duration = Duration::from_secs(60);
/// How long calls wait for discovery's first answer, from the channel's making on.
const DISCOVERY_WAIT: Duration = Duration::from_secs(5);

/// Everything the owner owns.
pub(crate) struct Owner<D: Discover> {
    pub(crate) front: Arc<Front>,
    pub(crate) set: EndpointSet,
    pub(crate) discovery: Discovery<D>,
    pub(crate) arrangement: Arrangement,
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) keepalive: Option<KeepAlive>,
    /// The service whose health is watched on each connection, if any.
    pub(crate) health_check: Option<Arc<str>>,
    pub(crate) max_backoff: Duration,
    pub(crate) happenings: (mpsc::Sender<Reported>, mpsc::Receiver<Reported>),
    pub(crate) links: HashMap<ConnectionId, Link>,
    pub(crate) shown: Shown,
    pub(crate) loads: Loads<D::Key>,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) born: Instant,
    /// Discovery has had its time to answer.
    pub(crate) waited: bool,
    /// Among so many connections of an endpoint calls are spread.
    pub(crate) spread: usize,
    /// When weights of load reports take effect next, if any are wanted.
    pub(crate) next_weights: Option<Instant>,
    /// What becomes of those weights, for the recorder.
    pub(crate) weights: Option<Weights>,
    /// When the statistics of outlier detection are reckoned next, if any.
    pub(crate) next_sweep: Option<Instant>,
    /// Where there is an idle timeout.
    pub(crate) idleness: Option<Idleness>,
}

/// A connection's report.
type Reported = (ConnectionId, Happening);

/// The owner's end of a connection. Its drop lets the connection drain.
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
    pub(super) connection: Option<Arc<Connection>>,
    /// Gone with the link, and at its GOAWAY: the connection could not fall idle.
    check: Option<Checking>,
}

/// The task that watches the server's health. Its drop ends it.
struct Checking(AbortHandle);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    pub(super) fn reached(&self) -> Option<Arc<str>> {
        Some(self.connection.as_ref()?.reached.shown.clone())
    }
}

impl<D> Owner<D>
where
    D: Discover<Service = Endpoint> + Send + 'static,
    D::Key: Hash + Clone + Debug + Send + Sync,
    D::Error: Into<BoxError>,
{
    /// Runs until `end`; then connections drain, each by its own task.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        self.read_reports();
        self.discover_ready();
        self.act();
        loop {
            let idle = self.idleness.as_ref().and_then(Idleness::next);
            let (of_set, shown) = (self.set.next_alarm(), self.shown.next());
            let alarms = [of_set, self.discovery_alarm(), self.next_sweep, self.next_weights, idle, shown];
            let alarm = alarms.into_iter().flatten().min();
            tokio::select! {
                biased; // the end first; then what connections report, since calls may be waiting for it
                () = end.cancelled() => break,
                Some((id, what)) = self.happenings.1.recv() => {
                    self.happened(id, what);
                    for _ in 0..BATCH {
                        let Ok((id, what)) = self.happenings.1.try_recv() else { break };
                        self.happened(id, what);
                    }
                }
                Some(_ended) = self.tasks.join_next() => {} // what ended it was reported as a happening
                () = woken(self.front.mark.as_ref()) => self.wake(),
                () = self.config.changed() => self.reconfigure(),
                changes = self.discovery.next() => self.discovered(changes),
                () = sleep_until_some(alarm) => {}
            }
            let more = self.discover_ready();
            self.tick(Instant::now());
            self.act();
            if more {
                // A `Discover` that always has something must not keep the worker from everybody else.
                tokio::task::yield_now().await;
            }
        }
        // Dropping the links tells each connection to drain; their tasks end with their last call.
        self.tasks.detach_all();
    }

    /// Takes all that discovery has at once, so that one picker is made of it. What it says of itself is read before
    /// what it delivers: a set that it calls live has then been seen whole. True where there may be more.
    fn discover_ready(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..BATCH {
            match self.discovery.poll_next(&mut cx) {
                Poll::Ready(found) => self.discovered(found),
                Poll::Pending => return false,
            }
        }
        true
    }

    fn discovered(&mut self, found: Found<D::Key>) {
        let now = Instant::now();
        match found {
            Found::Change(Change::Insert(key, endpoint)) => {
                let id = self.loads.insert(&key);
                self.set.insert(id, endpoint, now);
            }
            Found::Change(Change::Remove(key)) => {
                if let Some(id) = self.loads.remove(&key) {
                    self.set.remove(id, now);
                }
            }
            Found::Resolution => self.set.touch(),
            Found::Error(error) => {
                tracing::warn!(channel = %self.front.name, %error, "discovery failed; the channel goes on with what it has");
            }
            Found::End => {
                tracing::debug!(channel = %self.front.name, "discovery ended; the channel goes on with what it has");
            }
        }
    }

    /// Another service config is in force: the policy and the settings are replaced, connections and loads stay.
    fn reconfigure(&mut self) {
        if !self.config.take() {
            return;
        }
        let now = Instant::now();
        self.arrangement.configure(self.config.in_force());
        let outliers = self.config.outliers();
        if outliers != self.set.outlier_detection() {
            self.loads.set_most_failures(outliers.consecutive_failures);
            self.next_sweep = outliers.has_statistics().then(|| now + outliers.interval);
            // The statistics begin with what comes now.
            for load in self.loads.loads.values() {
                load.take_tally();
            }
        }
        self.set.configure(outliers.clone(), self.arrangement.policy().connects_all(), now);
        self.read_reports();
        let health_check = &self.config.in_force().health_check;
        if self.health_check != *health_check {
            self.health_check = health_check.clone();
            self.set.set_checks(self.health_check.is_some(), now);
        }
        tracing::info!(channel = %self.front.name, policy = self.arrangement.policy().name(), "another service config");
    }

    fn happened(&mut self, id: ConnectionId, what: Happening) {
        let now = Instant::now();
        let channel = &self.front.name;
        let report = match what {
            Happening::Ready(connection) => {
                let (instance, at) = (&connection.endpoint.instance, &connection.reached.shown);
                tracing::debug!(%channel, %instance, %at, "connected");
                self.set.reached(id, connection.reached.address.clone());
                if connection.load.in_flight() == 0 {
                    connection.load.begin_anew();
                }
                if let Some(link) = self.links.get_mut(&id) {
                    link.connection = Some(connection);
                }
                Report::Ready
            }
            Happening::DialFailed(reason) => {
                tracing::debug!(%channel, %reason, "could not connect");
                self.links.remove(&id);
                Report::DialFailed(reason)
            }
            Happening::GoAway { served } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.check = None;
                }
                Report::GoAway { served }
            }
            Happening::Lost { reason, served } => {
                tracing::debug!(%channel, %reason, "connection ended");
                self.links.remove(&id);
                Report::Lost { reason, served }
            }
            Happening::Panicked => {
                let reason: Arc<str> = "the connector, or the connection's task, panicked".into();
                match self.links.remove(&id).and_then(|link| link.connection) {
                    Some(_) => Report::Lost { reason, served: false },
                    None => Report::DialFailed(reason),
                }
            }
            Happening::TooManyPings => {
                self.keepalive = self.keepalive.map(KeepAlive::doubled);
                let interval = self.keepalive.map(|k| k.interval);
                tracing::warn!(%channel, ?interval, "a server refuses keepalive PINGs as too many; new connections ask less often");
                return;
            }
            Happening::Pong => Report::Pong,
            Happening::Health(trouble) => Report::Health(trouble),
            Happening::Suspect(cause) => Report::Suspect(cause),
            Happening::Saturated => Report::Saturated,
        };
        self.set.report(id, report, now);
    }

    fn act(&mut self) {
        let (actions, changed) = self.set.take();
        for action in actions {
            match action {
                Action::Dial { endpoint, id, to, extra } => self.dial(endpoint, id, to, extra),
                Action::MayGrow(endpoint) => self.loads.of(endpoint).may_grow.store(true, Relaxed),
                // Dropped, not told: a connection whose owner's end is gone drains, and reports to nobody but us.
                Action::Close(id) => drop(self.links.remove(&id)),
                Action::Kill(id) => self.command(id, Command::Kill),
                Action::Ping(id) => self.command(id, Command::Ping),
                Action::Check(id) => self.check(id),
                Action::Uncheck(id) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.check = None;
                    }
                }
                Action::Forgive(endpoint) => self.loads.of(endpoint).forgive(),
                Action::Ejected(detection) => self.front.subchannels.ejected(detection.as_str()),
                Action::Kept(detection, reason) => {
                    self.front.subchannels.kept(detection.as_str(), reason.as_str());
                }
            }
        }
        if let Some(urgent) = changed {
            self.shown.has_changed(urgent);
        }
        if self.shown.is_due(Instant::now()) {
            self.publish();
        }
    }

    /// Has load reports read as the policy wants them.
    fn read_reports(&mut self) {
        let reports = self.arrangement.policy().load_reports().map(LoadReports::checked);
        self.next_weights = reports.map(|reports| Instant::now() + reports.weight_update_period);
        self.weights = reports.map(|_| Weights::new(&self.front.name));
        self.loads.set_reports(reports);
    }

    fn command(&self, id: ConnectionId, command: Command) {
        if let Some(link) = self.links.get(&id) {
            // Full or closed: it is ending, or being told the same already.
            let _ = link.commands.try_send(command);
        }
    }

    fn dial(&mut self, endpoint: EndpointId, id: ConnectionId, to: Arc<Endpoint>, extra: bool) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        self.links.insert(id, Link { commands, connection: None, check: None });
        let dial = Dial {
            id,
            load: self.loads.of(endpoint),
            endpoint: to,
            transport: self.transport.clone(),
            keepalive: self.keepalive,
            idle: extra.then_some(EXTRA_IDLE),
            slot_freed: self.front.slot_freed.clone(),
            happenings: self.happenings.0.clone(),
            metrics: self.front.subchannels.clone(),
        };
        // Owned by the owner's set; ends when the dial fails, the connection ends, or it is closed and idle; dials are
        // bounded by the core's turns; what ends it is reported as a happening.
        let (happenings, channel) = (self.happenings.0.clone(), self.front.name.clone());
        self.tasks.spawn(async move {
            // A connector is the user's code: without word of its end the endpoint would count as being connected for ever.
            if AssertUnwindSafe(driver::run(dial, receiver)).catch_unwind().await.is_err() {
                tracing::error!(%channel, "a connection's task panicked");
                let _ = happenings.send((id, Happening::Panicked)).await; // an owner that is gone misses nothing
            }
        });
    }

    fn check(&mut self, id: ConnectionId) {
        let (Some(service), Some(link)) = (&self.health_check, self.links.get_mut(&id)) else { return };
        let Some(connection) = link.connection.clone() else { return };
        let check = Check {
            connection,
            service: service.clone(),
            patience: self.transport.connect_timeout,
            max_backoff: self.max_backoff,
        };
        // Owned by the link, whose drop aborts it; ends too when the connection does, or where there is no health
        // service; one for each link; what it learns, its errors too, is reported as happenings.
        link.check = Some(Checking(self.tasks.spawn(check::run(check))));
    }

    fn tick(&mut self, now: Instant) {
        self.set.alarm(now);
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.next_sweep = Some(now + self.set.outlier_detection().interval);
            self.sweep(now);
        }
        if self.next_weights.is_some_and(|at| at <= now) {
            self.next_weights = self.loads.reports.map(|reports| now + reports.weight_update_period);
            let now_ms = load::now_ms();
            // Not `any`: what each has by now is remembered.
            if self.loads.loads.values().filter(|load| load.reported.has_changed(now_ms)).count() > 0 {
                self.set.touch();
            }
        }
        if self.idleness.as_ref().and_then(Idleness::next).is_some_and(|at| at <= now) {
            self.look_for_calls(now);
        }
        if self.discovery_alarm().is_some_and(|over| over <= now) {
            self.waited = true;
            self.set.touch(); // calls that wait for discovery are to be told
        }
    }

    /// Rests where there was no call for the idle timeout. A call that comes just now is safe: connections that are let
    /// go finish what they have, and a call that finds none wakes the channel.
    fn look_for_calls(&mut self, now: Instant) {
        let (Some(idleness), Some(mark)) = (&mut self.idleness, &self.front.mark) else { return };
        // In this order: the mark is taken in any case.
        let busy = mark.take() || self.front.slot_freed.has_waiters() || self.loads.any_in_flight();
        if idleness.look(busy, now) {
            tracing::debug!(channel = %self.front.name, "idle: connections are let go");
            self.set.rest(now);
        }
    }

    fn wake(&mut self) {
        if self.set.is_asleep() {
            let now = Instant::now();
            tracing::debug!(channel = %self.front.name, "no longer idle");
            self.set.wake(now);
            if let Some(idleness) = &mut self.idleness {
                idleness.awake(now);
            }
        }
    }

    /// Reckons the statistics of the interval that is over.
    fn sweep(&mut self, now: Instant) {
        let tallies: Vec<_> = self
            .set
            .entries()
            .map(|(endpoint, entry)| {
                let (answered, failed) = self.loads.of(endpoint).take_tally();
                Tally { endpoint, answered, failed, ejected: entry.life.state() == State::Ejected }
            })
            .collect();
        self.set.sweep(&tallies, now);
    }

    /// When the wait for discovery's first answer is over.
    fn discovery_alarm(&self) -> Option<Instant> {
        (!self.waited && self.discovery.seen == Resolution::Pending).then_some(self.born + DISCOVERY_WAIT)
    }
}

/// Whatever ends the owner, a panic of a policy's, of a `Discover`'s, or the end of its runtime: nobody is left waiting.
impl<D: Discover> Drop for Owner<D> {
    fn drop(&mut self) {
        self.front.publish(Snapshot::over(&self.front.name), ConnectivityState::TransientFailure);
    }
}

async fn woken(mark: Option<&Mark>) {
    match mark {
        Some(mark) => mark.woken().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
