//! One write, from the call to the commit.
//!
//! A write that has begun is carried through, whatever becomes of its caller: it runs in a task of its own, since a
//! caller that hangs up would otherwise leave a connection in the middle of a transaction. It is tried again where the
//! database gave way to another write or lost us, which is safe as a [`Job`] that was carried out finds so when it is
//! run again.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Connection};

use super::{Database, Dialect, Error};

/// How long one try may take once it has a connection, so that a database that has gone silent does not keep it.
/// Above the limits that the database itself keeps, so that its answer comes first.
const LIMIT: Duration = Duration::from_secs(10);

/// How often a write is tried.
const TRIES: u32 = 5;

/// The first pause between two tries is up to this long; each later one up to twice as long.
const PAUSE: Duration = Duration::from_millis(20);

/// What happens within one database transaction. It may be run several times; only the last run counts, unless the one
/// before was committed and its answer lost: then the last one finds everything done.
pub(crate) trait Job: Send + Sync + 'static {
    /// What the caller is told.
    type Answer: Send + 'static;

    /// How the service says no.
    type Refusal: Display + Send + 'static;

    /// Does it. An error takes back whatever was written.
    fn run(
        &self,
        connection: &mut AnyConnection,
        dialect: Dialect,
    ) -> impl Future<Output = Result<Self::Answer, Error<Self::Refusal>>> + Send;
}

impl Database {
    /// Carries out a job.
    ///
    /// # Cancel safety
    /// Dropped while it waits for a connection, nothing has happened; later, a try that has begun ends by itself.
    pub(crate) async fn write<J: Job>(&self, job: J) -> Result<J::Answer, Error<J::Refusal>> {
        let job = Arc::new(job);
        for tried in 1.. {
            // Who has waited for this in vain waits no second time.
            let connection = self.writers.acquire().await?;
            let error = match attempt(connection, job.clone(), self.dialect).await {
                Err(error @ Error::Away(_)) if tried < TRIES => error,
                result => return result,
            };
            tracing::debug!(%error, tried, "a write is tried again");
            // Full jitter: those who met do not meet again.
            tokio::time::sleep(PAUSE.mul_f64(fastrand::f64() * f64::from(1 << (tried - 1)))).await;
        }
        unreachable!("the last try returns")
    }
}

async fn attempt<J: Job>(
    mut connection: PoolConnection<Any>,
    job: Arc<J>,
    dialect: Dialect,
) -> Result<J::Answer, Error<J::Refusal>> {
    // Owner: this call, which awaits it, or nobody once the call is gone. Ends: by itself, within LIMIT. Bound: one for
    // each connection of the pool. Its error is this call's.
    let attempt = tokio::spawn(async move {
        match tokio::time::timeout(LIMIT, transact(&mut connection, &*job, dialect)).await {
            Ok(result) => result,
            Err(_) => {
                // Nobody knows what it is in the middle of.
                connection.close_on_drop();
                Err(Error::Away(format!("no answer within {LIMIT:?}")))
            }
        }
    });
    attempt.await.map_err(|error| Error::Internal(format!("a write ended early: {error}")))?
}

async fn transact<J: Job>(
    connection: &mut PoolConnection<Any>,
    job: &J,
    dialect: Dialect,
) -> Result<J::Answer, Error<J::Refusal>> {
    let mut transaction = connection.begin_with(dialect.begin()).await?;
    match job.run(&mut transaction, dialect).await {
        Ok(answer) => {
            transaction.commit().await?;
            Ok(answer)
        }
        Err(error) => {
            // An error of this is of no interest beside the first: what is not committed is gone either way.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}
