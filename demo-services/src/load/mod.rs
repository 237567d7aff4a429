//! A steady load, on a greeter by gRPC or on the edge by HTTP, and what came of it.
//!
//! `callers` tasks share one `pace`, each makes one `call` at a time and hands its outcome to the `tally`,
//! from which a [`Report`] is drawn while the run goes on and at its end. `edge` is the client of the edge; `args` and
//! `edge_args` are the two command lines, `shown` what they print.

mod args;
mod call;
mod edge;
mod edge_args;
mod pace;
mod report;
mod shown;
mod tally;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use args::LoadArgs;
pub use call::Client;
pub use edge::{Edge, Order};
pub use edge_args::EdgeLoadArgs;
pub use report::Report;
pub use tally::Outcome;

use pace::Pace;
use tally::Tally;

/// How often a run in progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// The kind of call that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    /// One request, one reply.
    Unary,
    /// One request, many replies.
    Stream {
        /// How many.
        replies: u32,
        /// The pause between them.
        interval: Duration,
    },
}

/// A load to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// What is called: names the run in its report.
    pub target: String,
    /// How calls are spread: names the run in its report.
    pub policy: String,
    /// How many calls are in flight at most: each caller has one.
    pub callers: u32,
    /// Calls started in a second by all callers together; 0 is as fast as they can.
    pub rate: u32,
    /// How long calls are started.
    pub time: Duration,
    /// The deadline of each call.
    pub deadline: Duration,
    /// The kind of call.
    pub rpc: Rpc,
}

/// What the callers share. Neither lock is held across an await.
struct Shared {
    pace: Mutex<Pace>,
    tally: Mutex<Tally>,
}

impl Load {
    /// Runs the load through `client` until its time is over or `stop` resolves; open calls are awaited.
    ///
    /// `observe` sees a report about twice a second while it runs.
    ///
    /// # Panics
    /// When a caller does: a bug in the call path is not one more failed call.
    pub async fn run(
        &self,
        client: Client,
        mut observe: impl FnMut(&Report),
        stop: impl Future<Output = ()>,
    ) -> Report {
        let start = Instant::now();
        let shared = Arc::new(Shared {
            pace: Mutex::new(Pace::new(self.rate, start)),
            tally: Mutex::new(Tally::new(start)),
        });
        // Owned by this function: aborted if it is dropped, else ended by time or `stop` and joined below.
        let mut callers = JoinSet::new();
        let (stopping, stopped) = watch::channel(false);
        for _ in 0..self.callers {
            let caller =
                caller(self.clone(), client.clone(), start + self.time, shared.clone(), stopped.clone());
            callers.spawn(caller);
        }
        let report = |now| lock(&shared.tally).report(now, &self.target, &self.policy);

        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Joining first: a panic of a caller is not hidden behind a tick.
                biased;
                joined = callers.join_next() => match joined {
                    Some(Ok(())) => {}
                    Some(Err(error)) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => unreachable!("callers are aborted only with this function: {error}"),
                    },
                    None => break,
                },
                () = &mut stop, if !*stopping.borrow() => {
                    stopping.send_replace(true);
                }
                _ = ticks.tick() => observe(&report(Instant::now())),
            }
        }
        report(Instant::now())
    }
}

/// One caller: waits for its turn, calls, records, until there is no turn left.
async fn caller(
    load: Load,
    mut client: Client,
    end: Instant,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let turn = lock(&shared.pace).take(Instant::now());
        if turn >= end || *stopped.borrow() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(turn) => {}
            // The sender lives as long as the run, so that an error means the same as a stop.
            _ = stopped.wait_for(|&stopped| stopped) => return,
        }
        let outcome = client.call(load.rpc, load.deadline).await;
        lock(&shared.tally).add(Instant::now(), outcome);
    }
}

/// A poisoned lock is taken all the same: the panic that poisoned it is raised by [`Load::run`].
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
