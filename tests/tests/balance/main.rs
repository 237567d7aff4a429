//! The balance service on SQLite and on a real PostgreSQL: its laws, a model beside it under 64 callers on two instances,
//! expiry, crashes in the middle of a transaction, and databases that fail.

#![allow(clippy::print_stderr, reason = "the seed and the figures of a run belong on its stderr")]

mod check;
mod crashes;
mod expiry;
mod faults;
mod laws;
mod model;
mod opening;
mod support;
