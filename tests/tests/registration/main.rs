//! Faults of the write side, on the embedded etcd and on real ones: what stands in etcd when leases are lost, keys
//! are overwritten, processes die, freeze or start twice, and how services stop; and how etcd is spoken to: TLS, users, refusals, and a cluster of
//! three.

#![allow(clippy::print_stdout, reason = "a fault test prints the time that it took")]

mod cluster;
mod healing;
mod history;
mod input;
mod leaks;
mod outage;
mod owners;
mod refusals;
mod soak;
mod starting;
mod stopping;
mod storms;
mod support;
mod tls;
mod users;
