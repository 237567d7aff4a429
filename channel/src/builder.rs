//! [`ChannelBuilder`]: the settings of a channel, and its making.

use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::BoxError;
use tower::discover::{Change, Discover};

use crate::admission::Admission;
use crate::attempt::budget::Budget;
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::front::{ConnectivityState, Front};
use crate::health::outlier::OutlierDetection;
use crate::metrics;
use crate::owner::config::{Config, Updates};
use crate::owner::core::EndpointSet;
use crate::owner::discovery::Discovery;
use crate::owner::idle::{Idleness, Mark};
use crate::owner::loads::Loads;
use crate::owner::siblings::Connections;
use crate::owner::snapshot::{Snapshot, Verdict};
use crate::owner::task::{HAPPENINGS, Owner};
use crate::policy::arrange::Arrangement;
use crate::policy::{PeakEwma, Policy, SlowStart};
use crate::resolution::Resolution;
use crate::service_config::ServiceConfig;
use crate::subchannel::connect::{Connect, SocketConnector};
use crate::subchannel::dial::Transport;
use crate::subchannel::pings::KeepAlive;
use crate::subchannel::slots::SlotFreed;

/// At most so many endpoints are dialled at once: enough to hide round trips, few enough for a burst of TLS handshakes.
const MAX_DIALS: usize = 64;

/// A shorter idle timeout would have connections come and go between two calls of one user.
const SHORTEST_IDLE: Duration = Duration::from_millis(100);

/// gRFC A105's limit for connections to one endpoint.
const MOST_CONNECTIONS: usize = 10;

/// How much of a streamed request is kept so that it can be sent again, as in grpc-java ...
const REPLAY_PER_CALL: usize = 1024 * 1024;
/// ... and how much of all requests of a channel together, as there too.
const REPLAY_PER_CHANNEL: usize = 16 * 1024 * 1024;

/// How a channel is made.
///
/// ```no_run
/// use std::time::Duration;
/// use svc_channel::{Channel, Endpoint, RoundRobin};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = Channel::builder()
///     .name("greeter")
///     .policy(RoundRobin::new())
///     .deadline(Duration::from_secs(2))
///     .fixed([Endpoint::new("10.0.0.1:50051")?]);
/// # Ok(()) }
/// ```
///
/// # Defaults
/// * [`policy`](Self::policy): [`PeakEwma`], which needs no settings, reads weights and avoids slow endpoints
/// * [`zone`](Self::zone): none; all endpoints are alike wherever they are, since a guess would send calls far away
/// * [`service_config`](Self::service_config): empty; no timeout, no retries, no split
/// * [`deadline`](Self::deadline): none; a default would cut long streams
/// * [`max_calls_in_flight`](Self::max_calls_in_flight), [`max_calls_waiting`](Self::max_calls_waiting): no limit; what is
///   too many only the program knows
/// * [`replay_limit_per_call`](Self::replay_limit_per_call): 1 MiB,
///   [`replay_limit_per_channel`](Self::replay_limit_per_channel): 16 MiB, as in grpc-java
/// * [`connect_timeout`](Self::connect_timeout): 5 s, from the dial to the peer's SETTINGS, TLS included: several round
///   trips around the world, and short enough to go on to what else there is
/// * [`max_backoff`](Self::max_backoff): 120 s between connect attempts, after 1 s times 1.6 each (gRPC "Connection
///   Backoff Protocol")
/// * [`max_dials`](Self::max_dials): 64 endpoints at once: enough to hide round trips, few enough for a burst of TLS
///   handshakes
/// * [`connections_per_endpoint`](Self::connections_per_endpoint): one, since each costs the server memory; up to
///   [ten](Self::max_connections_per_endpoint) where the peer's stream limit is reached (gRFC A105)
/// * [`outlier_detection`](Self::outlier_detection): [`OutlierDetection`]'s: failures and expired deadlines in a row
///   eject, statistics are off
/// * [`slow_start`](Self::slow_start): off; how long warming up takes only the service knows
/// * [`idle_timeout`](Self::idle_timeout): none; a channel that is used must not wait for a connect after a quiet hour
/// * [`keepalive`](Self::keepalive): off; servers that were not told to expect pings refuse them, and deadlines find a
///   black hole sooner
/// * [`metrics`](Self::metrics): off, as in gRPC (A66): a recorder must keep five histograms for each method and status
/// * [`connector`](Self::connector): [`SocketConnector`], TCP and unix sockets
/// * TLS: none; it needs a name to be checked against, or an authority to be trusted
#[must_use]
pub struct ChannelBuilder {
    name: Arc<str>,
    policy: Option<Box<dyn Policy>>,
    zone: Option<Arc<str>>,
    service_config: ServiceConfig,
    service_config_watch: Option<Updates>,
    deadline: Option<Duration>,
    admission: Admission,
    replay_per_call: usize,
    replay_per_channel: usize,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    max_backoff: Duration,
    max_dials: usize,
    connections: Connections,
    outliers: OutlierDetection,
    slow_start: Option<SlowStart>,
    keepalive: Option<KeepAlive>,
    connector: Arc<dyn Connect>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::TlsConfig>,
    resolution: Option<watch::Receiver<Resolution>>,
    metrics: bool,
}

impl Default for ChannelBuilder {
    fn default() -> Self {
        Self {
            name: "channel".into(),
            policy: None,
            zone: None,
            service_config: ServiceConfig::default(),
            service_config_watch: None,
            deadline: None,
            admission: Admission::default(),
            replay_per_call: REPLAY_PER_CALL,
            replay_per_channel: REPLAY_PER_CHANNEL,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            max_backoff: Duration::from_secs(120),
            max_dials: MAX_DIALS,
            connections: Connections { set: 1, most: MOST_CONNECTIONS },
            outliers: OutlierDetection::default(),
            slow_start: None,
            keepalive: None,
            connector: Arc::new(SocketConnector::default()),
            #[cfg(feature = "tls")]
            tls: None,
            resolution: None,
            metrics: false,
        }
    }
}

impl Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("name", &self.name)
            .field("policy", &self.policy.as_ref().map(|p| p.name()))
            .field("service_config", &self.service_config)
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_backoff", &self.max_backoff)
            .field("keepalive", &self.keepalive)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// Starts with the defaults, which [`ChannelBuilder`] lists.
    pub fn builder() -> ChannelBuilder {
        ChannelBuilder::default()
    }

    /// A channel over a list that does not change, with the defaults.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`ChannelBuilder::build`].
    pub fn fixed(endpoints: impl IntoIterator<Item = Endpoint>) -> Channel {
        Self::builder().fixed(endpoints)
    }
}

// What users build on: a builder may be moved into the task that uses it.
const _: () = {
    const fn is_sent<T: Send + std::fmt::Debug + 'static>() {}
    is_sent::<ChannelBuilder>();
};

impl ChannelBuilder {
    /// The channel's name in errors, dumps and logs: mostly the service's.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The load-balancing policy; the service config's counts before it.
    pub fn policy(self, policy: impl Policy) -> Self {
        Self { policy: Some(Box::new(policy)), ..self }
    }

    /// Where the client runs: calls stay with endpoints of this zone while those that are ready can take them, and
    /// spill over to the others in proportion where they cannot.
    ///
    /// The zone takes 1.4 times the ready part of its capacity (Envoy's overprovisioning): all calls while 72 % of it
    /// are ready, 70 % of the calls at one half, none once nobody is left. It takes less where it is small: callers are
    /// taken to be spread evenly over the zones, and no endpoint gets more than 1.4 times its fair part of them.
    /// Capacity is weight. With `ring_hash` a key has a home in the zone and one elsewhere; with `pick_first` the zone says
    /// nothing, since one endpoint is connected, the first that can be.
    pub fn zone(self, zone: impl Into<Arc<str>>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Behaviour as gRPC's service config says it: policy, health checks, timeouts, waiting for ready, retries; and the
    /// split.
    pub fn service_config(self, config: ServiceConfig) -> Self {
        Self { service_config: config, ..self }
    }

    /// Service configs as they change, which count in place of [`service_config`](Self::service_config); while the watch
    /// holds `None` that one counts. A change takes effect for the next calls; no call in flight is touched and no
    /// connection is closed. Where the sender is dropped, the last config stays.
    ///
    /// ```
    /// use svc_channel::{Channel, ServiceConfig};
    /// use tokio::sync::watch;
    ///
    /// let (live, configs) = watch::channel(None);
    /// let builder = Channel::builder().service_config_watch(configs);
    /// // Later, from a file or a registry; what cannot be read never gets to the channel.
    /// match r#"{"split": [{"match": {"version": "v2"}, "percent": 5}]}"#.parse::<ServiceConfig>() {
    ///     Ok(config) => drop(live.send_replace(Some(config))),
    ///     Err(error) => eprintln!("{error}; the last config stays"),
    /// }
    /// # drop(builder);
    /// ```
    pub fn service_config_watch(self, configs: watch::Receiver<Option<ServiceConfig>>) -> Self {
        Self { service_config_watch: Some(configs), ..self }
    }

    /// The deadline of calls that bring none (`grpc-timeout`); it covers waiting, repeating and the response's stream.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// How many calls may be in flight at once, streams until their last byte and calls that wait included; one more is
    /// refused at once with RESOURCE_EXHAUSTED. For callers that would otherwise pile up work, and memory, without end.
    pub fn max_calls_in_flight(mut self, count: usize) -> Self {
        self.admission.limit_in_flight(count);
        self
    }

    /// How many calls may wait for an endpoint or for a stream at once; one more is refused at once with
    /// RESOURCE_EXHAUSTED. Zero lets no call wait.
    pub fn max_calls_waiting(mut self, count: usize) -> Self {
        self.admission.limit_waiting(count);
        self
    }

    /// How many bytes of a streamed request are kept so that it can be sent again; beyond that it is sent once. Requests
    /// that are one message are kept whole.
    pub fn replay_limit_per_call(self, bytes: usize) -> Self {
        Self { replay_per_call: bytes, ..self }
    }

    /// How many bytes of all requests together are kept so that they can be sent again; where they are used up a call is
    /// sent once. Unary requests of up to 64 KiB are not counted.
    pub fn replay_limit_per_channel(self, bytes: usize) -> Self {
        Self { replay_per_channel: bytes, ..self }
    }

    /// How long a connect attempt may take, from the dial to the peer's SETTINGS.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// Without a call for so long the channel goes idle: all connections are closed, and nothing is dialled until the next
    /// call, which waits as for a first connect. A stream counts as a call until its end, and so does a call that waits.
    /// What is below 100 ms counts as that; the channel rests at most a quarter of the timeout late.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        Self { idle_timeout: Some(timeout.max(SHORTEST_IDLE)), ..self }
    }

    /// The longest wait between connect attempts to one endpoint.
    pub fn max_backoff(self, limit: Duration) -> Self {
        Self { max_backoff: limit, ..self }
    }

    /// How many endpoints are dialled at once; at least one.
    pub fn max_dials(self, count: usize) -> Self {
        Self { max_dials: count.max(1), ..self }
    }

    /// How many connections each endpoint has, at least one: more where many workers send through one channel, since
    /// each connection is driven by one task.
    pub fn connections_per_endpoint(self, count: usize) -> Self {
        let set = count.max(1);
        Self { connections: Connections { set, most: self.connections.most.max(set) }, ..self }
    }

    /// How many connections an endpoint has at most when the peer's stream limit is reached (gRFC A105).
    pub fn max_connections_per_endpoint(self, count: usize) -> Self {
        Self {
            connections: Connections { most: count.max(self.connections.set), ..self.connections },
            ..self
        }
    }

    /// When endpoints are ejected; the service config's counts before it.
    pub fn outlier_detection(self, outliers: OutlierDetection) -> Self {
        Self { outliers, ..self }
    }

    /// Leads endpoints that are new up to their share, around any policy but those that use one endpoint for all calls
    /// (`pick_first`).
    pub fn slow_start(self, slow_start: SlowStart) -> Self {
        Self { slow_start: Some(slow_start), ..self }
    }

    /// Switches HTTP/2 keepalive on.
    pub fn keepalive(self, keepalive: KeepAlive) -> Self {
        Self { keepalive: Some(keepalive.checked()), ..self }
    }

    /// Measures each call and attempt, by the names of gRFC A66 and A96 (`docs/metrics.md` lists them), with the channel's
    /// name as `grpc.target`. The recorder must be installed before the channel is built.
    pub fn metrics(self) -> Self {
        Self { metrics: true, ..self }
    }

    /// How transports are made.
    pub fn connector<C: Connect>(self, connector: C) -> Self {
        Self { connector: Arc::new(connector), ..self }
    }

    /// Speaks TLS to every endpoint.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: crate::tls::TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// What discovery says of itself, beside the `Discover`.
    pub fn resolution(self, mut resolution: watch::Receiver<Resolution>) -> Self {
        // What it says already counts as news.
        resolution.mark_changed();
        Self { resolution: Some(resolution), ..self }
    }

    /// A channel over a list that does not change.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    pub fn fixed(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Channel {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        // The sender's drop is no change: what it said last holds.
        let (_, live) = watch::channel(Resolution::Live { known: endpoints.len() });
        let inserts =
            endpoints.into_iter().enumerate().map(|(key, e)| Ok::<_, Infallible>(Change::Insert(key, e)));
        self.resolution(live).build(futures_util::stream::iter(inserts))
    }

    /// A channel over any tower `Discover`. An insert of a key that is known is an update in place: a changed weight,
    /// zone or tag keeps the connection; a changed address is connected before the old connection is drained.
    ///
    /// Errors of the `Discover` are logged and it is asked again; where it ends the channel goes on with what it has.
    ///
    /// # Panics
    /// Outside a tokio runtime: the channel's task is spawned here.
    pub fn build<D>(self, discover: D) -> Channel
    where
        D: Discover<Service = Endpoint> + Send + 'static,
        D::Key: Hash + Clone + Debug + Send + Sync,
        D::Error: Into<BoxError>,
    {
        let own = self.policy.unwrap_or_else(|| Box::new(PeakEwma::new()));
        let config = Config::new(self.service_config, self.outliers, self.service_config_watch);
        let mut arrangement = Arrangement::new(own, self.zone, config.in_force());
        let outliers = config.outliers().clone();
        let next_sweep = outliers.has_statistics().then(|| Instant::now() + outliers.interval);
        let loads = Loads::new(outliers.consecutive_failures);
        let connects_all = arrangement.policy().connects_all();
        let rng = fastrand::Rng::new();
        let mut set =
            EndpointSet::new(self.max_backoff, outliers, self.connections, connects_all, self.max_dials, rng);
        set.set_slow_start(self.slow_start);
        let health_check = config.in_force().health_check.clone();
        set.set_checks(health_check.is_some(), Instant::now());
        let nothing_yet = Snapshot {
            picker: arrangement.update(&[], &[], std::iter::empty()),
            ready: [].into(),
            methods: config.methods().cloned(),
            verdict: Verdict::Wait(format!("{}: discovery has not answered yet", self.name).into()),
            endpoints: [].into(),
            policy: arrangement.policy().name(),
            resolution: "has not answered yet".into(),
        };
        let front = Arc::new(Front {
            metrics: metrics::per_call(self.metrics, &self.name),
            subchannels: metrics::subchannel::Subchannels::new(&self.name),
            name: self.name,
            deadline: self.deadline,
            admission: self.admission,
            replay: Budget::new(self.replay_per_call, self.replay_per_channel),
            snapshot: ArcSwap::from_pointee(nothing_yet),
            published: Notify::new(),
            slot_freed: Arc::new(SlotFreed::default()),
            state: watch::Sender::new(ConnectivityState::Connecting),
            mark: self.idle_timeout.map(|_| Mark::default()),
        });
        let owner = Owner {
            front: front.clone(),
            set,
            discovery: Discovery::new(discover, self.resolution),
            arrangement,
            config,
            transport: Transport {
                connector: self.connector,
                connect_timeout: self.connect_timeout,
                #[cfg(feature = "tls")]
                tls: self.tls,
            },
            keepalive: self.keepalive,
            health_check,
            max_backoff: self.max_backoff,
            happenings: mpsc::channel(HAPPENINGS),
            links: Default::default(),
            shown: Default::default(),
            loads,
            tasks: JoinSet::new(),
            born: Instant::now(),
            waited: false,
            spread: self.connections.set,
            next_weights: None,
            weights: None,
            next_sweep,
            idleness: self.idle_timeout.map(|timeout| Idleness::new(timeout, Instant::now())),
        };
        let end = CancellationToken::new();
        // Owned by the channel's clones, whose last drop cancels `end`; its queues are bounded; it has no errors of its
        // own, those of connections go to the calls and the dump.
        tokio::spawn(owner.run(end.clone()));
        Channel::new(front, end.drop_guard())
    }
}
