//! What is asked of the ledger without changing it, and how a row becomes a [`Transaction`].

use sqlx::Row;
use sqlx::any::AnyRow;

use super::super::ledger::{Coin, Order, State, Transaction, Uid};
use super::{Error, Store};

/// The columns that [`transaction`] reads, in their order.
pub(super) const COLUMNS: &str = "seq, tx_id, state, from_uid, to_uid, coin, biz_type, biz_id, scene_id, \
     receiver_coin, created_ms, expires_ms, completed_ms";

impl Store {
    /// What a user can spend, and what is set aside.
    ///
    /// # Errors
    /// The database is away.
    pub async fn balance(&self, uid: Uid) -> Result<(i64, i64), Error> {
        let (mut available, mut frozen) = (0, 0);
        let query = sqlx::query("SELECT kind, balance FROM accounts WHERE uid = $1").bind(uid.get());
        for row in query.fetch_all(&self.0.readers).await? {
            match row.try_get(0)? {
                "available" => available = row.try_get(1)?,
                _ => frozen = row.try_get(1)?,
            }
        }
        Ok((available, frozen))
    }

    /// The newest transactions of a user, at most `limit`, all of them below `before` where that is given.
    ///
    /// # Errors
    /// The database is away.
    pub async fn page(&self, uid: Uid, before: Option<i64>, limit: usize) -> Result<Vec<Transaction>, Error> {
        // Each half reads its own index backwards. Nobody sends to himself, so that nothing is in both.
        let half = |column: &str| {
            format!(
                "SELECT * FROM (SELECT {COLUMNS} FROM transactions WHERE {column} = $1 AND seq < $2 \
                 ORDER BY seq DESC LIMIT $3) AS {column}_half"
            )
        };
        let query = format!("{} UNION ALL {} ORDER BY seq DESC LIMIT $3", half("from_uid"), half("to_uid"));
        let rows = sqlx::query(&query)
            .bind(uid.get())
            .bind(before.unwrap_or(i64::MAX))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.0.readers)
            .await?;
        rows.iter().map(transaction).collect()
    }

    /// Frozen transactions whose time is over at `now_ms`, the oldest first, behind `after` where that is given. Each
    /// with what stands for it in the next `after`.
    ///
    /// # Errors
    /// The database is away.
    pub async fn due(
        &self,
        now_ms: i64,
        after: Option<(i64, i64)>,
        limit: u32,
    ) -> Result<Vec<(String, (i64, i64))>, Error> {
        let (time, seq) = after.unwrap_or((i64::MIN, 0));
        let rows = sqlx::query(
            "SELECT tx_id, expires_ms, seq FROM transactions \
             WHERE state = 'frozen' AND expires_ms <= $1 AND (expires_ms, seq) > ($2, $3) \
             ORDER BY expires_ms, seq LIMIT $4",
        )
        .bind(now_ms)
        .bind(time)
        .bind(seq)
        .bind(i64::from(limit))
        .fetch_all(&self.0.readers)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
    }
}

/// The transaction of a row of [`COLUMNS`].
pub(super) fn transaction(row: &AnyRow) -> Result<Transaction, Error> {
    let wrong = |what: &str| Error::Internal(format!("a transaction with a wrong {what}"));
    let state: &str = row.try_get(2)?;
    let from: i64 = row.try_get(3)?;
    let order = Order {
        from: match from {
            0 => None,
            uid => Some(Uid::new(uid).ok_or_else(|| wrong("from_uid"))?),
        },
        to: Uid::new(row.try_get(4)?).ok_or_else(|| wrong("to_uid"))?,
        coin: Coin::new(row.try_get(5)?).ok_or_else(|| wrong("coin"))?,
        biz_type: i32::try_from(row.try_get::<i64, _>(6)?).map_err(|_| wrong("biz_type"))?,
        biz_id: row.try_get(7)?,
        scene_id: row.try_get(8)?,
    };
    Ok(Transaction {
        seq: row.try_get(0)?,
        tx_id: row.try_get(1)?,
        state: state_of(state).ok_or_else(|| wrong("state"))?,
        order,
        receiver_coin: row.try_get(9)?,
        created_ms: row.try_get(10)?,
        expires_ms: row.try_get(11)?,
        completed_ms: row.try_get(12)?,
    })
}

/// A state as it is stored.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Frozen => "frozen",
        State::Confirmed => "confirmed",
        State::Refunded => "refunded",
        State::Expired => "expired",
        State::Added => "added",
    }
}

fn state_of(name: &str) -> Option<State> {
    let all = [State::Frozen, State::Confirmed, State::Refunded, State::Expired, State::Added];
    all.into_iter().find(|&state| state_name(state) == name)
}
