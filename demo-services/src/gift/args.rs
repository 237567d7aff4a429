//! `gift`: its flags, and the server that they describe.

use std::time::Duration;

use svc_proto::gift::v1::gift_server::{GiftServer, SERVICE_NAME};

use super::{Courier, DatabaseUrl, Gift, Point, Probe, Store, Sweeper, Terms};
use crate::config::ServiceArgs;
use crate::error::BoxError;

/// The name under which gifts register.
const SERVICE: &str = "gift";

/// The service that holds the coins.
const BALANCE: &str = "balance";

/// How long a stop waits for sendings whose callers have gone; what is left then is another instance's.
const PATIENCE: Duration = Duration::from_secs(3);

/// Gifts from one user to many, paid for through the balance service.
///
/// Registers in etcd as `gift`, with health and reflection, once its database is reached and its schema is up to date.
/// Finds `balance` in etcd; `--grpc-clients` says how it is called. Several instances may share a database, on one host
/// SQLite, on several PostgreSQL: they carry on what one of them leaves behind. SIGTERM and ctrl-c stop it in order.
#[derive(Debug, clap::Parser)]
#[command(name = "gift", version)]
pub struct GiftArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Where sendings and inboxes lie: sqlite://PATH, made if it is not there, or postgres://USER@HOST/DATABASE; not
    /// the balance service's
    #[arg(
        long,
        env = "SVC_DATABASE",
        default_value = "sqlite://gift.db",
        value_name = "URL",
        hide_env_values = true
    )]
    database: DatabaseUrl,

    /// A sending is carried on by another instance when its own has not been heard of for so long
    #[arg(long, env = "SVC_CLAIM_LIMIT", default_value = "10s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    claim_limit: Duration,

    /// For tests: die at this step of the first sending
    #[arg(long, env = "SVC_ABORT_AT", hide = true)]
    abort_at: Option<Point>,
}

impl GiftArgs {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// A wrong configuration; the database stays away, or holds something else; the address cannot be listened on;
    /// another process has taken over its id.
    pub async fn run(self) -> Result<(), BoxError> {
        let service = self.service.start(SERVICE, &[BALANCE]).await?;
        let store = Store::open(&self.database).await?;
        let terms = Terms {
            claim: self.claim_limit,
            probe: self.abort_at.map_or_else(Probe::default, Probe::abort_at),
        };
        let courier = Courier::new(store.clone(), service.channel(BALANCE)?, terms);
        let sweeper = Sweeper::start(courier.clone());
        let gift = GiftServer::new(Gift::new(courier.clone(), service.stopping()));
        let served = service
            .serve()
            .add_service(gift.max_decoding_message_size(service.max_message_size()))
            .add_service(service.reflection(&[SERVICE_NAME])?)
            .run()
            .await;
        drop(sweeper);
        courier.close(PATIENCE).await;
        store.close().await;
        Ok(served?)
    }
}
