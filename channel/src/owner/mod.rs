//! The owner: one task that consumes discovery, dials, watches connections, runs timers, and publishes what requests
//! read. `core.rs` decides (pure; `siblings.rs` for further connections to one
//! endpoint, `presence.rs` for what counts as new), `idle.rs` says when the channel is idle, `config.rs` is the service config
//! in force, `discovery.rs` and `loads.rs` are what comes in and what is counted, `task.rs` acts, `publish.rs` makes of it all, when `shown.rs` says so, the
//! `snapshot.rs` that is published.

pub(crate) mod config;
pub(crate) mod core;
pub(crate) mod discovery;
pub(crate) mod idle;
pub(crate) mod loads;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod shown;
pub(crate) mod siblings;
pub(crate) mod snapshot;
pub(crate) mod task;
