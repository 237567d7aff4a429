//! Who carries a sending: a claim with an expiry, so that what a dead instance left is taken over.
//!
//! Whether a claim is over is said by the clock of the instance that looks: one that is fast by a second takes over a
//! second early, which costs calls that are made twice and nothing else.

use std::time::Duration;

use sqlx::AnyConnection;

use super::{Error, Refusal, Store};
use crate::database::{Dialect, Job};
use crate::time::now_ms;

/// One instance's claim on one sending; each is drawn anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Claim {
    name: String,
    limit: Duration,
}

impl Claim {
    /// A claim that nobody else has, which is over when it is not renewed for `limit`.
    pub(in super::super) fn new(limit: Duration) -> Claim {
        Claim { name: format!("{:032x}", fastrand::u128(..)), limit }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Until when it holds if it is written down now.
    pub(super) fn until_ms(&self) -> i64 {
        now_ms().saturating_add(i64::try_from(self.limit.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Store {
    /// Sendings that nobody carries any more, at most `limit`, the longest left first.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn left(&self, limit: usize) -> Result<Vec<i64>, Error> {
        let rows = sqlx::query_scalar(
            "SELECT seq FROM sendings WHERE under_way > 0 AND claimed_until_ms <= $1 \
             ORDER BY claimed_until_ms LIMIT $2",
        );
        let rows = rows.bind(now_ms()).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        Ok(rows.fetch_all(&self.0.readers).await?)
    }

    /// Takes over a sending; `false` where somebody else was faster.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn claim(&self, seq: i64, claim: &Claim) -> Result<bool, Error> {
        self.change(Change { seq, claim: claim.clone(), what: What::Take }).await
    }

    /// Keeps a claim; `false` where it is somebody else's by now.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn renew(&self, seq: i64, claim: &Claim) -> Result<bool, Error> {
        self.change(Change { seq, claim: claim.clone(), what: What::Renew }).await
    }

    /// Lets go of a sending, so that another instance carries it on at once.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn release(&self, seq: i64, claim: &Claim) -> Result<bool, Error> {
        self.change(Change { seq, claim: claim.clone(), what: What::Release }).await
    }

    async fn change(&self, change: Change) -> Result<bool, Error> {
        self.0.write(change).await
    }
}

struct Change {
    seq: i64,
    claim: Claim,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Take,
    Renew,
    Release,
}

impl Job for Change {
    type Answer = bool;
    type Refusal = Refusal;

    async fn run(&self, connection: &mut AnyConnection, _: Dialect) -> Result<bool, Error> {
        // Run again after its answer was lost, the first finds its own name.
        let update = match self.what {
            What::Take => {
                "UPDATE sendings SET claimed_by = $1, claimed_until_ms = $2 \
                 WHERE seq = $3 AND (claimed_until_ms <= $4 OR claimed_by = $1)"
            }
            What::Renew | What::Release => {
                "UPDATE sendings SET claimed_until_ms = $2 WHERE seq = $3 AND claimed_by = $1"
            }
        };
        let until = match self.what {
            What::Release => 0,
            What::Take | What::Renew => self.claim.until_ms(),
        };
        let mut query = sqlx::query(update).bind(self.claim.name()).bind(until).bind(self.seq);
        if let What::Take = self.what {
            query = query.bind(now_ms());
        }
        Ok(query.execute(connection).await?.rows_affected() > 0)
    }
}
