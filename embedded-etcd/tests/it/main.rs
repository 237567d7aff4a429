//! The embedded etcd as its users meet it: in memory, mostly under a paused clock.
//!
//! That it answers as etcd does is the conformance suite's business, in the workspace's `tests`.

#![allow(clippy::print_stdout, reason = "measured times belong in a test's output")]

mod data;
mod hooks;
mod lifecycle;
mod scale;
mod support;
