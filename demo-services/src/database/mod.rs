//! A service's own database: SQLite for one host, PostgreSQL for several.
//!
//! ```text
//! open.rs   address -> connections, migrations
//! write.rs  one database transaction, tried again where that can help
//! ```
//! What a service keeps in it is the service's: its migrations, its [`Job`]s, and its own reason to refuse one (`R` in
//! [`Error`]).

mod open;
mod write;

use sqlx::AnyPool;

pub use open::DatabaseUrl;
pub(crate) use open::{Mode, Schema};
pub(crate) use write::Job;

/// An open database; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// One connection on SQLite, which lets one write at a time: so the queue is a fair one.
    writers: AnyPool,
    /// Those that read while others write.
    pub(crate) readers: AnyPool,
    pub(crate) dialect: Dialect,
}

/// Where the databases differ, their migrations aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// How a transaction that writes begins.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            // A lock that is taken only at the first write may come too late: what was read may be old by then.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        }
    }

    /// How a transaction that reads several times sees one state throughout.
    pub(crate) fn begin_snapshot(self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN DEFERRED",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Ends a query whose rows are to be locked.
    pub(crate) fn for_update(self) -> &'static str {
        match self {
            // The whole database is.
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        }
    }
}

/// Why a store did not do what it was asked; `R` is how the service itself says no.
#[derive(Debug, thiserror::Error)]
pub enum Error<R> {
    /// The service says no; nothing has changed.
    #[error("{0}")]
    Refused(R),
    /// The database cannot be reached, or is too busy. A write may have been carried out; it may be repeated.
    #[error("the database cannot be reached or is too busy: {0}")]
    Away(String),
    /// The database says what it never should.
    #[error("the database: {0}")]
    Database(#[source] sqlx::Error),
    /// The address, or what is found there, cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// A bug of ours.
    #[error("{0}")]
    Internal(String),
}

impl<R> From<sqlx::Error> for Error<R> {
    fn from(error: sqlx::Error) -> Error<R> {
        let away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // What PostgreSQL says while it starts and stops, and when it is out of connections or of disk; what SQLite
            // says when the lock, or the disk, is not to be had.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_away(&code)),
            _ => false,
        };
        if away { Error::Away(error.to_string()) } else { Error::Database(error) }
    }
}

/// Whether this code, of either database, will pass by itself.
///
/// PostgreSQL, "PostgreSQL Error Codes": classes 08 (connection), 53 (resources), 57 (operator intervention), 40
/// (rollback: deadlock, serialization) and 55P03 (a lock was not had in time). SQLite, "Result and Error Codes": 5 is
/// SQLITE_BUSY, 6 SQLITE_LOCKED, 10 SQLITE_IOERR, 13 SQLITE_FULL; the low byte of an extended code says which it is.
fn is_away(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
            || ["25P03", "55P03"].contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| [5, 6, 10, 13].contains(&(code & 0xff)))
}

/// `rows` groups of `columns` parameters: `($1, $2), ($3, $4)`.
pub(crate) fn groups(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=columns {
            let comma = if column == 1 { "" } else { ", " };
            text.push_str(&format!("{comma}${}", row * columns + column));
        }
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_through_all_groups() {
        assert_eq!(groups(1, 1), "($1)");
        assert_eq!(groups(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for code in
            ["40001", "40P01", "08006", "57P01", "57014", "53300", "55P03", "25P03", "5", "517", "6", "10"]
        {
            assert!(is_away(code), "{code}");
        }
        for code in ["23505", "42P01", "23514", "19", "2067", "1", "11", ""] {
            assert!(!is_away(code), "{code}");
        }
    }
}
