//! [`Serve`]: a registered, health-checked, drainable, gracefully stopping gRPC server in five lines.
//!
//! ```text
//! listen -> ready -> health SERVING -> register -> serve, following the drain's phase
//! ready: its own check fails -> health NOT_SERVING, record draining, moved; and back when it passes again
//! stop:  record draining, moved -> health NOT_SERVING -> notice -> GOAWAY, grace -> rest -> cut -> goodbye to etcd
//! ```
//! tonic serves; around it stand the counting layer (`inflight`), connections that can be cut (`accept`), the
//! stages of a stop (`stages`), health (`health`) and signals (`signal`). `run` puts them together.

mod accept;
mod health;
mod inflight;
mod run;
mod signal;
mod stages;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::Request;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tower_layer::Identity;
use tower_service::Service;

pub use inflight::Guarded;
pub use stages::Stages;

use crate::error::Error;
use crate::etcd::Etcd;
use crate::readiness::{Readiness, ReadinessConfig};
use crate::registrar::{Instance, RegistrarConfig};

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;
type Change = Box<dyn FnOnce(Instance) -> Instance + Send>;
type Told = Box<dyn FnOnce(&Instance) + Send>;

/// A gRPC server that registers itself.
///
/// ```no_run
/// # use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
/// # async fn example(greeter: impl Greeter) -> Result<(), svc_registry::Error> {
/// use svc_registry::{Etcd, Serve};
/// let etcd = Etcd::from_env()?;
/// Serve::new(&etcd, "greeter")
///     .listen("0.0.0.0:50051")
///     .add_service(GreeterServer::new(greeter))
///     .run()
///     .await?;
/// # Ok(()) }
/// ```
///
/// The health service is part of it; do not add another.
///
/// # Defaults
/// Listens on `0.0.0.0:50051`; advertises the address listened on, or the one of the route towards etcd; its id is
/// `<hostname>-<port>`, so drain intents hold over restarts only with a fixed port or an id of yours; stops at SIGTERM
/// and SIGINT by [`Stages`].
#[must_use = "nothing is served before `run`"]
pub struct Serve<L = Identity> {
    etcd: Etcd,
    names: Vec<String>,
    listen: Listen,
    advertise: Option<String>,
    server: Server<L>,
    routes: RoutesBuilder,
    /// The names of gRPC services, for health checks.
    called: Vec<String>,
    instance: Option<Change>,
    started: Option<Told>,
    ready: Option<Waiting>,
    readiness: Option<Result<Readiness, Error>>,
    shutdown: Option<Waiting>,
    registrar: RegistrarConfig,
    stages: Stages,
}

enum Listen {
    On(String),
    Bound(TcpListener),
}

impl Serve {
    /// A server that registers as `service`; a name that is not valid is refused by [`Serve::run`].
    pub fn new(etcd: &Etcd, service: &str) -> Serve {
        Serve {
            etcd: etcd.clone(),
            names: vec![service.to_owned()],
            listen: Listen::On("0.0.0.0:50051".to_owned()),
            advertise: None,
            server: Server::builder(),
            routes: Routes::builder(),
            called: Vec::new(),
            instance: None,
            started: None,
            ready: None,
            readiness: None,
            shutdown: None,
            registrar: RegistrarConfig::default(),
            stages: Stages::default(),
        }
    }
}

impl<L> Serve<L> {
    /// Listens on `host:port`; port 0 takes a free one.
    pub fn listen(self, address: impl Into<String>) -> Self {
        Serve { listen: Listen::On(address.into()), ..self }
    }

    /// Serves on a listener that is bound already.
    pub fn listener(self, listener: TcpListener) -> Self {
        Serve { listen: Listen::Bound(listener), ..self }
    }

    /// Registers `host[:port]` instead of the address listened on; without a port it is the bound one.
    pub fn advertise(self, address: impl Into<String>) -> Self {
        Serve { advertise: Some(address.into()), ..self }
    }

    /// Adds a gRPC service.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum_core::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.called.push(S::NAME.to_owned());
        self.routes.add_service(service);
        self
    }

    /// Serves these routes, besides what [`Serve::add_service`] adds after this call; what was added before is
    /// replaced.
    pub fn routes(self, routes: Routes) -> Self {
        Serve { routes: RoutesBuilder::from(routes), ..self }
    }

    /// Serves with a server of yours: TLS, limits, layers. Its layers stand outside the counting of calls in flight:
    /// a call that waits in one of them is not counted yet.
    pub fn server<M>(self, server: Server<M>) -> Serve<M> {
        Serve {
            server,
            etcd: self.etcd,
            names: self.names,
            listen: self.listen,
            advertise: self.advertise,
            routes: self.routes,
            called: self.called,
            instance: self.instance,
            started: self.started,
            ready: self.ready,
            readiness: self.readiness,
            shutdown: self.shutdown,
            registrar: self.registrar,
            stages: self.stages,
        }
    }

    /// Registers under a second name too, with the same address.
    pub fn also(mut self, service: &str) -> Self {
        self.names.push(service.to_owned());
        self
    }

    /// Changes what is registered: id, zone, version, weight, tags.
    pub fn instance(self, f: impl FnOnce(Instance) -> Instance + Send + 'static) -> Self {
        Serve { instance: Some(Box::new(f)), ..self }
    }

    /// Is told of the instance, its id and address settled, once the server listens.
    pub fn started(self, f: impl FnOnce(&Instance) + Send + 'static) -> Self {
        Serve { started: Some(Box::new(f)), ..self }
    }

    /// Registers, and turns health to SERVING, only when this is done: caches filled, databases reached. The server
    /// listens meanwhile.
    pub fn ready(self, ready: impl Future<Output = ()> + Send + 'static) -> Self {
        Serve { ready: Some(Box::pin(ready)), ..self }
    }

    /// Asks this again and again whether the process can do its work, from when [`Serve::ready`] is done. It registers
    /// only once the check has passed; when it fails as often as `config` says, health turns to NOT_SERVING at once, and
    /// the record says `draining` with the reason and leaves clients' sight, under each of its names. What still arrives
    /// is served. When it passes again the instance is back, unless an operator keeps it out: a drain, an undrain and a
    /// stop hold whatever the check says.
    ///
    /// The check should ask only for what is this process's own; see [`Readiness::new`], which also says what becomes of
    /// one that hangs or panics.
    ///
    /// ```no_run
    /// # async fn example(etcd: svc_registry::Etcd) -> Result<(), svc_registry::Error> {
    /// use svc_registry::{ReadinessConfig, Serve};
    /// let check = || async {
    ///     let writable = tokio::fs::write("/var/lib/greeter/probe", b"").await;
    ///     writable.map_err(|error| format!("the disk takes no data: {error}"))
    /// };
    /// Serve::new(&etcd, "greeter").readiness(check, ReadinessConfig::default()).run().await
    /// # }
    /// ```
    pub fn readiness<C, F, E>(self, check: C, config: ReadinessConfig) -> Self
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Serve { readiness: Some(Readiness::new(check, config)), ..self }
    }

    /// Stops when this is done, instead of at SIGTERM or SIGINT.
    pub fn shutdown(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Serve { shutdown: Some(Box::pin(signal)), ..self }
    }

    /// Registers with this configuration: the lease's time to live.
    pub fn registrar(self, config: RegistrarConfig) -> Self {
        Serve { registrar: config, ..self }
    }

    /// Stops with these limits.
    pub fn stages(self, stages: Stages) -> Self {
        Serve { stages, ..self }
    }
}

impl<L> fmt::Debug for Serve<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("names", &self.names)
            .field("called", &self.called)
            .finish_non_exhaustive()
    }
}
