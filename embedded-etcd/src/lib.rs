//! An in-memory etcd v3 server for demos and tests, and a TCP proxy that makes the network fail.
//!
//! [`EmbeddedEtcd`] speaks etcd's gRPC API over TCP and, without any socket, over in-memory connections, so that
//! a test can pause tokio's clock and let leases run out at once. [`Hooks`] make it misbehave; [`proxy`] makes
//! the network in front of any server misbehave. One conformance suite holds it and real etcds to the same
//! rules. It keeps its data in memory, and in a folder where it is given one
//! ([`Builder::open`]), and replicates nothing: production uses a real etcd.
//!
//! A request's way through the crate:
//!
//! ```text
//! line (a connection) -> service/* (one per gRPC service) -> member (lock, clock, faults)
//!     -> node: auth (who may) + store (keys at every revision) + lease + watch, pure values
//! and back to watchers: store/changes (the log) -> watch (who is concerned) -> watch/session (one task a stream)
//! ```
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let etcd = embedded_etcd::EmbeddedEtcd::start().await;
//! let mut client = etcd.client().await?;
//! client.put("/services/greeter/i-1", "10.0.0.1:50051", None).await?;
//! let found = client.get("/services/greeter/i-1", None).await?;
//! assert_eq!(found.kvs()[0].value(), b"10.0.0.1:50051");
//! # Ok(())
//! # }
//! ```
//!
//! # What differs from a real etcd
//!
//! - One member, without snapshots. With a data folder a killed process loses nothing but its tokens; the disk is not waited
//!   for, so that a machine without power may lose the last moments.
//! - Tokens are simple ones only, without JWT and client certificates; bcrypt has its least cost.
//! - A put, or a watch, that is refused for want of permission is so with alarms raised too; hashes are others.
//! - A lease ends when its time is over; a real etcd takes up to a second longer.
//! - An answer to a watcher may tell of several revisions at any time; a real etcd does so only while the watcher
//!   catches up. One revision is never divided, except into fragments.
//! - To etcdctl 3.4 endpoints are given without a scheme for `endpoint`, `defrag` and `move-leader`: it sends the whole URL as
//!   the authority, which only Go's servers take.
//! - Nothing is compacted by itself, and every version since the last compaction is kept in memory.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod auth;
mod hooks;
mod journal;
mod lease;
mod limits;
mod line;
mod member;
mod node;
mod pb;
pub mod proxy;
mod refusal;
mod server;
mod service;
mod settings;
mod store;
mod txn;
mod watch;

pub use hooks::Hooks;
pub use server::{Builder, Dialer, EmbeddedEtcd};
