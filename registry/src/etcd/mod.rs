//! The connection to etcd: configuration in, clients and classified errors out.
//!
//! `config` -> [`client`](Etcd) -> `transport` (with the user's `token`) -> `members` -> our channel -> a
//! member. The registrar and the catalog are next.

mod authenticate;
mod client;
pub(crate) mod config;
mod error;
mod keepalive;
mod liveness;
mod members;
mod named;
mod pace;
mod request_keys;
pub(crate) mod secret;
pub(crate) mod tls;
mod token;
mod transport;
pub(crate) mod user;
mod watch;

pub use client::Etcd;
pub use config::EtcdConfig;
pub use error::{Failure, classify, classify_status};
pub(crate) use keepalive::{Answer, Keepalive, Renewal};
pub(crate) use liveness::{Liveness, UNANSWERED, Verdict};
pub(crate) use watch::{Range, WatchEvent, Watcher};
