//! The gift service on SQLite and on a real PostgreSQL, with a ledger beside it: what each call promises, sagas that are
//! killed after each of their steps, instances that take over from each other, watches across them, and a soak with
//! real processes.

#![allow(clippy::print_stderr, reason = "the figures of a run belong on its stderr")]

#[path = "../demo/binaries.rs"]
mod binaries;
mod crashes;
mod failing;
mod laws;
mod soak;
mod support;
mod watches;
