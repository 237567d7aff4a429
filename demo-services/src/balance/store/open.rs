//! From an address to a [`Store`]: connections that are set up for what the ledger relies on, and the schema.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, Executor};
use tokio::time::Instant;

use super::{Dialect, Error, Store};

/// Calls that wait for a connection longer than this are refused: their callers have given up, or should.
const WAIT: Duration = Duration::from_secs(10);

/// Connections of one instance that read: apart from those that write, so that no reader waits behind writers.
const READERS: u32 = 3;

/// Connections of one instance that write, on PostgreSQL: with those that read, ten instances stay within its default
/// of 100.
const POSTGRES_WRITERS: u32 = 6;

/// How long a start waits for a database that is away.
const START: Duration = Duration::from_secs(30);

/// The pause between two tries of a start.
const START_PAUSE: Duration = Duration::from_millis(250);

/// For each connection to SQLite. WAL: readers and the writer do not wait for each other. FULL: what was answered is on
/// the disk. The timeout is for the write lock, which other instances take too; it is below [`WAIT`], so that the
/// answer says which of the two it was.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 4000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";

/// For each connection to PostgreSQL. A row's lock is waited for within the limits of a call. An instance that is
/// stopped in the middle of a transaction loses it, rather than to hold up all others.
const POSTGRES_SETTINGS: &str = "SET lock_timeout = '4s'; SET statement_timeout = '8s'; \
     SET idle_in_transaction_session_timeout = '8s'; SET default_transaction_isolation = 'read committed'";

/// Where a ledger lies: `sqlite://PATH` or `postgres://USER@HOST/DATABASE`, checked.
///
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    url: String,
    dialect: Dialect,
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<DatabaseUrl, String> {
        let dialect = match url.split_once("://") {
            Some(("sqlite", path)) => {
                let name = path.split('?').next().unwrap_or(path);
                if name.is_empty() || name == ":memory:" || path.contains("mode=memory") {
                    return Err("a ledger in memory would end with the process: give a file, \
                                as in sqlite://balance.db"
                        .to_owned());
                }
                Dialect::Sqlite
            }
            Some(("postgres" | "postgresql", _)) => Dialect::Postgres,
            _ => return Err("neither sqlite://PATH nor postgres://USER@HOST/DATABASE".to_owned()),
        };
        Ok(DatabaseUrl { url: url.to_owned(), dialect })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // scheme://user:password@host/...: the last @ ends the part that may hold a secret.
        match (self.url.split_once("://"), self.dialect) {
            (Some((scheme, rest)), Dialect::Postgres) => {
                let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                // A password may also be given as a parameter.
                write!(f, "{scheme}://{}", rest.split('?').next().unwrap_or(rest))
            }
            _ => f.write_str(&self.url),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl Store {
    /// Opens the ledger at `url`, made if it is not there yet, and brings its schema up to date. A database that is away
    /// is waited for, up to half a minute.
    ///
    /// # Errors
    /// It stays away; it refuses us; what is there is not ours, or from a newer version.
    pub async fn open(url: &DatabaseUrl) -> Result<Store, Error> {
        let store = Store::connect(url, "rwc")?;
        let give_up = Instant::now() + START;
        let mut told = false;
        loop {
            match store.migrate().await {
                Ok(()) => return Ok(store),
                Err(Error::Away(_)) if Instant::now() < give_up => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(database = %url, "the database is away; waiting for it");
                    }
                }
                Err(error) => return Err(error.at(url)),
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// Opens a ledger that is there, and changes nothing.
    ///
    /// # Errors
    /// There is none.
    pub async fn open_existing(url: &DatabaseUrl) -> Result<Store, Error> {
        let store = Store::connect(url, "rw")?;
        let found =
            sqlx::query("SELECT 1 FROM transactions WHERE seq = 0").fetch_optional(&store.readers).await;
        found.map_err(|error| Error::from(error).at(url))?;
        Ok(store)
    }

    /// Ends its connections; what is being written is awaited, within a limit.
    pub async fn close(&self) {
        let closed = async { tokio::join!(self.writers.close(), self.readers.close()) };
        // A database that does not answer has nothing of ours that it would not roll back by itself.
        let _ = tokio::time::timeout(WAIT, closed).await;
    }

    fn connect(url: &DatabaseUrl, mode: &str) -> Result<Store, Error> {
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().acquire_timeout(WAIT);
        let set = |options: AnyPoolOptions, settings: &'static str| {
            options.after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(settings).await.map(drop) })
            })
        };
        let lazy = |options: AnyPoolOptions, url: &str| {
            options.connect_lazy(url).map_err(|error| Error::Configuration(format!("--database: {error}")))
        };
        let (writers, readers) = match url.dialect {
            Dialect::Sqlite => {
                let options = set(options, SQLITE_SETTINGS);
                // Of a parameter that comes twice the last counts.
                let separator = if url.url.contains('?') { '&' } else { '?' };
                let url = format!("{}{separator}mode={mode}", url.url);
                let writers = lazy(options.clone().max_connections(1), &url)?;
                (writers, lazy(options.max_connections(READERS), &url)?)
            }
            Dialect::Postgres => {
                let options = set(options, POSTGRES_SETTINGS);
                let writers = lazy(options.clone().max_connections(POSTGRES_WRITERS), &url.url)?;
                (writers, lazy(options.max_connections(READERS), &url.url)?)
            }
        };
        Ok(Store { writers, readers, dialect: url.dialect })
    }

    /// Brings the schema up to date; instances that start at the same time do so one after the other.
    async fn migrate(&self) -> Result<(), Error> {
        let mut connection = self.writers.acquire().await?;
        let migrated = match self.dialect {
            // It takes an advisory lock.
            Dialect::Postgres => migrations(self.dialect).run_direct(&mut *connection).await,
            // It takes none, so that all of it happens within one transaction.
            Dialect::Sqlite => {
                let mut transaction = connection.begin_with(self.dialect.begin()).await?;
                let migrated = migrations(self.dialect).run_direct(&mut *transaction).await;
                match migrated {
                    Ok(()) => transaction.commit().await.map_err(Into::into),
                    Err(error) => Err(error),
                }
            }
        };
        migrated.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            error => Error::Configuration(error.to_string()),
        })
    }
}

impl Error {
    /// Adds where.
    fn at(self, url: &DatabaseUrl) -> Error {
        match self {
            Error::Away(why) => Error::Away(format!("{url}: {why}")),
            error => Error::Configuration(format!("--database {url}: {error}")),
        }
    }
}

/// The schema's history, compiled in. A step that was released is never changed: the next one is added.
fn migrations(dialect: Dialect) -> Migrator {
    let ledger = match dialect {
        Dialect::Sqlite => include_str!("../../../migrations/sqlite/1_ledger.sql"),
        Dialect::Postgres => include_str!("../../../migrations/postgres/1_ledger.sql"),
    };
    let steps = [(1, "ledger", ledger)].map(|(version, name, sql)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, Cow::Borrowed(sql), false)
    });
    Migrator { migrations: Cow::Owned(steps.to_vec()), ..Migrator::DEFAULT }
}
