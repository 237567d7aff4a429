//! `balance`: its flags, and the server that they describe.

use std::io::Write;
use std::time::Duration;

use svc_proto::balance::v1::balance_server::{BalanceServer, SERVICE_NAME};

use super::ledger::Share;
use super::{Balance, DatabaseUrl, Store, Sweeper, Terms};
use crate::config::ServiceArgs;
use crate::error::BoxError;
use crate::telemetry;

/// The name under which balances register.
const SERVICE: &str = "balance";

/// How often an instance looks for frozen coins whose time is over.
const SWEEP: Duration = Duration::from_secs(1);

/// A ledger of coins: freeze, complete, add, query.
///
/// Registers in etcd as `balance`, with health and reflection, once its database is reached and its schema is up to
/// date. Several instances may share a database: on one host SQLite, on several PostgreSQL. SIGTERM and ctrl-c stop it
/// in order.
#[derive(Debug, clap::Parser)]
#[command(name = "balance", version)]
pub struct BalanceArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Where the ledger lies: sqlite://PATH, made if it is not there, or postgres://USER@HOST/DATABASE
    #[arg(
        long,
        env = "SVC_DATABASE",
        default_value = "sqlite://balance.db",
        value_name = "URL",
        hide_env_values = true
    )]
    database: DatabaseUrl,

    /// What the receiver of a gift is paid of it, in percent, rounded down; the house has the rest
    #[arg(long, env = "SVC_SHARE", default_value = "70", value_name = "PERCENT", value_parser = share)]
    share: Share,

    /// Frozen coins go back when nobody has completed the transaction for so long
    #[arg(long, env = "SVC_FREEZE_LIMIT", default_value = "10m", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    freeze_limit: Duration,

    /// Serve nothing: add up the ledger, print what it holds, and fail if it does not add up
    #[arg(long, env = "SVC_CHECK")]
    check: bool,

    /// How --check prints
    #[arg(short, long, env = "SVC_OUTPUT", default_value = "table", value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

fn share(text: &str) -> Result<Share, String> {
    let percent = text.parse::<u8>().ok().and_then(Share::percent);
    percent.ok_or_else(|| "not a whole number from 0 to 100".to_owned())
}

impl BalanceArgs {
    /// Serves until it is told to stop; or checks the ledger, with `--check`.
    ///
    /// # Errors
    /// A wrong configuration; the database stays away, or holds something else; the address cannot be listened on;
    /// another process has taken over its id. With `--check`: the ledger does not add up.
    pub async fn run(self) -> Result<(), BoxError> {
        if self.check {
            return self.add_up().await;
        }
        let service = self.service.start(SERVICE, &[]).await?;
        let store = Store::open(&self.database).await?;
        let terms = Terms { share: self.share, limit: self.freeze_limit };
        let balance = BalanceServer::new(Balance::new(store.clone(), terms));
        let sweeper = Sweeper::start(store.clone(), SWEEP);
        let served = service
            .serve()
            .add_service(balance.max_decoding_message_size(service.max_message_size()))
            .add_service(service.reflection(&[SERVICE_NAME])?)
            .run()
            .await;
        drop(sweeper);
        store.close().await;
        Ok(served?)
    }

    async fn add_up(&self) -> Result<(), BoxError> {
        telemetry::init();
        let store = Store::open_existing(&self.database).await?;
        let figures = store.check().await?;
        store.close().await;
        let text = match self.output {
            Output::Table => figures.to_string(),
            Output::Json => serde_json::to_string(&figures)?,
        };
        writeln!(std::io::stdout(), "{text}")?;
        if !figures.ok {
            return Err("the ledger does not add up".into());
        }
        Ok(())
    }
}
