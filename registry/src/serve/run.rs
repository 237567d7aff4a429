//! A server's life, from the bound socket to the goodbye.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::sync::watch;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::service::Routes;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::accept::{bind, incoming, local_address};
use super::health::Health;
use super::inflight::{GuardLayer, Guarded, InFlight};
use super::signal::Signals;
use super::stages::{CutOnDrop, Stage, Stages};
use super::{Listen, Serve, Waiting};
use crate::drain::Phase;
use crate::error::{Error, Kind};
use crate::etcd::Etcd;
use crate::name::ServiceName;
use crate::readiness::{Readiness, Verdict};
use crate::registrar::address::{advertised, default_id, is_out_of_reach};
use crate::registrar::{Instance, Registrar, Registration, RegistrationStatus};

/// The least time between two reports of the in-flight count to the registration.
const REPORT_EVERY: Duration = Duration::from_millis(20);

/// How long etcd may take to say whether an operator wants the process out of service. After that health is SERVING: an
/// etcd that is away must not keep a service from those who know its address, such as clients with a cache.
const PATIENCE: Duration = Duration::from_secs(5);

impl<L> Serve<L> {
    /// Serves until asked to stop, and then until the stop is done.
    ///
    /// # Errors
    /// A name, address or listener that is not usable, before anything is registered; [`Error::is_superseded`] when
    /// another process has taken the id; a second signal while stopping.
    ///
    /// # Cancel safety
    /// Dropping the future cuts all connections and leaves the registration to the registrar, which keeps it.
    pub async fn run<B>(self) -> Result<(), Error>
    where
        L: Layer<Guarded<Routes>>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError> + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let names = service_names(&self.names)?;
        self.registrar.check()?;
        let readiness = self.readiness.transpose()?;
        let mut signals =
            match self.shutdown {
                Some(wait) => Stop::Once(Some(wait)),
                None => Stop::Signals(Signals::listen().map_err(|error| {
                    Error::new(Kind::Serve, "cannot listen for signals").with_source(error)
                })?),
            };
        let listener = match self.listen {
            Listen::On(address) => bind(&address).await?,
            Listen::Bound(listener) => listener,
        };
        let bound = local_address(&listener)?;
        let address = advertised(self.advertise.as_deref(), bound, self.etcd.config().endpoints()).await?;
        if is_out_of_reach(&address, self.etcd.config().endpoints()) {
            tracing::warn!(%address, "loopback is advertised, but etcd is on another host: say --advertise");
        }
        let mut instance = Instance::at(names[0].clone(), default_id(bound.port())?, address);
        if let Some(change) = self.instance {
            instance = change(instance);
        }
        let instance = instance.under(names[0].clone());
        instance.check()?;

        let mut checked = vec![String::new()];
        checked.extend(self.called);
        let all: Vec<String> = checked.iter().cloned().chain(names.iter().map(ToString::to_string)).collect();
        let (health, service) = Health::new(&all).await;
        let mut routes = self.routes;
        routes.add_service(service);

        let stage = Stage::default();
        let _cut = CutOnDrop(stage.cut.clone());
        let inflight = InFlight::default();
        let guard = GuardLayer::new(inflight.clone(), &stage);
        let routes = guard.guard(routes.routes().prepare());
        let incoming = incoming(listener, stage.cut.clone());
        let grace = stage.grace.clone().wait();
        let serving = self.server.serve_with_incoming_shutdown(routes, incoming, grace);

        if let Some(started) = self.started {
            started(&instance);
        }
        let life =
            Life { etcd: self.etcd, health, checked, inflight, stage: stage.clone(), stages: self.stages };
        let start = Start { ready: self.ready, readiness };
        let life = life.live(names, instance, start, self.registrar, &mut signals);
        let serving = async {
            let served = serving.await;
            stage.closed.cancel();
            served
        };
        let (served, lived) = futures_util::future::join(serving, Box::pin(life)).await;
        lived?;
        served.map_err(|error| Error::new(Kind::Serve, "the server failed").with_source(error))
    }
}

fn service_names(names: &[String]) -> Result<Vec<ServiceName>, Error> {
    let name = |name: &String| ServiceName::new(name).map_err(|error| Error::config("service", error));
    let names: Vec<ServiceName> = names.iter().map(name).collect::<Result<_, _>>()?;
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => {
            Err(Error::config("service", format_args!("{twice} is named twice; once is enough")))
        }
        None => Ok(names),
    }
}

/// What asks the process to stop.
enum Stop {
    Signals(Signals),
    /// A future of the user's, which is done once.
    Once(Option<Waiting>),
}

impl Stop {
    /// Asked to stop, or asked again.
    async fn asked(&mut self) {
        match self {
            Stop::Signals(signals) => signals.recv().await,
            Stop::Once(wait) => {
                match wait {
                    Some(waiting) => waiting.await,
                    None => std::future::pending().await,
                }
                *wait = None;
            }
        }
    }
}

/// Waits until a stop is done; a second signal ends it at once.
async fn unless_cut(
    again: impl Future<Output = ()>,
    stage: &Stage,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    tokio::select! {
        () = stop => Ok(()),
        () = again => {
            stage.abort();
            Err(Error::new(Kind::Serve, "stopped by a second signal before the stop was done"))
        }
    }
}

/// Why serving ends.
enum End {
    Asked,
    Exit,
    Superseded(Arc<str>),
    /// The registrar's task is gone, which only a panic of it explains: nobody keeps the record.
    Abandoned,
    Closed,
}

/// What a server waits for before it registers.
struct Start {
    ready: Option<Waiting>,
    readiness: Option<Readiness>,
}

impl Start {
    /// Waits until the process is ready for its first work; gives the check that goes on.
    async fn passed(self) -> Option<Readiness> {
        if let Some(ready) = self.ready {
            ready.await;
        }
        let mut readiness = self.readiness?;
        while let Err(reason) = readiness.changed().await {
            tracing::warn!(%reason, "not ready, so not registered");
        }
        Some(readiness)
    }
}

/// The next verdict of the process's own check, if it has one. Cancel safe.
async fn verdict(readiness: &mut Option<Readiness>) -> Verdict {
    match readiness {
        Some(readiness) => readiness.changed().await,
        None => std::future::pending().await,
    }
}

/// Ends with the wait, if there is one. Cancel safe.
async fn over(wait: &mut Option<Pin<Box<Sleep>>>) {
    if let Some(wait) = wait {
        wait.as_mut().await;
    }
}

/// What a server that is registered reacts to.
enum News {
    /// A phase or a status has changed: both are read anew.
    Registration,
    InFlight(u64),
    Ready(Verdict),
    /// etcd has had its time to say whether an operator wants the process out of service.
    Patience,
}

/// Registration, health and stop of a server that is listening.
struct Life {
    etcd: Etcd,
    health: Health,
    /// What health checks call the process as a whole, and its gRPC services.
    checked: Vec<String>,
    inflight: InFlight,
    stage: Stage,
    stages: Stages,
}

impl Life {
    async fn live(
        self,
        names: Vec<ServiceName>,
        instance: Instance,
        start: Start,
        config: crate::RegistrarConfig,
        signals: &mut Stop,
    ) -> Result<(), Error> {
        let readiness = tokio::select! {
            readiness = start.passed() => readiness,
            () = signals.asked() => {
                return unless_cut(signals.asked(), &self.stage, self.stage.wind_down(self.stages)).await;
            }
            () = self.stage.closed.cancelled() => return Ok(()),
        };
        let registrar = Registrar::with_config(&self.etcd, config)?;
        let mut served: Vec<Served> = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            // The first name stands for the process as a whole.
            let mut checked = if number == 0 { self.checked.clone() } else { Vec::new() };
            checked.push(name.to_string());
            served.push(Served::new(&registrar, instance.clone().under(name), checked));
        }
        let end = tokio::select! {
            end = self.follow(&mut served, readiness) => end,
            () = signals.asked() => End::Asked,
            () = self.stage.closed.cancelled() => End::Closed,
        };
        let asked = matches!(end, End::Asked);
        let again = async {
            // Where nobody has asked yet the first signal asks for what is under way.
            if !asked {
                signals.asked().await;
            }
            signals.asked().await;
        };
        unless_cut(again, &self.stage, self.stop(served, &end)).await?;
        match end {
            End::Superseded(reason) => {
                let text = format!("{}/{}: {reason}", instance.service(), instance.id());
                Err(Error::new(Kind::Superseded, text))
            }
            End::Abandoned => {
                let (service, id) = (instance.service(), instance.id());
                let text =
                    format!("{service}/{id}: the registrar has failed, see the log; start the process again");
                Err(Error::new(Kind::Serve, text))
            }
            End::Asked | End::Exit | End::Closed => Ok(()),
        }
    }

    /// Sets health by the phases and the process's own check, tells the registrations of the latter, and reports calls in
    /// flight, until the process has a reason to end.
    async fn follow(&self, served: &mut [Served], mut readiness: Option<Readiness>) -> End {
        let mut ready = true;
        let mut known = u64::MAX;
        let mut patience = Some(Box::pin(tokio::time::sleep(PATIENCE)));
        loop {
            let mut draining = false;
            for one in served.iter_mut() {
                let phase = *one.phase.borrow_and_update();
                // Asked first: a registration that ended said why before.
                let abandoned = one.status.has_changed().is_err();
                let status = one.status.borrow_and_update().clone();
                if let RegistrationStatus::Superseded { reason } = status {
                    return End::Superseded(reason);
                }
                if abandoned {
                    return End::Abandoned;
                }
                if phase == Phase::Exit {
                    return End::Exit;
                }
                // Without waiting for the record, which etcd may hold up: health is the process's own word.
                let may_serve = match phase {
                    Phase::Serving => true,
                    Phase::Starting => patience.is_none(),
                    _ => false,
                };
                let healthy = ready && may_serve;
                if one.healthy != healthy {
                    one.healthy = healthy;
                    self.health.set(&one.checked, healthy).await;
                    one.registration.shown(healthy);
                }
                if one.shown != phase {
                    one.shown = phase;
                    known = u64::MAX; // a drain waits for a count that is newer than its beginning
                }
                draining |= phase == Phase::Draining;
            }
            if known == u64::MAX {
                known = self.inflight.now();
                served.iter().for_each(|one| one.registration.inflight(known));
            }
            let news = {
                let changes = served.iter_mut().map(|one| {
                    Box::pin(async {
                        tokio::select! {
                            _ = one.phase.changed() => {}
                            _ = one.status.changed() => {}
                        }
                    })
                });
                tokio::select! {
                    _ = futures_util::future::select_all(changes) => News::Registration,
                    now = self.inflight.changed_from(known), if draining => News::InFlight(now),
                    verdict = verdict(&mut readiness) => News::Ready(verdict),
                    () = over(&mut patience), if patience.is_some() => News::Patience,
                }
            };
            match news {
                News::Patience => patience = None,
                News::Registration => {}
                News::InFlight(now) => {
                    known = now;
                    served.iter().for_each(|one| one.registration.inflight(known));
                    tokio::time::sleep(REPORT_EVERY).await;
                }
                News::Ready(Ok(())) => {
                    tracing::info!("ready again");
                    ready = true;
                    served.iter().for_each(|one| one.registration.ready());
                }
                News::Ready(Err(reason)) => {
                    tracing::warn!(%reason, "not ready: going out of service");
                    ready = false;
                    served.iter().for_each(|one| one.registration.unready(&reason));
                }
            }
        }
    }

    /// The stages of a stop, then the goodbye.
    async fn stop(&self, served: Vec<Served>, end: &End) {
        tracing::info!(inflight = self.inflight.now(), "stopping");
        if matches!(end, End::Asked | End::Exit) {
            served.iter().for_each(|one| one.registration.stop());
            // With etcd away the record cannot be moved: the stop goes on.
            let moved = served.iter().map(|one| async {
                let mut phase = one.phase.clone();
                let _ = phase.wait_for(|phase| !matches!(phase, Phase::Starting | Phase::Serving)).await;
            });
            let _ = tokio::time::timeout(self.stages.notice, futures_util::future::join_all(moved)).await;
        }
        for one in &served {
            self.health.set(&one.checked, false).await;
        }
        let stages = async {
            if matches!(end, End::Asked) {
                tokio::time::sleep(self.stages.notice).await;
            }
            self.stage.wind_down(self.stages).await;
        };
        tokio::select! {
            () = stages => {}
            () = self.tell(&served) => {} // never
        }
        let goodbyes = served.into_iter().map(|one| one.registration.deregister(self.stages.goodbye));
        for goodbye in futures_util::future::join_all(goodbyes).await {
            if let Err(error) = goodbye {
                tracing::warn!(%error, "no goodbye");
            }
        }
        tracing::info!("stopped");
    }
}

impl Life {
    /// Reports calls in flight for as long as it is polled, so that whoever watches a stop sees what it waits for.
    async fn tell(&self, served: &[Served]) {
        let mut known = self.inflight.now();
        loop {
            served.iter().for_each(|one| one.registration.inflight(known));
            tokio::time::sleep(REPORT_EVERY).await;
            known = self.inflight.changed_from(known).await;
        }
    }
}

/// One name of the process.
struct Served {
    registration: Registration,
    phase: watch::Receiver<Phase>,
    status: watch::Receiver<RegistrationStatus>,
    /// The names of health checks that follow its phase.
    checked: Vec<String>,
    /// What they say.
    healthy: bool,
    /// The phase that was acted on last.
    shown: Phase,
}

impl Served {
    fn new(registrar: &Registrar, instance: Instance, checked: Vec<String>) -> Served {
        let registration = registrar.register_served(instance);
        registration.inflight(0);
        let (phase, status) = (registration.phase(), registration.status());
        Served { registration, phase, status, checked, healthy: false, shown: Phase::Starting }
    }
}
