//! Callers that call all the time, and a tally of what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use svc_channel::Channel;
use svc_tests::backends::PATIENCE;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::hello_within;

/// Each caller rests so long between two calls: load enough to hit every moment, and a core left for the backends.
const REST: Duration = Duration::from_millis(4);

/// What came of the calls so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) ok: u64,
    pub(crate) by_instance: BTreeMap<String, u64>,
    pub(crate) failed: Vec<(Code, String)>,
}

impl Tally {
    /// Good answers of one instance.
    pub(crate) fn of(&self, instance: &str) -> u64 {
        self.by_instance.get(instance).copied().unwrap_or(0)
    }
}

/// Callers at work. Its drop ends them.
#[derive(Debug)]
pub(crate) struct Load {
    callers: JoinSet<()>,
    end: CancellationToken,
    tally: watch::Sender<Tally>,
}

impl Load {
    /// Starts `callers`, each with at most one call in flight.
    pub(crate) fn start(channel: &Channel, callers: usize, deadline: Option<Duration>) -> Load {
        let end = CancellationToken::new();
        let tally = watch::Sender::new(Tally::default());
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (channel, end, tally) = (channel.clone(), end.clone(), tally.clone());
            tasks.spawn(async move {
                while !end.is_cancelled() {
                    let answer = hello_within(&channel, deadline).await;
                    tally.send_modify(|tally| match answer {
                        Ok(reply) => {
                            tally.ok += 1;
                            *tally.by_instance.entry(reply.instance).or_default() += 1;
                        }
                        Err(status) => tally.failed.push((status.code(), status.message().to_owned())),
                    });
                    tokio::time::sleep(REST).await;
                }
            });
        }
        Load { callers: tasks, end, tally }
    }

    /// What came of the calls so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Waits until the tally is as the test needs it.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&Tally) -> bool) -> Tally {
        let mut tally = self.tally.subscribe();
        match tokio::time::timeout(2 * PATIENCE, tally.wait_for(|tally| wanted(tally))).await {
            Ok(tally) => tally.expect("we hold the sender").clone(),
            Err(_) => panic!("{what} never came: {:?}", self.tally()),
        }
    }

    /// Waits for that many more good answers.
    pub(crate) async fn more(&self, calls: u64) {
        let wanted = self.tally.borrow().ok + calls;
        self.until("more answers", |tally| tally.ok >= wanted).await;
    }

    /// Lets every caller finish its call, and gives the result.
    pub(crate) async fn finish(mut self) -> Tally {
        self.end.cancel();
        while let Some(caller) = self.callers.join_next().await {
            caller.expect("callers do not panic");
        }
        self.tally()
    }

    /// The same, for loads of which no call may fail.
    pub(crate) async fn finish_unharmed(self) -> Tally {
        let tally = self.finish().await;
        assert!(tally.failed.is_empty(), "{} of {} failed: {:?}", tally.failed.len(), tally.ok, tally.failed);
        tally
    }
}
