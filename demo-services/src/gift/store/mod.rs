//! Sendings and inboxes in a database: SQLite for one host, PostgreSQL for several.
//!
//! ```text
//! begin.rs     a sending is written down, or found under its biz_id
//! advance.rs   a receipt goes on, and the inbox with it
//! claim.rs     who carries a sending
//! read.rs      sendings and inboxes
//! ```
//! **Several instances** on one database: a receipt goes on only from the state in which it was seen, and whoever comes
//! second changes nothing. In a transaction the receipt's row is locked first, then the sending's or the receiver's
//! inbox, never both, so that waiting does not go in a circle.

mod advance;
mod begin;
mod claim;
mod read;

use crate::database::{self, Database, DatabaseUrl, Schema};

use super::catalogue::Item;
use super::receipt::{Receipt, State};

pub(super) use advance::Advanced;
pub(super) use begin::Order;
pub(super) use claim::Claim;
pub(super) use read::Received;

/// Why the store says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The `biz_id` stands for another sending.
    #[error("biz_id {biz_id:?} is known with another body")]
    OtherBody {
        /// What was asked for.
        biz_id: String,
    },
}

/// Why the store did not do what it was asked.
pub type Error = database::Error<Refusal>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// The schema's history. A step that was released is never changed: the next one is added.
const SCHEMA: Schema = Schema {
    sqlite: &[(1, "sendings", include_str!("../../../migrations/gift/sqlite/1_sendings.sql"))],
    postgres: &[(1, "sendings", include_str!("../../../migrations/gift/postgres/1_sendings.sql"))],
};

/// The database of sendings; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store(Database);

impl Store {
    /// Opens the database at `url`, made if it is not there yet, and brings its schema up to date. One that is away is
    /// waited for, up to half a minute.
    ///
    /// # Errors
    /// It stays away; it refuses us; what is there is not ours, or from a newer version.
    pub async fn open(url: &DatabaseUrl) -> Result<Store, Error> {
        Ok(Store(Database::open(url, SCHEMA).await?))
    }

    /// Ends its connections; what is being written is awaited, within a limit.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// A sending as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// Its place among all.
    pub(super) seq: i64,
    /// The caller's name for it.
    pub(super) biz_id: String,
    /// What is sent.
    pub(super) item: Item,
    /// Who pays.
    pub(super) from: i64,
    /// The caller's own numbering.
    pub(super) scene_id: i64,
    /// Milliseconds since 1970.
    pub(super) created_ms: i64,
    /// Each receiver, in the order of the request.
    pub(super) receipts: Vec<Receipt>,
}

impl Sending {
    /// Nothing of it is under way.
    pub(super) fn has_ended(&self) -> bool {
        self.receipts.iter().all(|receipt| receipt.state.is_end())
    }
}

/// A state as it is stored.
fn state_name(state: State) -> &'static str {
    match state {
        State::Freezing => "freezing",
        State::Delivering => "delivering",
        State::Confirming => "confirming",
        State::Refunding => "refunding",
        State::Received => "received",
        State::Refunded => "refunded",
        State::Refused => "refused",
    }
}

fn state_of(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|&state| state_name(state) == name)
}
