//! Gift: one gift to many receivers, each of whom has it once, paid for through the balance service.
//!
//! ```text
//! request.rs    what came in, checked, as values           catalogue.rs  what can be given
//! service.rs    one method a call
//! courier.rs    carries sendings to their end: write down, take the step, write down what came of it
//! receipt.rs    how far it is for one receiver, what is next, what follows from what came of it; no database, no calls
//! coins.rs      the steps that balance takes               store/        what is written down; the inboxes
//! sweeper.rs    takes over what other instances left behind
//! hub.rs, watching.rs   who waits for gifts, and what they are told
//! point.rs      where tests let the process die
//! args.rs       flags, and the server that they describe
//! ```
//! The protocol, with what each call promises, is `proto/gift/v1`.
//!
//! **Safety does not hang on who carries a sending**: balance's calls are known by a `biz_id` that is made of the sending
//! and the receiver, and each step is written with the condition that the one before still stands. Two instances that
//! carry the same sending take the same steps once. The claim, a lease with an expiry, only sees to it that they
//! seldom do.

mod answer;
mod args;
mod catalogue;
mod coins;
mod courier;
mod hub;
mod point;
mod receipt;
mod request;
mod service;
mod store;
mod sweeper;
mod watching;

pub use crate::database::DatabaseUrl;
pub use args::GiftArgs;
pub use courier::{Courier, Terms};
pub use point::{Point, Probe};
pub use service::Gift;
pub use store::{Error, Refusal, Store};
pub use sweeper::Sweeper;
