//! The demo services, from which users learn how a service and a client look.
//!
//! [`greeter`] is a service with every kind of gRPC call; [`load`] is a client that calls it steadily and measures;
//! [`balance`] is a ledger in a database; [`gift`] sends gifts that are paid for there, each step written down before it
//! is taken; [`edge`] is HTTP and JSON in front of all services. The binaries below `bin/` are thin.
//!
//! What all services have in common: [`config`] is what they are told, [`service`] what comes of it, [`telemetry`] what
//! they tell of themselves; [`validate`] refuses requests by their fields, [`deadline`] passes the caller's on.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod balance;
mod codes;
pub mod config;
mod database;
pub mod deadline;
pub mod edge;
pub mod error;
pub mod gift;
pub mod greeter;
pub mod load;
mod methods;
pub mod service;
mod signal;
pub mod telemetry;
mod time;
pub mod validate;

/// The tutorial's code is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tutorial.md")]
pub struct Tutorial;
