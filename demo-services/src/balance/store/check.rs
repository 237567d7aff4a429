//! Whether everything adds up, read in one snapshot while calls go on.

use std::fmt;

use serde::Serialize;
use sqlx::{AnyConnection, Connection, Row};

use super::{Error, Store};

/// What the ledger holds, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Orders that were carried out.
    pub transactions: i64,
    /// Entries of all their steps.
    pub entries: i64,
    /// Accounts of users.
    pub accounts: i64,
    /// What users can spend.
    pub available: i128,
    /// What is set aside.
    pub frozen: i128,
    /// What the house has been paid.
    pub house: i128,
    /// What has been issued: all of the above together.
    pub issued: i128,
    /// All coins that there are, whoever has them: available, frozen and house.
    pub coins: i128,
    /// Coins less issued: zero.
    pub sum: i128,
    /// What does not add up: nothing.
    pub faults: Vec<Fault>,
    /// Whether everything adds up.
    pub ok: bool,
}

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// With how many.
    pub count: i64,
}

/// Each counts what contradicts a law.
const LAWS: [(&str, &str); 5] = [
    (
        "steps whose entries do not add up to zero",
        "SELECT COUNT(*) FROM (SELECT seq FROM entries GROUP BY seq, step HAVING SUM(amount) <> 0) AS broken",
    ),
    (
        "accounts that do not hold the sum of their entries",
        "SELECT COUNT(*) FROM (SELECT uid FROM (\
           SELECT uid, kind, amount FROM entries WHERE kind IN ('available', 'frozen') \
           UNION ALL SELECT uid, kind, -balance FROM accounts) AS both_sides \
         GROUP BY uid, kind HAVING SUM(amount) <> 0) AS broken",
    ),
    ("accounts below zero", "SELECT COUNT(*) FROM accounts WHERE balance < 0"),
    (
        "users whose frozen coins are not those of their transactions",
        "SELECT COUNT(*) FROM (SELECT uid FROM (\
           SELECT from_uid AS uid, coin FROM transactions WHERE state = 'frozen' \
           UNION ALL SELECT uid, -balance FROM accounts WHERE kind = 'frozen') AS both_sides \
         GROUP BY uid HAVING SUM(coin) <> 0) AS broken",
    ),
    (
        "transactions whose steps are not those of their state",
        "SELECT COUNT(*) FROM (SELECT transactions.seq FROM transactions \
           LEFT JOIN entries ON entries.seq = transactions.seq \
         GROUP BY transactions.seq, transactions.state \
         HAVING COUNT(DISTINCT entries.step) <> \
           CASE WHEN transactions.state IN ('frozen', 'added') THEN 1 ELSE 2 END) AS broken",
    ),
];

/// The sum over all users may pass what a 64-bit integer holds: the upper and the lower half are summed apart.
fn halves(column: &str) -> String {
    format!(
        "CAST(COALESCE(SUM({column} >> 32), 0) AS BIGINT), \
         CAST(COALESCE(SUM({column} & 4294967295), 0) AS BIGINT)"
    )
}

impl Store {
    /// Adds everything up.
    ///
    /// # Errors
    /// The database is away. That something does not add up is no error here: see [`Figures::ok`].
    pub async fn check(&self) -> Result<Figures, Error> {
        let mut connection = self.0.readers.acquire().await?;
        let mut snapshot = connection.begin_with(self.0.dialect.begin_snapshot()).await?;
        let figures = figures(&mut snapshot).await;
        // Nothing was written.
        let _ = snapshot.rollback().await;
        figures
    }
}

async fn figures(snapshot: &mut AnyConnection) -> Result<Figures, Error> {
    let transactions = count(snapshot, "SELECT COUNT(*) FROM transactions").await?;
    let entries = count(snapshot, "SELECT COUNT(*) FROM entries").await?;
    let accounts = count(snapshot, "SELECT COUNT(*) FROM accounts").await?;
    // Users' coins by what the accounts say, the others' by what the entries say: that the two agree is the first thing
    // that is asked.
    let balances = format!("SELECT kind, {} FROM accounts GROUP BY kind", halves("balance"));
    let balances = sums(snapshot, &balances).await?;
    let entered = format!(
        "SELECT kind, {} FROM entries WHERE kind IN ('house', 'issuer') GROUP BY kind",
        halves("amount")
    );
    let entered = sums(snapshot, &entered).await?;
    let of = |sums: &[(String, i128)], name: &str| {
        sums.iter().find(|(kind, _)| kind == name).map_or(0, |(_, sum)| *sum)
    };
    let (available, frozen) = (of(&balances, "available"), of(&balances, "frozen"));
    let (house, issued) = (of(&entered, "house"), -of(&entered, "issuer"));
    let mut faults = Vec::new();
    for (what, query) in LAWS {
        let count = count(snapshot, query).await?;
        if count > 0 {
            faults.push(Fault { what, count });
        }
    }
    let coins = available + frozen + house;
    let sum = coins - issued;
    let ok = sum == 0 && faults.is_empty();
    Ok(Figures { transactions, entries, accounts, available, frozen, house, issued, coins, sum, faults, ok })
}

async fn count(snapshot: &mut AnyConnection, query: &str) -> Result<i64, Error> {
    Ok(sqlx::query(query).fetch_one(snapshot).await?.try_get(0)?)
}

async fn sums(snapshot: &mut AnyConnection, query: &str) -> Result<Vec<(String, i128)>, Error> {
    let rows = sqlx::query(query).fetch_all(snapshot).await?;
    let sum = |row: &sqlx::any::AnyRow| -> Result<(String, i128), Error> {
        let (upper, lower): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, (i128::from(upper) << 32) + i128::from(lower)))
    };
    rows.iter().map(sum).collect()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { transactions, entries, accounts, .. } = self;
        writeln!(f, "ledger     {transactions} transactions, {entries} entries, {accounts} accounts")?;
        writeln!(f, "available  {}", self.available)?;
        writeln!(f, "frozen     {}", self.frozen)?;
        writeln!(f, "house      {}", self.house)?;
        writeln!(f, "issued     {}", self.issued)?;
        writeln!(f, "sum        {}", self.sum)?;
        for Fault { what, count } in &self.faults {
            writeln!(f, "broken     {count} {what}")?;
        }
        write!(f, "balance: {} coins, {}", self.coins, if self.ok { "ok" } else { "not ok" })
    }
}
