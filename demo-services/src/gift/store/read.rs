//! What is asked of the database without changing it.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::super::catalogue::Item;
use super::super::receipt::Receipt;
use super::{Error, Sending, Store, state_of};
use crate::database::groups;

/// A gift that lies in an inbox, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Received {
    /// Its place in the inbox.
    pub(in super::super) position: i64,
    /// What it is, and what was paid.
    pub(in super::super) item: Item,
    /// Who gave it.
    pub(in super::super) from: i64,
    /// The sending.
    pub(in super::super) biz_id: String,
    /// The sender's own numbering.
    pub(in super::super) scene_id: i64,
    /// Milliseconds since 1970.
    pub(in super::super) delivered_ms: i64,
    /// It was taken out again.
    pub(in super::super) is_taken_back: bool,
}

impl Store {
    /// A sending, if there is one under this `biz_id`.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn find(&self, biz_id: &str) -> Result<Option<Sending>, Error> {
        let mut connection = self.0.readers.acquire().await?;
        let found = sqlx::query_scalar("SELECT seq FROM sendings WHERE biz_id = $1").bind(biz_id);
        match found.fetch_optional(&mut *connection).await? {
            Some(seq) => sending(&mut connection, seq).await,
            None => Ok(None),
        }
    }

    /// A sending as it stands.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn sending(&self, seq: i64) -> Result<Sending, Error> {
        let mut connection = self.0.readers.acquire().await?;
        let found = sending(&mut connection, seq).await?;
        found.ok_or_else(|| Error::Internal(format!("sending {seq} is gone")))
    }

    /// A receipt as it stands.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn receipt(&self, seq: i64, to: i64) -> Result<Receipt, Error> {
        let read = format!("SELECT {RECEIPT} FROM receipts WHERE sending = $1 AND to_uid = $2");
        let row = sqlx::query(&read).bind(seq).bind(to).fetch_one(&self.0.readers).await?;
        receipt(&row)
    }

    /// The newest position of a user's inbox; 0 where it is empty.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn position(&self, uid: i64) -> Result<i64, Error> {
        Ok(self.positions(&[uid]).await?.get(&uid).copied().unwrap_or(0))
    }

    /// The newest positions of these users' inboxes; those that are empty are not among them.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn positions(&self, uids: &[i64]) -> Result<HashMap<i64, i64>, Error> {
        if uids.is_empty() {
            return Ok(HashMap::new());
        }
        let read =
            format!("SELECT uid, position FROM inboxes WHERE uid IN (VALUES {})", groups(uids.len(), 1));
        let mut query = sqlx::query(&read).persistent(uids.len() == 1);
        for uid in uids {
            query = query.bind(uid);
        }
        let rows = query.fetch_all(&self.0.readers).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// What a user received behind a position, in order, at most `limit`.
    ///
    /// # Errors
    /// The database is away.
    pub(in super::super) async fn received(
        &self,
        uid: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Received>, Error> {
        let rows = sqlx::query(
            "SELECT received.position, received.delivered_ms, received.taken_back, sendings.gift_id, \
             sendings.gift_name, sendings.coin, sendings.from_uid, sendings.biz_id, sendings.scene_id \
             FROM received JOIN sendings ON sendings.seq = received.sending \
             WHERE received.uid = $1 AND received.position > $2 ORDER BY received.position LIMIT $3",
        )
        .bind(uid)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.0.readers)
        .await?;
        let gift = |row: &AnyRow| -> Result<Received, Error> {
            Ok(Received {
                position: row.try_get(0)?,
                delivered_ms: row.try_get(1)?,
                is_taken_back: row.try_get::<i64, _>(2)? != 0,
                item: Item { id: row.try_get(3)?, name: row.try_get(4)?, coin: row.try_get(5)? },
                from: row.try_get(6)?,
                biz_id: row.try_get(7)?,
                scene_id: row.try_get(8)?,
            })
        };
        rows.iter().map(gift).collect()
    }
}

const RECEIPT: &str = "to_uid, state, tx_id, deliver_by_ms, reason";

/// A sending as it stands. Read in two steps, which is no harm: what is not its receipts never changes.
pub(super) async fn sending(connection: &mut AnyConnection, seq: i64) -> Result<Option<Sending>, Error> {
    let row = sqlx::query(
        "SELECT biz_id, gift_id, gift_name, coin, from_uid, scene_id, created_ms FROM sendings WHERE seq = $1",
    );
    let Some(row) = row.bind(seq).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let read = format!("SELECT {RECEIPT} FROM receipts WHERE sending = $1 ORDER BY place");
    let receipts = sqlx::query(&read).bind(seq).fetch_all(connection).await?;
    Ok(Some(Sending {
        seq,
        biz_id: row.try_get(0)?,
        item: Item { id: row.try_get(1)?, name: row.try_get(2)?, coin: row.try_get(3)? },
        from: row.try_get(4)?,
        scene_id: row.try_get(5)?,
        created_ms: row.try_get(6)?,
        receipts: receipts.iter().map(receipt).collect::<Result<_, _>>()?,
    }))
}

fn receipt(row: &AnyRow) -> Result<Receipt, Error> {
    let state: String = row.try_get(1)?;
    Ok(Receipt {
        to: row.try_get(0)?,
        state: state_of(&state).ok_or_else(|| Error::Internal(format!("a receipt that is {state:?}")))?,
        tx_id: row.try_get(2)?,
        deliver_by_ms: row.try_get(3)?,
        reason: row.try_get(4)?,
    })
}
