//! A gRPC resolver on etcd: from a service's name to a balanced channel.
//!
//! ```text
//! target -> Resolver -> catalog (svc-registry) -> filter -> EtcdDiscover -> Channel (svc-channel)
//!                                                                |-> stock tonic channel
//!                                                                +-> any consumer of a tower Discover
//! ```
//!
//! * `target.rs`: what a client names
//! * `resolver.rs`: from there to a channel
//! * `filter.rs`: which instances are used, and why the others are not
//! * `discover.rs`, `resolved.rs`: the tower `Discover`, and what it hands on
//! * `live.rs`: the service config that operators put into etcd
//! * `stock.rs`: tonic's own channel on it
//! * `policy.rs`, `dump.rs`: policies by name; what a client sees
//!
//! A client needs this crate only:
//!
//! ```no_run
//! # use svc_proto::greeter::v1::{greeter_client::GreeterClient, HelloRequest};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let resolver = svc_resolver::Resolver::from_env()?;
//! let mut greeter = GreeterClient::new(resolver.channel("greeter")?);
//! let reply = greeter.say_hello(HelloRequest { name: "ada".into() }).await?;
//! # Ok(()) }
//! ```
//!
//! All that its channels are set up with is here too:
//!
//! ```no_run
//! use std::time::Duration;
//! use svc_resolver::{ChannelBuilder, KeepAlive, LoadReports, OutlierDetection, ServiceConfig, SlowStart};
//! use svc_resolver::{SuccessRate, WeightedRoundRobin};
//!
//! # fn example(builder: ChannelBuilder) -> Result<ChannelBuilder, svc_resolver::InvalidServiceConfig> {
//! let mut outliers = OutlierDetection::default();
//! outliers.success_rate = Some(SuccessRate::default());
//! let config: ServiceConfig = r#"{"methodConfig": [{"name": [{}], "timeout": "2s"}]}"#.parse()?;
//! # Ok(
//! builder
//!     .policy(WeightedRoundRobin::new().load_reports(LoadReports::default()))
//!     .slow_start(SlowStart::new(Duration::from_secs(30)))
//!     .outlier_detection(outliers)
//!     .keepalive(KeepAlive::default())
//!     .service_config(config)
//! # ) }
//! ```
//!
//! # Features
//! * `tls` (default): TLS towards instances and etcd
//! * `opentelemetry`: calls carry the current span's trace context, as `svc-channel` says
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod discover;
mod dump;
mod error;
mod filter;
mod live;
mod policy;
mod resolved;
mod resolver;
mod stock;
mod target;

pub use discover::EtcdDiscover;
pub use dump::{Candidate, ResolverDump, TargetDump};
pub use error::Error;
pub use filter::Excluded;
pub use policy::Balancing;
pub use resolved::{ChannelEndpoints, InstanceKey, MakeEndpoint, Resolved};
pub use resolver::Resolver;
pub use stock::TonicEndpoints;
pub use target::Target;

pub use svc_channel::{
    Address, Call, Channel, ChannelBuilder, ChannelDump, ConnectivityState, Endpoint, EndpointDump,
    EndpointState, FailurePercentage, InvalidServiceConfig, KeepAlive, LeastRequest, Load, LoadReports,
    OutlierDetection, PeakEwma, Peer, PickFirst, Picker, Policy, Resolution, RingHash, RoundRobin, SendOnce,
    ServiceConfig, SlowStart, Subchannel, SuccessRate, WaitForReady, WeightedRoundRobin,
};
#[cfg(feature = "tls")]
pub use svc_channel::{TlsConfig, TlsError};
pub use svc_registry::{Etcd, EtcdConfig};
