//! A balanced gRPC channel over any tower `Discover`, for clients that tonic generates.
//!
//! ```text
//!  Discover --> owner (task, core) --publishes--> snapshot: picker + connections
//!                 |  ^                               |
//!            dial |  | reports                       | read by each call, without a lock
//!                 v  |                               v
//!             subchannel/connection <--- h2 ---- call: deadline, pick, attempt
//!                                                    |
//!                 load, health <---- body ends ------+
//! ```
//!
//! * `channel.rs`, `call.rs`: the tower `Service`, and a call's way through it (`call/`)
//! * `owner/`: the one task that consumes discovery, dials, and publishes what calls read
//! * `subchannel/`: one endpoint: its life as a table, its connection, a stream on it
//! * `health/`: which of the connected endpoints take calls
//! * `policy/`: how one of the ready endpoints is chosen
//! * `tls/`: TLS towards endpoints
//! * `attempt/`: whether and how a call is sent again
//! * `admission.rs`, `meter.rs`: how many calls there may be at once, and how large their messages
//! * `status.rs`: the one place where codes are decided
//!
//! ```no_run
//! use svc_channel::{Channel, Endpoint};
//! # use svc_proto::greeter::v1::{greeter_client::GreeterClient, HelloRequest};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let channel = Channel::fixed([Endpoint::new("10.0.0.1:50051")?, Endpoint::new("10.0.0.2:50051")?]);
//! let mut greeter = GreeterClient::new(channel);
//! # Ok(()) }
//! ```
//!
//! # Examples
//! Each in `examples/`, short, and run by itself (`cargo run -p svc-channel --example layers`):
//! * `static_list`: a list that does not change
//! * `discover`: a `Discover` of one's own, from a file that is read again each second
//! * `service_config`: policy, timeout and retries as gRPC's JSON, replaced while calls run
//! * `layers`: tonic's interceptors and tower's layers on top
//! * `policy`: a policy of one's own
//! * `in_memory`: tests of one's own client without sockets or real time
//!
//! # Features
//! * `tls` (default): [`ChannelBuilder::tls`], with rustls and ring. `svc-resolver` has it on by default too;
//!   `svc-registry` uses this crate without it, so that a service that calls nobody does not build ring.
//! * `opentelemetry`: the trace context of the span in which a call is made goes with it (`traceparent`), through the
//!   propagator of `opentelemetry::global::set_text_map_propagator`. What the caller set itself is left alone.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod admission;
mod attempt;
mod builder;
mod call;
mod channel;
mod deadline;
mod dump;
mod endpoint;
mod ewma;
mod front;
mod health;
mod load;
mod meter;
mod metrics;
mod owner;
mod peer;
mod policy;
#[cfg(feature = "opentelemetry")]
mod propagate;
mod resolution;
mod service_config;
mod status;
mod subchannel;
#[cfg(feature = "tls")]
mod tls;
mod trace;

pub use builder::ChannelBuilder;
pub use call::{CallFuture, SendOnce, WaitForReady};
pub use channel::{Channel, WeakChannel};
pub use dump::{ChannelDump, EndpointDump, EndpointState};
pub use endpoint::{Address, DEFAULT_WEIGHT, Endpoint, InvalidAddress, MAX_WEIGHT};
pub use front::ConnectivityState;
pub use health::orca::LoadReports;
pub use health::outlier::{FailurePercentage, OutlierDetection, SuccessRate};
pub use load::Load;
pub use peer::Peer;
pub use policy::{
    Call, LeastRequest, PeakEwma, PickFirst, Picker, Policy, RingHash, RoundRobin, SlowStart,
    WeightedRoundRobin,
};
pub use resolution::Resolution;
pub use service_config::{
    HedgingPolicy, InvalidServiceConfig, MethodConfig, RetryPolicy, RetryThrottling, ServiceConfig,
};
pub use subchannel::connect::{BoxIo, Connect, Connecting, Io, Resolving, SocketConnector, connector_fn};
pub use subchannel::pings::KeepAlive;
pub use subchannel::{ResponseBody, Subchannel};
#[cfg(feature = "tls")]
pub use tls::{TlsConfig, TlsError};
