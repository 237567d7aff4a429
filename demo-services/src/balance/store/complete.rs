//! Transactions that end.

use sqlx::AnyConnection;

use super::super::ledger::{End, Refusal, Step, Transaction};
use super::read::{COLUMNS, state_name, transaction};
use super::{Error, Store, book};
use crate::database::{Dialect, Job};

impl Store {
    /// Ends a transaction; the same end again changes nothing.
    ///
    /// # Errors
    /// There is none of this name; it has ended otherwise; the receiver's account would hold too much.
    pub async fn complete(&self, tx_id: &str, end: End, now_ms: i64) -> Result<Transaction, Error> {
        self.0.write(Complete { tx_id: tx_id.to_owned(), end, now_ms }).await
    }
}

struct Complete {
    tx_id: String,
    end: End,
    now_ms: i64,
}

impl Job for Complete {
    type Answer = Transaction;
    type Refusal = Refusal;

    async fn run(&self, connection: &mut AnyConnection, dialect: Dialect) -> Result<Transaction, Error> {
        let read = format!("SELECT {COLUMNS} FROM transactions WHERE tx_id = $1{}", dialect.for_update());
        let row = sqlx::query(&read).bind(&self.tx_id).fetch_optional(&mut *connection).await?;
        let row = row.ok_or_else(|| Refusal::Unknown { tx_id: self.tx_id.clone() })?;
        let found = transaction(&row)?;
        let (posting, state) = match found.end(self.end)? {
            Step::Done => return Ok(found),
            Step::Move(posting, state) => (posting, state),
        };
        book::post(connection, dialect, &[(found.seq, book::END, posting)]).await?;
        sqlx::query("UPDATE transactions SET state = $1, completed_ms = $2 WHERE seq = $3")
            .bind(state_name(state))
            .bind(self.now_ms)
            .bind(found.seq)
            .execute(connection)
            .await?;
        Ok(Transaction { state, completed_ms: Some(self.now_ms), ..found })
    }
}
