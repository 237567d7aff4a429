//! The ledger in a database: SQLite for one host, PostgreSQL for several.
//!
//! In come orders and ends of transactions; each is one database transaction: the caller's names are looked up, the
//! accounts locked and read into a [`Book`](super::ledger::Book), which says what may move, and what it says is
//! written down. Whatever fails on the way has not happened.
//!
//! ```text
//! order.rs     freeze, add             } what is done in one database transaction
//! complete.rs  confirm, refund, expire }
//! book.rs      the accounts and the entries, for both
//! read.rs      balances, pages, what is due
//! check.rs     whether everything adds up
//! ```
//!
//! **Several instances** on one database: on SQLite a write begins with the database's one write lock (`BEGIN
//! IMMEDIATE`); on PostgreSQL the rows are locked, the transaction's first and then the accounts in their order, so that
//! waiting never goes in a circle. In both the `UNIQUE` of `biz_id` decides which of two equal orders is the first.

mod book;
mod check;
mod complete;
mod order;
mod read;

use super::ledger::Refusal;
use crate::database::{self, Database, DatabaseUrl, Mode, Schema};

pub use check::{Fault, Figures};
pub use order::Terms;

/// Why the store did not do what it was asked.
pub type Error = database::Error<Refusal>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// The schema's history. A step that was released is never changed: the next one is added.
const SCHEMA: Schema = Schema {
    sqlite: &[(1, "ledger", include_str!("../../../migrations/balance/sqlite/1_ledger.sql"))],
    postgres: &[(1, "ledger", include_str!("../../../migrations/balance/postgres/1_ledger.sql"))],
};

/// The ledger's database; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store(Database);

impl Store {
    /// Opens the ledger at `url`, made if it is not there yet, and brings its schema up to date. A database that is away
    /// is waited for, up to half a minute.
    ///
    /// # Errors
    /// It stays away; it refuses us; what is there is not ours, or from a newer version.
    pub async fn open(url: &DatabaseUrl) -> Result<Store, Error> {
        Ok(Store(Database::open(url, SCHEMA).await?))
    }

    /// Opens a ledger that is there, and changes nothing.
    ///
    /// # Errors
    /// There is none.
    pub async fn open_existing(url: &DatabaseUrl) -> Result<Store, Error> {
        let database = Database::connect(url, Mode::Existing)?;
        let found =
            sqlx::query("SELECT 1 FROM transactions WHERE seq = 0").fetch_optional(&database.readers).await;
        found.map_err(|error| Error::from(error).at(url))?;
        Ok(Store(database))
    }

    /// Ends its connections; what is being written is awaited, within a limit.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
