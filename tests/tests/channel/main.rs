//! The channel's laws, on real sockets: static lists and hand-made `Discover`s, no etcd. One file a topic; what they
//! share is in `support.rs` and `load.rs`, and `fleet.rs` and `misbehaving.rs` test the tools.

#![expect(clippy::print_stdout, reason = "what was measured beside the assertions is printed for the reader")]

mod addresses;
mod admission;
mod adversary;
mod changes;
mod chaos;
mod deadlines;
mod discovery;
mod dump;
mod edges;
mod failing;
mod faults;
mod fleet;
mod health;
mod hedging;
mod idle;
mod isolation;
mod kinds;
mod limits;
mod load;
mod metrics;
mod misbehaving;
mod moved;
mod policies;
mod readiness;
mod reconfigured;
mod reports;
mod slow_start;
mod strangers;
mod streams;
mod support;
mod tls;
mod waiting;
mod zones;
