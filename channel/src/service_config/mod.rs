//! gRPC's service config: behaviour as data (gRPC "Service Config in gRPC", gRFC A2). `parse.rs` reads the standard
//! JSON strictly, `model.rs` is what it means, `policies.rs` names the policies, `split.rs` reads what we add, `duration.rs` and
//! `path.rs` are its small words.

mod duration;
mod error;
mod model;
mod parse;
mod path;
pub(crate) mod policies;
mod split;

pub use error::InvalidServiceConfig;
pub use model::{HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling, ServiceConfig};
