//! Balance: a double-entry ledger of coins, whose calls may all be repeated.
//!
//! ```text
//! request.rs   what came in, checked, as values            page.rs   pages and their tokens
//! service.rs   one method a call: request -> store -> answer or status
//! ledger.rs    accounts, postings, what may become of a transaction; no database
//! store/       the ledger in SQLite or PostgreSQL
//! sweeper.rs   gives back what nobody completed
//! args.rs      flags, and the server that they describe
//! ```
//! The protocol, with what each call promises, is `proto/balance/v1`.

mod args;
pub mod ledger;
mod page;
mod request;
mod service;
mod store;
mod sweeper;

pub use crate::database::DatabaseUrl;
pub use args::BalanceArgs;
pub use service::Balance;
pub use store::{Error, Fault, Figures, Store, Terms};
pub use sweeper::Sweeper;
