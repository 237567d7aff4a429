//! Faults of the read side, on the embedded etcd and on real ones: what subscribers of the catalog see, and what that
//! means for the calls of a client.

#![allow(clippy::print_stdout, reason = "a fault test prints the time that it took")]

mod client;
mod empty;
mod names;
mod policy;
mod view;
mod watch;
