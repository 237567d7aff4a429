//! A database for each test: SQLite in a folder, or a PostgreSQL of its own.

use std::future::Future;
use std::time::Duration;

use demo_services::balance::{DatabaseUrl, Figures, Store};
use sqlx::{Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use crate::postgres::Postgres;

/// How long one test may take. A test that hangs fails by this.
const TEST_LIMIT: Duration = Duration::from_secs(180);

/// A database of a test's own.
#[derive(Debug)]
pub enum Database {
    /// A file below a folder.
    Sqlite(TempDir),
    /// A server.
    Postgres(Box<Postgres>),
}

impl Database {
    /// A new SQLite.
    ///
    /// # Panics
    /// Without a folder to put it in.
    pub fn sqlite() -> Database {
        Database::Sqlite(tempfile::tempdir().expect("a folder"))
    }

    /// The address, as services are told it.
    pub fn address(&self) -> String {
        match self {
            Database::Sqlite(folder) => format!("sqlite://{}", folder.path().join("test.db").display()),
            Database::Postgres(postgres) => postgres.url(),
        }
    }

    /// The address.
    ///
    /// # Panics
    /// Never: it is one.
    pub fn url(&self) -> DatabaseUrl {
        self.address().parse().expect("an address")
    }

    /// Runs SQL behind the service's back.
    ///
    /// # Panics
    /// If it cannot be run.
    pub async fn execute(&self, sql: &str) {
        match self {
            Database::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.address()).await.expect("it is there");
                connection.execute(sql).await.expect("it runs");
                connection.close().await.expect("it closes");
            }
            Database::Postgres(postgres) => {
                postgres.connect().await.execute(sql).await.expect("it runs");
            }
        }
    }

    /// What a query counts behind the service's back.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub async fn count(&self, sql: &str) -> i64 {
        match self {
            Database::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.address()).await.expect("it is there");
                let count = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("it counts");
                connection.close().await.expect("it closes");
                count
            }
            Database::Postgres(postgres) => {
                let mut connection = postgres.connect().await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("it counts")
            }
        }
    }

    /// What balance's own check says of the ledger in it.
    ///
    /// # Panics
    /// If there is none.
    pub async fn figures(&self) -> Figures {
        let store = Store::open_existing(&self.url()).await.expect("it is there");
        let figures = store.check().await.expect("it answers");
        store.close().await;
        figures
    }

    /// Everything in the ledger adds up.
    ///
    /// # Panics
    /// If it does not.
    pub async fn is_sound(&self) -> Figures {
        let figures = self.figures().await;
        assert!(figures.ok, "{figures}");
        figures
    }
}

/// Runs one law on one database.
///
/// # Panics
/// When the law does, or hangs.
pub fn run<F: Future<Output = ()>>(is_postgres: bool, law: impl FnOnce(Database) -> F) {
    run_within(is_postgres, TEST_LIMIT, law);
}

/// The same with a limit of its own.
///
/// # Panics
/// When the law does, or hangs.
pub fn run_within<F: Future<Output = ()>>(
    is_postgres: bool,
    limit: Duration,
    law: impl FnOnce(Database) -> F,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(async {
        let database = if is_postgres {
            let Some(postgres) = Postgres::start().await else { return };
            Database::Postgres(Box::new(postgres))
        } else {
            Database::sqlite()
        };
        let law = Box::pin(law(database));
        tokio::time::timeout(limit, law).await.expect("the test hangs");
    });
}

/// A test of each law for each database. The test binary has a `support::run`, which may do something before [`run`].
#[macro_export]
#[allow(clippy::crate_in_macro_def, reason = "the crate that is meant is the test binary")]
macro_rules! database_tests {
    ($($(#[$meta:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "a law may need nothing from around it")]
            use super::*;

            async fn law($database: $crate::database::Database) $body

            #[test]
            fn sqlite() {
                crate::support::run(false, law);
            }

            #[test]
            fn postgres() {
                crate::support::run(true, law);
            }
        }
    )*};
}
