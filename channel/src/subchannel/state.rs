//! The life of one endpoint, as a pure machine: an [`Event`] and the time go in, [`Effect`]s come out. It holds three
//! facts that are independent of each other, from which the [`State`] follows: the *link* (a connection that takes
//! calls; with health checks also what the server says of itself on it, gRFC A17), the *dial* (the attempt to get the
//! next one) and the *ejection*.
//!
//! | state      | link                    | dial             | ejection | takes calls |
//! |------------|-------------------------|------------------|----------|-------------|
//! | Idle       | -                       | idle             | -        | no          |
//! | Connecting | -                       | queued, dialling | -        | no          |
//! | Connecting | yes, asked for health   | any              | -        | no          |
//! | Backoff    | -                       | waiting          | -        | no          |
//! | Ready      | yes, unchecked, serving | any              | -        | yes         |
//! | NotServing | yes, not serving        | any              | -        | no          |
//! | Ejected    | any                     | any              | yes      | no          |
//!
//! A link is only ever replaced by a newer one, so an endpoint whose address changed serves on at the old one until
//! the new one is connected. A connection that has lost its place as the link (GOAWAY, removal, replacement) drains on
//! its own, in `connection.rs`.
//!
//! What each event does in each state is printed by a test, into
//! `snapshots/svc_channel__subchannel__state__tests__table.snap`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::id::ConnectionId;

/// A connection that ended sooner, without having answered a call, was of no use; from the second in a row on it counts
/// as a failed attempt: a server that only accepts and closes must not be dialled in a loop.
const PROVEN_AFTER: Duration = Duration::from_secs(1);
/// gRPC's connection backoff: 1 s, times 1.6 for each failure in a row, jitter 0.2.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_FACTOR: f64 = 1.6;
const BACKOFF_JITTER: f64 = 0.2;
/// Ejections last longer each time, and start anew once the endpoint has been back for so long.
const EJECTION_FORGOTTEN: Duration = Duration::from_secs(60);
/// An ejected endpoint that leaves a PING unanswered for so long is dialled anew.
const EJECTED_PING: Duration = Duration::from_secs(20);
/// An endpoint that discovery has lost gets this long to answer.
const HELD_PING: Duration = Duration::from_secs(2);
/// So many connections in a row that ended before they were of use: ejected.
const LOSSES: u32 = 3;

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not connected, and nobody has asked for it.
    Idle,
    /// Being connected, or waiting for its turn.
    Connecting,
    /// Connected, its SETTINGS received, and by its health check serving, where that is asked for: takes calls.
    Ready,
    /// Connected; its health check does not say that it serves. Calls in flight go on.
    #[serde(rename = "not_serving")]
    NotServing,
    /// Out, for expired deadlines or lost connections; comes back through an answered PING or a health check.
    Ejected,
    /// The last attempt failed; the next one waits.
    Backoff,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It is to be connected.
    Wanted,
    /// Its turn to dial has come.
    Turn(ConnectionId),
    /// The dial succeeded.
    Connected(ConnectionId),
    /// The link ends, and another connection to the same endpoint takes its place.
    Inherited(ConnectionId),
    /// The dial failed.
    DialFailed(ConnectionId, Arc<str>),
    /// The connection takes no new calls. A GOAWAY has no reason to be remembered as an error.
    LinkEnded { id: ConnectionId, reason: Option<Arc<str>>, served: bool },
    /// It behaves worse than it should.
    Eject(Cause),
    /// A PING was answered.
    Pong(ConnectionId),
    /// The health check on a connection says that the server serves, or why not.
    Health { id: ConnectionId, trouble: Option<Arc<str>> },
    /// Its health is to be asked for from here on, anew where it was already, or no longer.
    Checks(bool),
    /// Its address has changed.
    Readdressed,
    /// Discovery has lost it (true), or has it again.
    Held(bool),
    /// The instant of [`Life::alarm`] has come.
    Alarm,
    /// Another endpoint is connected and one is enough.
    NotNeeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Wants a turn to dial.
    Queue,
    /// Give up a dial, or let a connection drain.
    Close(ConnectionId),
    /// End a connection now.
    Kill(ConnectionId),
    /// Ask whether the peer lives.
    Ping(ConnectionId),
    /// Have the connection's server tell its health.
    Check(ConnectionId),
    /// It need not tell any longer.
    Uncheck(ConnectionId),
    /// Start its failure counts anew.
    Forgive,
    /// Held, and not worth holding: forget it.
    Forget,
}

/// What the machine may be told from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) max_backoff: Duration,
    /// How long the first ejection lasts; each further one lasts twice as long, ...
    pub(crate) base_ejection: Duration,
    /// ... up to this.
    pub(crate) max_ejection: Duration,
    /// Whether an endpoint has to say that it serves before it takes calls (gRFC A17).
    pub(crate) checks: bool,
}

/// What the link's server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    /// Nobody asks it.
    #[default]
    Unchecked,
    /// It was asked and has said nothing yet.
    Asked,
    Serving,
    NotServing,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It answers nobody: deadlines expire, or connections are lost.
    BlackHole,
    /// It answers, with failures.
    Failing,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    link: Option<(ConnectionId, Instant)>,
    health: Health,
    dial: Dial,
    ejection: Option<Ejection>,
    /// The last attempt failed, or the server did not serve, and it has not been ready since.
    failed: bool,
    /// Attempts in a row that led to nothing; paces the backoff.
    failures: u32,
    /// Connections in a row that ended before they were of use.
    losses: u32,
    ejections: u32,
    back_since: Option<Instant>,
    held: bool,
    ping_overdue: Option<Instant>,
    last_error: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dial {
    #[default]
    Idle,
    Queued,
    Dialling(ConnectionId),
    Waiting(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    cause: Cause,
    until: Instant,
    /// The PING that may end it is under way.
    asked: bool,
}

impl Life {
    pub(crate) fn state(&self) -> State {
        match (self.ejection, self.link, self.dial) {
            (Some(_), ..) => State::Ejected,
            (None, Some(_), _) => match self.health {
                Health::Unchecked | Health::Serving => State::Ready,
                Health::Asked => State::Connecting,
                Health::NotServing => State::NotServing,
            },
            (None, None, Dial::Idle) => State::Idle,
            (None, None, Dial::Queued | Dial::Dialling(_)) => State::Connecting,
            (None, None, Dial::Waiting(_)) => State::Backoff,
        }
    }

    /// The connection that takes its calls, if they are to take any: ejected or not.
    pub(crate) fn link(&self) -> Option<ConnectionId> {
        self.link.map(|(id, _)| id)
    }

    /// Whether it is connected and, as far as it was asked, serving: ejected or not.
    pub(crate) fn serves(&self) -> bool {
        self.link.is_some() && matches!(self.health, Health::Unchecked | Health::Serving)
    }

    /// Whether calls may hope for it: it is being connected, and its last attempt did not fail.
    pub(crate) fn is_hopeful(&self) -> bool {
        let on_its_way = match self.link {
            None => !matches!(self.dial, Dial::Waiting(_)),
            Some(_) => self.health == Health::Asked && self.ejection.is_none(),
        };
        on_its_way && !self.failed
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.dial == Dial::Queued
    }

    pub(crate) fn dialling(&self) -> Option<ConnectionId> {
        match self.dial {
            Dial::Dialling(id) => Some(id),
            _ => None,
        }
    }

    /// Why it is ejected, if it is.
    pub(crate) fn ejected_for(&self) -> Option<Cause> {
        self.ejection.map(|e| e.cause)
    }

    pub(crate) fn last_error(&self) -> Option<&Arc<str>> {
        self.last_error.as_ref()
    }

    pub(crate) fn ejections(&self) -> u32 {
        self.ejections
    }

    /// When it wants [`Event::Alarm`].
    pub(crate) fn alarm(&self) -> Option<Instant> {
        let redial = match self.dial {
            Dial::Waiting(until) => Some(until),
            _ => None,
        };
        let ask = self.ejection.filter(|e| !e.asked && self.link.is_some()).map(|e| e.until);
        [redial, ask, self.ping_overdue].into_iter().flatten().min()
    }

    pub(crate) fn on(
        &mut self,
        event: Event,
        now: Instant,
        settings: &Settings,
        rng: &mut fastrand::Rng,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            Event::Wanted => {
                if self.link.is_none() && self.dial == Dial::Idle {
                    self.queue(effects);
                }
            }
            Event::Turn(id) => self.dial = Dial::Dialling(id),
            Event::Connected(id) => self.connected(id, now, settings, effects),
            Event::Inherited(id) => self.inherit(id, now, settings, effects),
            Event::DialFailed(id, reason) => {
                if self.dial == Dial::Dialling(id) {
                    self.last_error = Some(reason);
                    self.back_off(now, settings, rng);
                    if self.held {
                        effects.push(Effect::Forget);
                    }
                }
            }
            Event::LinkEnded { id, reason, served } => {
                if self.link() == Some(id) {
                    self.link_ended(reason, served, now, settings, rng, effects);
                }
            }
            Event::Eject(cause) => self.eject(cause, now, settings),
            Event::Pong(id) => {
                if self.link() == Some(id) {
                    self.ping_overdue = None;
                    self.come_back(now, effects);
                }
            }
            Event::Health { id, trouble } => {
                if self.link() == Some(id) && self.health != Health::Unchecked {
                    self.told(trouble, now, effects);
                }
            }
            Event::Checks(checks) => self.check(checks, effects),
            Event::Readdressed => {
                self.give_up_dial(effects);
                self.failed = false;
                self.failures = 0;
                self.queue(effects);
            }
            Event::Held(held) => self.hold(held, now, effects),
            Event::Alarm => self.alarmed(now, effects),
            Event::NotNeeded => {
                if self.link.is_none() {
                    self.give_up_dial(effects);
                }
            }
        }
    }

    fn queue(&mut self, effects: &mut Vec<Effect>) {
        self.dial = Dial::Queued;
        effects.push(Effect::Queue);
    }

    fn give_up_dial(&mut self, effects: &mut Vec<Effect>) {
        if let Dial::Dialling(id) = std::mem::take(&mut self.dial) {
            effects.push(Effect::Close(id));
        }
    }

    /// Ends an ejection whose time is over, at a sign of life.
    fn come_back(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.ejection.take_if(|e| e.asked).is_some() {
            self.back_since = Some(now);
            effects.push(Effect::Forgive);
        }
    }

    fn check(&mut self, checks: bool, effects: &mut Vec<Effect>) {
        let Some(id) = self.link() else { return };
        if !checks {
            self.failed = false;
            self.health = Health::Unchecked;
            effects.push(Effect::Uncheck(id));
            return;
        }
        // What holds is not unsettled by the question: all endpoints would be out until they have answered.
        if self.health == Health::Unchecked {
            self.health = Health::Serving;
        }
        effects.push(Effect::Check(id));
    }

    fn told(&mut self, trouble: Option<Arc<str>>, now: Instant, effects: &mut Vec<Effect>) {
        self.failed = trouble.is_some();
        if trouble.is_some() {
            self.health = Health::NotServing;
            self.last_error = trouble;
        } else {
            self.health = Health::Serving;
            self.come_back(now, effects);
        }
    }

    fn connected(&mut self, id: ConnectionId, now: Instant, settings: &Settings, effects: &mut Vec<Effect>) {
        if self.dial != Dial::Dialling(id) {
            effects.push(Effect::Close(id)); // its address has changed since
            return;
        }
        self.dial = Dial::Idle;
        self.ping_overdue = None;
        if let Some((old, _)) = self.link.replace((id, now)) {
            effects.push(Effect::Close(old));
        }
        if settings.checks {
            // gRFC A17: not ready before it says so, whatever the connection before it said.
            self.health = Health::Asked;
            effects.push(Effect::Check(id));
        } else {
            self.failed = false;
        }
        if let Some(ejection) = &mut self.ejection {
            ejection.asked = false;
        }
        self.alarmed(now, effects);
    }

    fn inherit(&mut self, id: ConnectionId, now: Instant, settings: &Settings, effects: &mut Vec<Effect>) {
        self.link = Some((id, now));
        if settings.checks {
            effects.push(Effect::Check(id)); // the same server: what it said last holds until it says more
        }
        if let Some(ejection) = &mut self.ejection {
            ejection.asked = false;
        }
        if self.ping_overdue.take().is_some() && self.held {
            self.ping_overdue = Some(now + HELD_PING);
            effects.push(Effect::Ping(id));
        }
        self.alarmed(now, effects);
    }

    fn link_ended(
        &mut self,
        reason: Option<Arc<str>>,
        served: bool,
        now: Instant,
        settings: &Settings,
        rng: &mut fastrand::Rng,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, since)) = self.link.take() else { return };
        self.ping_overdue = None;
        if let Some(ejection) = &mut self.ejection {
            ejection.asked = false;
        }
        self.last_error = reason.or(self.last_error.take());
        if self.held {
            effects.push(Effect::Forget);
            return;
        }
        let proven = served || now.saturating_duration_since(since) >= PROVEN_AFTER;
        if proven {
            self.failures = 0;
            self.losses = 0;
        } else {
            self.losses += 1;
        }
        // Calls wait for the first redial after a Ready connection; where the next one is of no use either, the backoff
        // paces them.
        let at_once = self.losses <= 1;
        if self.losses >= LOSSES {
            self.eject(Cause::BlackHole, now, settings);
        }
        match self.dial {
            Dial::Idle if at_once => self.queue(effects),
            Dial::Idle => self.back_off(now, settings, rng),
            _ => {}
        }
    }

    fn back_off(&mut self, now: Instant, settings: &Settings, rng: &mut fastrand::Rng) {
        self.failed = true;
        let wait = backoff(self.failures, settings.max_backoff, rng);
        self.failures += 1;
        self.dial = Dial::Waiting(now + wait);
    }

    fn eject(&mut self, cause: Cause, now: Instant, settings: &Settings) {
        if self.ejection.is_some() {
            return;
        }
        if self.back_since.is_some_and(|back| now.saturating_duration_since(back) >= EJECTION_FORGOTTEN) {
            self.ejections = 0;
        }
        let time =
            settings.base_ejection.saturating_mul(1 << self.ejections.min(16)).min(settings.max_ejection);
        self.ejections += 1;
        self.losses = 0;
        self.ejection = Some(Ejection { cause, until: now + time, asked: false });
    }

    fn hold(&mut self, held: bool, now: Instant, effects: &mut Vec<Effect>) {
        if held == self.held {
            return;
        }
        self.held = held;
        match self.link {
            _ if !held => {}
            Some((id, _)) => {
                self.ping_overdue = Some(now + HELD_PING);
                effects.push(Effect::Ping(id));
            }
            None => effects.push(Effect::Forget),
        }
    }

    fn alarmed(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.dial, Dial::Waiting(until) if now >= until) {
            self.queue(effects);
        }
        let Some((link, _)) = self.link else { return };
        if self.ping_overdue.is_some_and(|overdue| now >= overdue) {
            self.ping_overdue = None;
            effects.push(Effect::Kill(link));
            return;
        }
        if let Some(ejection) = &mut self.ejection
            && !ejection.asked
            && now >= ejection.until
        {
            ejection.asked = true;
            self.ping_overdue = Some(now + EJECTED_PING);
            effects.push(Effect::Ping(link));
        }
    }
}

/// The wait after so many failures in a row, the latest not counted (gRPC "Connection Backoff Protocol").
pub(crate) fn backoff(failures: u32, most: Duration, rng: &mut fastrand::Rng) -> Duration {
    let wait = BACKOFF_BASE.as_secs_f64() * BACKOFF_FACTOR.powi(failures.min(64) as i32);
    let jitter = 1.0 + BACKOFF_JITTER * (2.0 * rng.f64() - 1.0);
    Duration::from_secs_f64(wait.min(most.as_secs_f64()) * jitter)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
