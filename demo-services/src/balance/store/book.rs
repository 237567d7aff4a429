//! The accounts and the entries: locked and read, posted to, written down.

use sqlx::{AnyConnection, Row};

use super::super::ledger::{Account, Book, Kind, Posting, Uid};
use super::Error;
use crate::database::{Dialect, groups};

/// The first step of a transaction, its beginning.
pub(super) const BEGINNING: i64 = 1;
/// The second, its end.
pub(super) const END: i64 = 2;

/// What is posted: of which transaction, which step, and what moves.
pub(super) type Post = (i64, i64, Posting);

/// Moves what these postings say, all or nothing, and writes down how.
pub(super) async fn post(
    connection: &mut AnyConnection,
    dialect: Dialect,
    posts: &[Post],
) -> Result<(), Error> {
    let accounts = Book::accounts(posts.iter().map(|(_, _, posting)| posting));
    let mut book = lock(connection, dialect, &accounts).await?;
    for (_, _, posting) in posts {
        book.post(posting)?;
    }
    save(connection, &book).await?;
    enter(connection, posts).await
}

/// Locks the accounts in their order and reads what they hold; those that there were not are there then.
async fn lock(
    connection: &mut AnyConnection,
    dialect: Dialect,
    accounts: &[(Uid, Kind)],
) -> Result<Book, Error> {
    let rows = (0..accounts.len()).map(|row| format!("(${}, ${}, 0)", 2 * row + 1, 2 * row + 2));
    let rows = rows.collect::<Vec<_>>().join(", ");
    let made =
        format!("INSERT INTO accounts (uid, kind, balance) VALUES {rows} ON CONFLICT (uid, kind) DO NOTHING");
    let mut query = sqlx::query(&made).persistent(accounts.len() <= 2);
    for (uid, kind) in accounts {
        query = query.bind(uid.get()).bind(kind_name(*kind));
    }
    query.execute(&mut *connection).await?;

    let read = format!(
        "SELECT uid, kind, balance FROM accounts WHERE (uid, kind) IN (VALUES {}) ORDER BY uid, kind{}",
        groups(accounts.len(), 2),
        dialect.for_update()
    );
    let mut query = sqlx::query(&read).persistent(accounts.len() <= 2);
    for (uid, kind) in accounts {
        query = query.bind(uid.get()).bind(kind_name(*kind));
    }
    let mut book = Book::default();
    for row in query.fetch_all(&mut *connection).await? {
        let (uid, kind) = (row.try_get::<i64, _>(0)?, row.try_get::<String, _>(1)?);
        let account = Uid::new(uid).zip(kind_of(&kind));
        let account = account.ok_or_else(|| Error::Internal(format!("an account {uid} {kind:?}")))?;
        book.set(account, row.try_get(2)?);
    }
    Ok(book)
}

/// Writes down what the accounts hold.
async fn save(connection: &mut AnyConnection, book: &Book) -> Result<(), Error> {
    let rows = book.balances().count();
    let saved = format!(
        "INSERT INTO accounts (uid, kind, balance) VALUES {} \
         ON CONFLICT (uid, kind) DO UPDATE SET balance = excluded.balance",
        groups(rows, 3)
    );
    let mut query = sqlx::query(&saved).persistent(rows <= 2);
    for ((uid, kind), balance) in book.balances() {
        query = query.bind(uid.get()).bind(kind_name(kind)).bind(balance);
    }
    query.execute(connection).await?;
    Ok(())
}

/// Writes down the entries.
async fn enter(connection: &mut AnyConnection, posts: &[Post]) -> Result<(), Error> {
    let rows = posts.iter().map(|(_, _, posting)| posting.entries().len()).sum();
    let entered = format!("INSERT INTO entries (seq, step, kind, uid, amount) VALUES {}", groups(rows, 5));
    let mut query = sqlx::query(&entered).persistent(rows <= 3);
    for (seq, step, posting) in posts {
        for entry in posting.entries() {
            let (kind, uid) = match entry.account {
                Account::User(uid, kind) => (kind_name(kind), uid.get()),
                Account::House => ("house", 0),
                Account::Issuer => ("issuer", 0),
            };
            query = query.bind(*seq).bind(*step).bind(kind).bind(uid).bind(entry.amount);
        }
    }
    query.execute(connection).await?;
    Ok(())
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Available => "available",
        Kind::Frozen => "frozen",
    }
}

fn kind_of(name: &str) -> Option<Kind> {
    match name {
        "available" => Some(Kind::Available),
        "frozen" => Some(Kind::Frozen),
        _ => None,
    }
}
