//! `svcctl`: lists and drains the instances of services that are registered in etcd.
//!
//! ```text
//! main -> run -> cli (what was typed) -> context (etcd, printer) -> commands/<one file each>
//!                                                 |                        |
//!                                            inventory (what lies in etcd) + output (tables, JSON) -> exit code
//! ```
//!
//! The library exists so that commands are tested without a process; users run the binary.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod cli;
mod commands;
mod context;
mod demo;
mod exit;
pub mod inventory;
pub mod output;
mod run;

pub use context::{Cancelled, Context};
pub use exit::{Exit, Failure};
pub use run::{main, run};
