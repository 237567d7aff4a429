//! [`Resolver`]: from a target to a channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use svc_channel::{Channel, ChannelBuilder};
use svc_registry::catalog::{Catalog, Selector};
use svc_registry::{Etcd, EtcdConfig, ServiceName};

use crate::Error;
use crate::discover::{EtcdDiscover, Feed};
use crate::dump::{self, Candidate, Channels, ResolverDump};
use crate::filter::Filter;
use crate::resolved::{ChannelEndpoints, MakeEndpoint, Resolved};
use crate::stock::{self, TonicEndpoints};
use crate::target::{Source, Target, Wanted};

/// Makes channels to services by name. One per process, cheap to clone; all that it makes share one connection to etcd
/// and one watch stream.
///
/// ```no_run
/// # use svc_proto::greeter::v1::{greeter_client::GreeterClient, HelloRequest};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use svc_resolver::Resolver;
/// let resolver = Resolver::from_env()?;
/// let mut greeter = GreeterClient::new(resolver.channel("greeter")?);
/// let reply = greeter.say_hello(HelloRequest { name: "ada".into() }).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    /// The catalogs of etcds that targets named, by their endpoints.
    others: Mutex<HashMap<Vec<String>, Catalog>>,
    channels: Channels,
}

/// Where a service is looked for when its target does not say.
#[derive(Debug)]
enum Home {
    Etcd {
        config: Box<EtcdConfig>,
        catalog: Catalog,
    },
    /// Nowhere but here.
    Fixed(HashMap<String, Vec<String>>),
}

impl Resolver {
    /// A resolver on this etcd. Asks nothing of it before a channel is made.
    pub fn new(etcd: &Etcd) -> Self {
        let config = Box::new(etcd.config().clone());
        Self::of(Home::Etcd { config, catalog: Catalog::new(etcd) })
    }

    /// A resolver on the etcd that the environment names (`ETCDCTL_ENDPOINTS` and the others of
    /// [`EtcdConfig::from_env`]).
    ///
    /// # Errors
    /// A wrong value in the environment, or no tokio runtime.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self::new(&Etcd::from_env()?))
    }

    /// A resolver without etcd, which knows these services and no others: for tests of one's own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), svc_resolver::Error> {
    /// use svc_resolver::Resolver;
    /// let resolver = Resolver::fixed([("greeter", ["127.0.0.1:50051"])]);
    /// let channel = resolver.channel("greeter")?;
    /// # Ok(()) }
    /// ```
    pub fn fixed<I, S, A>(services: I) -> Self
    where
        I: IntoIterator<Item = (S, A)>,
        S: Into<String>,
        A: IntoIterator,
        A::Item: Into<String>,
    {
        let service =
            |(name, addresses): (S, A)| (name.into(), addresses.into_iter().map(Into::into).collect());
        Self::of(Home::Fixed(services.into_iter().map(service).collect()))
    }

    fn of(home: Home) -> Self {
        Self { inner: Arc::new(Inner { home, others: Mutex::default(), channels: Channels::default() }) }
    }

    /// A balanced channel to a service: hand it to any client that tonic generates. Clone it rather than make another:
    /// each has connections of its own.
    ///
    /// # Errors
    /// A target that cannot be understood (see [`Target`] for what can), or no tokio runtime to work in.
    pub fn channel(&self, target: &str) -> Result<Channel, Error> {
        self.channel_with(target, Channel::builder())
    }

    /// The same with settings of one's own. They hold until an operator puts a service config under the service's policy
    /// key in etcd (`/services-control/policy/<name>`), which then counts in place of the builder's, live; they hold
    /// again when that key is gone. A policy or a zone that the target names is taken in place of the builder's.
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub fn channel_with(&self, target: &str, builder: ChannelBuilder) -> Result<Channel, Error> {
        let parsed: Target = target.parse()?;
        in_runtime(target)?;
        let builder = builder.name(parsed.name());
        let builder = match parsed.balancing {
            Some(policy) => policy.apply(builder),
            None => builder,
        };
        let builder = match &parsed.zone {
            Some(zone) => builder.zone(zone.clone()),
            None => builder,
        };
        let discover = self.follow(&parsed, ChannelEndpoints, true)?;
        // What operators put into etcd counts before what the program was built with, as a resolver's config does in gRPC.
        let builder = builder.service_config_watch(discover.service_config());
        let channel = builder.resolution(discover.resolution()).build(discover);
        self.inner.channels.note(target, &channel);
        Ok(channel)
    }

    /// A stock tonic channel fed by the same discovery, for code that needs that type. It keeps tonic's balancing,
    /// which sends calls to endpoints that are down; prefer [`channel`](Self::channel).
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub fn tonic_channel(&self, target: &str) -> Result<tonic::transport::Channel, Error> {
        in_runtime(target)?;
        Ok(stock::channel(self.discover(target, TonicEndpoints)?))
    }

    /// The tower `Discover` itself, for a balancer of one's own.
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub fn discover<M: MakeEndpoint>(&self, target: &str, make: M) -> Result<EtcdDiscover<M>, Error> {
        self.follow(&target.parse()?, make, false)
    }

    /// What all channels of this resolver see at this moment.
    pub fn dump(&self) -> ResolverDump {
        self.inner.channels.dump()
    }

    /// Reads once which instances a client of this target would use, and why not the others.
    ///
    /// # Errors
    /// A target that cannot be understood, or etcd cannot be read.
    pub async fn explain(&self, target: &str) -> Result<Vec<Candidate>, Error> {
        let parsed: Target = target.parse()?;
        match self.source(&parsed)? {
            Found::Fixed(addresses) => Ok(addresses.iter().map(|address| dump::fixed(address)).collect()),
            Found::Service(catalog, service) => {
                let snapshot = catalog.list(dump::selector(&service)).await?;
                Ok(dump::candidates(&parsed.wanted, snapshot))
            }
        }
    }

    /// `policies`: the consumer is a channel, which obeys the service config in etcd.
    fn follow<M: MakeEndpoint>(
        &self,
        target: &Target,
        make: M,
        policies: bool,
    ) -> Result<EtcdDiscover<M>, Error> {
        let (feed, wanted) = match self.source(target)? {
            Found::Fixed(addresses) => {
                let instances = addresses.iter().map(|address| Resolved::fixed(address)).collect();
                (Feed::Fixed(Some(instances)), Wanted::default())
            }
            Found::Service(catalog, service) => {
                let selector = Selector::service(service).with_intents();
                let events = catalog.watch(if policies { selector.with_policies() } else { selector });
                (Feed::Catalog(Box::new(events)), target.wanted.clone())
            }
        };
        Ok(EtcdDiscover::new(target.to_string(), feed, Filter::new(wanted), make))
    }

    fn source(&self, target: &Target) -> Result<Found, Error> {
        match (&target.source, &self.inner.home) {
            (Source::Static(addresses), _) => Ok(Found::Fixed(addresses.clone())),
            (Source::Etcd { endpoints, service }, Home::Etcd { catalog, .. }) if endpoints.is_empty() => {
                Ok(Found::Service(catalog.clone(), service.clone()))
            }
            (Source::Etcd { endpoints, service }, Home::Fixed(services)) if endpoints.is_empty() => {
                let addresses = services.get(service.as_str()).cloned().unwrap_or_default();
                for address in &addresses {
                    let parsed = address.parse::<svc_channel::Address>();
                    parsed.map_err(|error| Error::target(&target.to_string(), "address", error))?;
                }
                Ok(Found::Fixed(addresses))
            }
            (Source::Etcd { endpoints, service }, _) => {
                Ok(Found::Service(self.catalog_at(endpoints)?, service.clone()))
            }
        }
    }

    /// The catalog of another etcd, made once.
    fn catalog_at(&self, endpoints: &[String]) -> Result<Catalog, Error> {
        let mut others = self.inner.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = others.get(endpoints) {
            return Ok(catalog.clone());
        }
        let config = match &self.inner.home {
            // The same in everything but where it is.
            Home::Etcd { config: home, .. } => home.as_ref().clone().with_endpoints(endpoints)?,
            Home::Fixed(_) => EtcdConfig::new(endpoints)?,
        };
        let catalog = Catalog::new(&Etcd::new(config)?);
        others.insert(endpoints.to_vec(), catalog.clone());
        Ok(catalog)
    }
}

fn in_runtime(target: &str) -> Result<(), Error> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| Error::no_runtime(target))
}

/// Where a target leads.
enum Found {
    Service(Catalog, ServiceName),
    Fixed(Vec<String>),
}
