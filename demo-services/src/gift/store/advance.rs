//! A receipt goes on, and the inbox with it.

use sqlx::AnyConnection;

use super::super::receipt::{Inbox, Receipt, State};
use super::{Error, Refusal, Store, state_name};
use crate::database::{Dialect, Job};
use crate::time::now_ms;

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Advanced {
    /// It is written down; where the gift was put into the inbox, its position there.
    Written(Option<i64>),
    /// The receipt is no longer as it was seen: somebody else has gone on with it.
    Elsewhere,
}

impl Store {
    /// Writes down what a receipt has become, if it still is in the state `from`.
    ///
    /// # Errors
    /// The database is away, or refuses.
    pub(in super::super) async fn advance(
        &self,
        sending: i64,
        from: State,
        receipt: Receipt,
        inbox: Inbox,
    ) -> Result<Advanced, Error> {
        self.0.write(Advance { sending, from, receipt, inbox }).await
    }
}

struct Advance {
    sending: i64,
    from: State,
    receipt: Receipt,
    inbox: Inbox,
}

impl Job for Advance {
    type Answer = Advanced;
    type Refusal = Refusal;

    async fn run(&self, connection: &mut AnyConnection, _: Dialect) -> Result<Advanced, Error> {
        let Receipt { to, state, tx_id, deliver_by_ms, reason } = &self.receipt;
        let changed = sqlx::query(
            "UPDATE receipts SET state = $1, tx_id = $2, deliver_by_ms = $3, reason = $4 \
             WHERE sending = $5 AND to_uid = $6 AND state = $7",
        )
        .bind(state_name(*state))
        .bind(tx_id)
        .bind(deliver_by_ms)
        .bind(reason)
        .bind(self.sending)
        .bind(to)
        .bind(state_name(self.from))
        .execute(&mut *connection)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(Advanced::Elsewhere);
        }
        if state.is_end() {
            let ended = sqlx::query("UPDATE sendings SET under_way = under_way - 1 WHERE seq = $1");
            ended.bind(self.sending).execute(&mut *connection).await?;
        }
        match self.inbox {
            Inbox::Stays => Ok(Advanced::Written(None)),
            Inbox::Put => Ok(Advanced::Written(Some(self.put(connection).await?))),
            Inbox::TakenBack => {
                let taken = sqlx::query("UPDATE received SET taken_back = 1 WHERE sending = $1 AND uid = $2");
                taken.bind(self.sending).bind(to).execute(connection).await?;
                Ok(Advanced::Written(None))
            }
        }
    }
}

impl Advance {
    /// Puts the gift at the end of the receiver's inbox, which stays locked until the commit.
    async fn put(&self, connection: &mut AnyConnection) -> Result<i64, Error> {
        let position = sqlx::query_scalar::<_, i64>(
            "INSERT INTO inboxes (uid, position) VALUES ($1, 1) \
             ON CONFLICT (uid) DO UPDATE SET position = inboxes.position + 1 RETURNING position",
        )
        .bind(self.receipt.to)
        .fetch_one(&mut *connection)
        .await?;
        sqlx::query("INSERT INTO received (uid, position, sending, delivered_ms) VALUES ($1, $2, $3, $4)")
            .bind(self.receipt.to)
            .bind(position)
            .bind(self.sending)
            .bind(now_ms())
            .execute(connection)
            .await?;
        Ok(position)
    }
}
