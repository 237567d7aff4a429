//! Services in etcd: leased registration that heals, operator drain, and a gap-free catalog.
//!
//! ```text
//! cli:     flags, environment, file -> config (feature `cli`)
//! etcd:    config -> Etcd -> transport -> a member (every refusal classified in etcd/error.rs)
//! own:     Instance -> Registrar -> (table of registrations, leases, drains) -> etcd
//! ready:   the user's check -> readiness -> in or out of service
//! serve:   listen -> health, ready -> own -> tonic, and the stages of a stop
//! watch:   etcd -> catalog -> snapshots and changes
//! names:   name -> keys -> record (what lies in etcd, written for readers elsewhere too)
//! ```
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod backoff;
pub mod catalog;
#[cfg(feature = "cli")]
pub mod cli;
mod drain;
mod error;
pub mod etcd;
pub mod intent;
pub mod keys;
mod metrics;
pub mod name;
mod readiness;
pub mod record;
mod registrar;
#[cfg(feature = "server")]
pub mod serve;

pub use catalog::Catalog;
pub use drain::Phase;
pub use error::Error;
pub use etcd::{Etcd, EtcdConfig};
pub use keys::Prefix;
pub use name::{Epoch, Incarnation, InstanceId, InvalidName, LeaseId, Revision, ServiceName};
pub use readiness::{Readiness, ReadinessConfig, Verdict};
pub use record::{BadRecord, Record, State, Weight};
pub use registrar::{Instance, Registrar, RegistrarConfig, Registration, RegistrationStatus};
#[cfg(feature = "server")]
pub use serve::Serve;
