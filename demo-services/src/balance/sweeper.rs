//! Gives frozen coins back that nobody completed in time.
//!
//! Every instance sweeps the one database: whoever comes second finds the transaction ended and does nothing. Whether a
//! time is over is said by the clock of the instance that sweeps, so that a clock that is fast by a second shortens the
//! limit by a second.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::ledger::End;
use super::store::{Error, Store};
use crate::time::now_ms;

/// How many are read at a time.
const AT_ONCE: u32 = 100;

/// A running sweeper; dropping it ends it, between two transactions or after the one that it is in the middle of.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Sweeper {
    task: JoinHandle<()>,
}

impl Sweeper {
    /// Looks for transactions whose time is over, and ends them, every `pause` (half jitter, so that instances that
    /// started together do not sweep together).
    pub fn start(store: Store, pause: Duration) -> Sweeper {
        let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0).max(Duration::from_millis(1));
        // Owner: the Sweeper, whose drop aborts it; it does not end otherwise. One transaction at a time. Errors are
        // logged, and met again at the next sweep.
        Sweeper { task: tokio::spawn(run(store, pause)) }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(store: Store, pause: Duration) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match sweep(&store).await {
            Ok(0) => failing = false,
            Ok(expired) => {
                failing = false;
                tracing::info!(expired, "frozen coins went back");
            }
            // Once for each time that it stops working.
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "frozen coins whose time is over stay frozen for now");
            }
            Err(_) => {}
        }
    }
}

/// Ends all whose time is over, past those that cannot be ended; says how many went back.
async fn sweep(store: &Store) -> Result<u64, Error> {
    let (mut expired, mut after, mut failed) = (0, None, None);
    loop {
        let due = store.due(now_ms(), after, AT_ONCE).await?;
        for (tx_id, place) in &due {
            match store.complete(tx_id, End::Expire, now_ms()).await {
                Ok(_) => expired += 1,
                Err(error @ Error::Away(_)) => return Err(error),
                Err(error) => failed = Some(error),
            }
            after = Some(*place);
        }
        if due.len() < AT_ONCE as usize {
            return failed.map_or(Ok(expired), Err);
        }
    }
}
