//! The ledger's own check: `balance --check`, as anybody may run it beside the services.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::child;
use super::stage::Stage;
use crate::exit::{Exit, Failure};

/// How long gifts that were ordered may take to end.
const LIMIT: Duration = Duration::from_secs(60);

/// What the ledger holds.
#[derive(Clone, Debug)]
pub(super) struct Coins {
    /// All coins that there are.
    pub(super) all: i64,
    /// Those of them that are set aside.
    pub(super) frozen: i64,
    /// The check in its own words.
    pub(super) said: String,
}

#[derive(Deserialize)]
struct Figures {
    coins: i64,
    frozen: i64,
}

impl Coins {
    /// Adds the ledger up, while calls go on.
    pub(super) async fn count(stage: &Stage) -> Result<Coins, Failure> {
        let Figures { coins, frozen } = serde_json::from_str(&check(stage, "json").await?)
            .map_err(|error| Failure::new(Exit::Other, format!("balance --check is unreadable ({error})")))?;
        Ok(Coins { all: coins, frozen, said: String::new() })
    }

    /// The same once nothing is set aside any more, or time is up.
    pub(super) async fn settled(stage: &Stage) -> Result<Coins, Failure> {
        let limit = Instant::now() + LIMIT;
        loop {
            let coins = Coins::count(stage).await?;
            if coins.frozen == 0 || Instant::now() > limit {
                return Ok(Coins { said: check(stage, "table").await?, ..coins });
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn check(stage: &Stage, format: &str) -> Result<String, Failure> {
    let database = stage.database("balance");
    child::run(&stage.binary("balance"), &["--check", "-o", format, "--database", &database]).await
}
