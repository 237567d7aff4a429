//! What the end-to-end, fault and interop tests share.
//!
//! [`backends`] are greeters that a test slows down, stops and restarts, [`raw_h2`] peers that break the rules of
//! HTTP/2, [`tls`] makes certificates, [`process`] children for signals and questions; [`etcd`] gives each test an etcd of its own, the
//! embedded one and real ones alike, [`postgres`] a real PostgreSQL, [`database`] runs a law on that and on SQLite; [`ports`] finds loopback ports for the processes that cannot be told to listen on
//! port 0; [`tools`] knows where `make tools` puts what the tests need of the outside.

#![allow(
    clippy::print_stderr,
    reason = "what a test run cannot do, and why one failed, belongs on its stderr"
)]

pub mod backends;
pub mod database;
pub mod etcd;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod raw_h2;
pub mod tls;
pub mod tools;
