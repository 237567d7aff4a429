//! Takes over sendings that an instance left behind which died, or was cut off from the database.
//!
//! Every instance looks at the one database; the claim goes to one of them.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::courier::Courier;

/// How often it is looked while a claim lasts.
const LOOKS: u32 = 4;

/// The longest between two looks, and the shortest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));

/// A running sweeper; dropping it ends it. What it has taken over goes on.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Sweeper {
    task: JoinHandle<()>,
}

impl Sweeper {
    /// Looks at once, and then several times while a claim lasts (half jitter, so that instances that started together
    /// do not look together).
    pub fn start(courier: Courier) -> Sweeper {
        let (longest, shortest) = PAUSE;
        let pause = (courier.claim_limit() / LOOKS).clamp(shortest, longest);
        let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        // Owner: the Sweeper, whose drop aborts it; it does not end otherwise. Bound: what the courier has room for. Errors
        // are logged, and met again at the next look.
        Sweeper { task: tokio::spawn(run(courier, pause)) }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(courier: Courier, pause: Duration) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match courier.take_over().await {
            Ok(_) => failing = false,
            // Once for each time that it stops working.
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "sendings that nobody carries stay where they are for now");
            }
            Err(_) => {}
        }
    }
}
