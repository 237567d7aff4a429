//! `svcctl` against etcds of every kind: what it prints, what it writes, and how it ends.

mod bench;
mod deregister;
mod drain;
mod input;
mod list;
mod living;
mod outage;
mod probe;
mod register;
mod resolve;
mod set;
mod watch;
