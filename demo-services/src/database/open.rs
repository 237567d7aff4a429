//! From an address to a [`Database`]: connections that are set up for what services rely on, and the schema.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, Executor};
use tokio::time::Instant;

use super::{Database, Dialect, Error};

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

/// Where a database lies: `sqlite://PATH` or `postgres://USER@HOST/DATABASE`, checked.
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
                    return Err("a database in memory would end with the process: give a \
                                file, as in sqlite://data.db"
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

/// A schema's history, compiled in, for each kind of database: version, name and SQL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    pub(crate) sqlite: &'static [Step],
    pub(crate) postgres: &'static [Step],
}

type Step = (i64, &'static str, &'static str);

impl Schema {
    fn migrations(self, dialect: Dialect) -> Migrator {
        let steps = match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        };
        let step = |&(version, name, sql): &Step| {
            Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, Cow::Borrowed(sql), false)
        };
        Migrator { migrations: Cow::Owned(steps.iter().map(step).collect()), ..Migrator::DEFAULT }
    }
}

/// What becomes of a database that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is made (SQLite).
    Create,
    /// It is an error.
    Existing,
}

impl Database {
    /// Opens the database at `url`, made if it is not there yet, and brings its schema up to date. One that is away is
    /// waited for, up to half a minute.
    ///
    /// # Errors
    /// It stays away; it refuses us; what is there is not ours, or from a newer version.
    pub(crate) async fn open<R: Display>(url: &DatabaseUrl, schema: Schema) -> Result<Database, Error<R>> {
        let database = Database::connect(url, Mode::Create)?;
        let give_up = Instant::now() + START;
        let mut told = false;
        loop {
            match database.migrate(schema).await {
                Ok(()) => return Ok(database),
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

    /// Ends its connections; what is being written is awaited, within a limit.
    pub(crate) async fn close(&self) {
        let closed = async { tokio::join!(self.writers.close(), self.readers.close()) };
        // A database that does not answer has nothing of ours that it would not roll back by itself.
        let _ = tokio::time::timeout(WAIT, closed).await;
    }

    /// Connections to come to the database at `url`.
    ///
    /// # Errors
    /// An address that cannot be understood.
    pub(crate) fn connect<R>(url: &DatabaseUrl, mode: Mode) -> Result<Database, Error<R>> {
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
                let mode = match mode {
                    Mode::Create => "rwc",
                    Mode::Existing => "rw",
                };
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
        Ok(Database { writers, readers, dialect: url.dialect })
    }

    /// Brings the schema up to date; instances that start at the same time do so one after the other.
    async fn migrate<R>(&self, schema: Schema) -> Result<(), Error<R>> {
        let mut connection = self.writers.acquire().await?;
        let migrated = match self.dialect {
            // It takes an advisory lock.
            Dialect::Postgres => schema.migrations(self.dialect).run_direct(&mut *connection).await,
            // It takes none, so that all of it happens within one transaction.
            Dialect::Sqlite => {
                let mut transaction = connection.begin_with(self.dialect.begin()).await?;
                let migrated = schema.migrations(self.dialect).run_direct(&mut *transaction).await;
                match migrated {
                    Ok(()) => transaction.commit().await.map_err(Into::into),
                    Err(error) => Err(error),
                }
            }
        };
        migrated.map_err(|error| match error {
            MigrateError::Execute(error) => error.into(),
            error @ (MigrateError::VersionMismatch(_) | MigrateError::VersionMissing(_)) => {
                let remedy = "it is another service's, or of a newer version";
                Error::Configuration(format!("{error}: {remedy}"))
            }
            error => Error::Configuration(error.to_string()),
        })
    }
}

impl<R: Display> Error<R> {
    /// Adds where.
    pub(crate) fn at(self, url: &DatabaseUrl) -> Error<R> {
        match self {
            Error::Away(why) => Error::Away(format!("{url}: {why}")),
            error => Error::Configuration(format!("--database {url}: {error}")),
        }
    }
}
