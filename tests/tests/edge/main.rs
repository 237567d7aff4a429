//! The edge as a process, in front of services that register: what HTTP callers get, what becomes of it when a service
//! is away, and the page in a real browser.

mod answers;
#[path = "../demo/binaries.rs"]
mod binaries;
mod doubles;
mod events;
mod gifts;
mod page;
mod support;
