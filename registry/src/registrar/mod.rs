//! Registration that heals: a [`Registrar`] keeps the records of a process's instances in etcd, whatever happens.
//!
//! ```text
//! Registrar, Registration (here) -> inbox -> task -> table -> entry, lease, ownership -> actions -> calls, execute -> etcd
//!                        status <-  task <- table <- keepalive answers, watch events, call results, time
//! ```
//! The decisions are pure values (`table`, `entry`, `lease`, `ownership`); `task` is the one loop that drives them.

#[cfg(feature = "server")]
pub(crate) mod address;
mod calls;
mod entry;
mod execute;
#[cfg(test)]
mod history_tests;
mod inbox;
mod instance;
mod lease;
#[cfg(test)]
mod model;
mod ownership;
mod status;
mod table;
#[cfg(test)]
mod table_tests;
mod task;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use instance::Instance;
pub use status::RegistrationStatus;

use self::entry::Process;
use self::inbox::{Goodbye, Inbox, Publishers};
use self::table::{EntryId, Table};
use self::task::Task;
use crate::backoff::LONGEST;
use crate::drain::Phase;
use crate::error::{Error, Kind};
use crate::etcd::Etcd;
use crate::name::Incarnation;

/// How a process registers.
///
/// # Defaults
/// - `ttl`: 15 s, how long a crashed instance stays in etcd; renewed each third of it. etcd's own floor is 1.5
///   election timeouts, 2 s unless configured otherwise, and what it grants counts. `Serve` refuses less than 1 s
///   or more than a day; [`Registrar::with_config`] takes less than 1 s as 1 s.
/// - `notice`: 1 s, how long clients are given to take note of a drain before "no call in flight" counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// The lease's time to live that is asked for.
    pub ttl: Duration,
    /// How long clients are given to take note of a drain.
    pub notice: Duration,
}

impl RegistrarConfig {
    /// The shortest and the longest TTL that make sense: etcd counts in whole seconds, and after a day nobody waits for a
    /// crashed instance to go.
    const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

    /// Refuses what makes no sense, with the field's name; a server does so before it listens.
    ///
    /// # Errors
    /// A `ttl` below 1 s or above a day.
    pub fn check(&self) -> Result<(), Error> {
        if Self::TTL.contains(&self.ttl) {
            return Ok(());
        }
        let reason =
            format!("{:?} is out of range; write 1s to 24h (etcd itself grants 2s or more)", self.ttl);
        Err(Error::config("ttl", reason))
    }
}

impl Default for RegistrarConfig {
    fn default() -> RegistrarConfig {
        RegistrarConfig { ttl: Duration::from_secs(15), notice: Duration::from_secs(1) }
    }
}

/// Keeps the records of this process's instances in etcd; cheap to clone, one per process.
///
/// Registering never blocks and never fails: it heals. Where it stands is in [`Registration::status`].
///
/// ```no_run
/// # async fn example() -> Result<(), svc_registry::Error> {
/// use svc_registry::{Etcd, Instance, Registrar};
/// let registrar = Registrar::new(&Etcd::from_env()?);
/// let registration = registrar.register(Instance::new("greeter", "greeter-1", "10.0.0.1:50051")?);
/// registration.status().wait_for(|status| status.is_registered()).await.ok();
/// registration.deregister(std::time::Duration::from_secs(2)).await?;
/// # Ok(()) }
/// ```
pub struct Registrar {
    inbox: Arc<Inbox>,
    incarnation: Incarnation,
}

impl Registrar {
    /// A registrar with the default configuration.
    pub fn new(etcd: &Etcd) -> Registrar {
        Registrar::start(etcd, RegistrarConfig::default())
    }

    /// A registrar with this configuration.
    ///
    /// ```no_run
    /// # async fn example(etcd: svc_registry::Etcd) -> Result<(), svc_registry::Error> {
    /// use std::time::Duration;
    /// use svc_registry::{Registrar, RegistrarConfig};
    /// let config = RegistrarConfig { ttl: Duration::from_secs(30), ..RegistrarConfig::default() };
    /// let registrar = Registrar::with_config(&etcd, config)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`RegistrarConfig::check`].
    pub fn with_config(etcd: &Etcd, config: RegistrarConfig) -> Result<Registrar, Error> {
        config.check()?;
        Ok(Registrar::start(etcd, config))
    }

    fn start(etcd: &Etcd, config: RegistrarConfig) -> Registrar {
        crate::metrics::describe_registrar();
        let process = Process { incarnation: Incarnation::random(), started_at: SystemTime::now() };
        let notice = config.notice.min(LONGEST);
        let table = Table::new(etcd.prefix().clone(), process, config.ttl, notice, fastrand::u64(..));
        let inbox = Arc::new(Inbox::default());
        inbox.opened();
        // Owned by its registrations: ends when every handle is dropped and nothing is registered any more; bounded
        // by one wish and one call to etcd a registration; its errors are statuses.
        let registrar = Registrar { inbox: Arc::clone(&inbox), incarnation: process.incarnation };
        let task_etcd = etcd.clone();
        etcd.runtime().spawn(async move { Task::new(task_etcd, table, inbox).run().await });
        registrar
    }

    /// Registers an instance and keeps it registered, also when the handle is dropped, until it is deregistered or
    /// the process ends. Registering the same service and id again takes it over from the earlier handle.
    pub fn register(&self, instance: Instance) -> Registration {
        self.enter(instance, None)
    }

    /// The same for a server with health checks: no record says `serving` while health does not, as told by
    /// [`Registration::shown`]; at first it does not.
    #[cfg(feature = "server")]
    pub(crate) fn register_served(&self, instance: Instance) -> Registration {
        self.enter(instance, Some(false))
    }

    fn enter(&self, instance: Instance, shown: Option<bool>) -> Registration {
        let status =
            watch::Sender::new(RegistrationStatus::Registering { reason: "waiting for etcd".into() });
        let phase = watch::Sender::new(Phase::Starting);
        let id = self.inbox.next_id();
        let registration = Registration {
            id,
            instance: Mutex::new(instance.clone()),
            status: status.subscribe(),
            phase: phase.subscribe(),
            handle: self.clone(),
        };
        self.inbox.ask(id, |wish| {
            wish.register = Some((instance, Publishers { status, phase }));
            wish.shown = shown;
        });
        registration
    }

    /// The number drawn for this process; it stands in each of its records.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

impl Clone for Registrar {
    fn clone(&self) -> Registrar {
        self.inbox.opened();
        Registrar { inbox: Arc::clone(&self.inbox), incarnation: self.incarnation }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.inbox.closed();
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// A registered instance. Dropping it leaves the instance registered; only [`Registration::deregister`] ends it.
#[derive(Debug)]
pub struct Registration {
    id: EntryId,
    instance: Mutex<Instance>,
    status: watch::Receiver<RegistrationStatus>,
    phase: watch::Receiver<Phase>,
    handle: Registrar,
}

impl Registration {
    /// Where the registration stands, and every change of it.
    pub fn status(&self) -> watch::Receiver<RegistrationStatus> {
        self.status.clone()
    }

    /// What the operator, or a stop, asks of the process; servers set their health by it.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// The instance as it was last given.
    pub fn instance(&self) -> Instance {
        self.lock().clone()
    }

    /// Changes weight, tags, zone or version; service, id and address stay. Several updates within 100 ms are
    /// written once. What [`Instance::check`] refuses changes nothing, and is logged: the instance stays as it was. `f` must not
    /// use this registration itself, which is locked meanwhile.
    pub fn update(&self, f: impl FnOnce(&mut Instance)) {
        let mut instance = self.lock();
        let mut changed = instance.clone();
        f(&mut changed);
        if let Err(error) = changed.check() {
            let (service, id) = (instance.service(), instance.id());
            tracing::warn!(%service, %id, %error, "an update that no client could read is left out");
            return;
        }
        instance.adopt(changed);
        let instance = instance.clone();
        self.handle.inbox.ask(self.id, |wish| wish.update = Some(instance));
    }

    /// Tells how many calls are in flight. A drain waits for zero; while it does, the count is written to the record
    /// at most once a second. Who has told once has to tell again when the phase turns to [`Phase::Draining`], be it
    /// the same number: an older one is not believed.
    pub fn inflight(&self, calls: u64) {
        self.handle.inbox.ask(self.id, |wish| wish.inflight = Some(calls));
    }

    /// Takes the instance out of service by the process's own judgement, or changes nothing if it is out already: its
    /// record says `draining` with the reason and leaves clients' sight, as in an operator's drain; it never says
    /// `drained`, unless an operator or a stop asks for it too. The reason is cut to 200 characters, and what would
    /// steer a terminal is taken out of it. [`Readiness`](crate::Readiness) asks a check of yours when to do so.
    pub fn unready(&self, reason: &str) {
        let reason: Arc<str> = crate::readiness::tidy(reason).into();
        self.handle.inbox.ask(self.id, |wish| wish.ready = Some(Err(reason)));
    }

    /// Takes [`Registration::unready`] back: the instance returns, unless an operator keeps it out or it is stopping.
    pub fn ready(&self) {
        self.handle.inbox.ask(self.id, |wish| wish.ready = Some(Ok(())));
    }

    /// What health says now.
    #[cfg(feature = "server")]
    pub(crate) fn shown(&self, serving: bool) {
        self.handle.inbox.ask(self.id, |wish| wish.shown = Some(serving));
    }

    /// Drains for good, as the first step of a stop: marks the record, moves it out of clients' sight, and shows
    /// [`Phase::Draining`] when that is done.
    pub fn stop(&self) {
        self.handle.inbox.ask(self.id, |wish| wish.stop = true);
    }

    /// Deletes the record, if it is still ours, and the lease, if nobody else is on it. Once this has returned no
    /// put of this registration is sent any more.
    ///
    /// # Errors
    /// etcd did not answer `within`: the record runs out with its lease.
    pub async fn deregister(self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within.min(LONGEST);
        let (left, answer) = oneshot::channel();
        self.handle.inbox.ask(self.id, |wish| wish.deregister = Some(Goodbye { deadline, left }));
        // The table keeps the deadline; the second one covers a runtime that is being shut down.
        let answer = tokio::time::timeout_at(deadline + Duration::from_secs(1), answer).await;
        let trouble = match answer {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(trouble))) => trouble,
            Ok(Err(_)) | Err(_) => "the registrar's task has ended".into(),
        };
        let instance = self.instance();
        Err(Error::new(
            Kind::TimedOut,
            format!(
                "{}/{} could not be deregistered within {within:?} ({trouble}); its record runs out with its lease",
                instance.service(),
                instance.id(),
            ),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instance> {
        // A user's closure that panicked worked on a copy: what the lock holds is whole.
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
