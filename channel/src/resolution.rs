//! What discovery knows. tower's `Discover` only inserts and removes; [`Resolution`] travels beside it, so that
//! "no answer yet" is told from "confirmed empty" and errors can name their reason. Set by whoever discovers, read
//! by the owner.

use std::sync::Arc;

use tokio::time::Instant;

/// The state of discovery beside the set that it has delivered.
///
/// Whoever discovers sends `Live` only after the whole set that it counts has been handed to the `Discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// No answer yet: calls wait for the first one.
    Pending,
    /// The set is current; `known` endpoints, none included.
    Live {
        /// How many endpoints discovery knows.
        known: usize,
    },
    /// The source cannot be reached: the last known set stays.
    Stale {
        /// Since when.
        since: Instant,
        /// Why, as the source said it.
        reason: Arc<str>,
    },
}
