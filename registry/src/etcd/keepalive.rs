//! One keepalive stream for all leases: renewals go in, answers come out, the stream between is made again
//! whenever it ends or falls silent.
//!
//! It decides nothing: which lease is due, and what a missing answer means, is the lease clock's
//! (`registrar/lease.rs`). A renewal that was lost with its stream is reported as [`Answer::Down`] and not repeated.

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::{LeaseKeepAliveResponse, LeaseKeeper};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::Etcd;
use super::error::{Failure, classify};
use crate::backoff::Backoff;
use crate::name::LeaseId;

/// More renewals than a process has leases; a full queue means that the stream is stuck.
const QUEUE: usize = 1024;

/// A wish to renew a lease, and how long the answer may take before the stream counts as dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) lease: LeaseId,
    pub(crate) patience: Duration,
}

/// What became of renewals.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The lease lives for its granted TTL from when the renewal was sent.
    Renewed { lease: LeaseId },
    /// etcd does not know the lease, or no longer.
    Gone { lease: LeaseId },
    /// The stream ended or could not be opened; every renewal without an answer is lost, sent or not.
    Down { reason: String },
}

/// The handle of the stream's task; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Keepalive {
    renewals: mpsc::Sender<Renewal>,
    answers: mpsc::Receiver<Answer>,
}

impl Keepalive {
    /// Starts the task. No stream is opened before the first renewal.
    pub(crate) fn start(etcd: Etcd) -> Keepalive {
        let (renewals, requested) = mpsc::channel(QUEUE);
        let (answered, answers) = mpsc::channel(QUEUE);
        // Owned by this handle: ends when the handle is dropped (both channels close); bounded by its two queues;
        // its errors are `Answer::Down`.
        tokio::spawn(run(etcd, requested, answered));
        Keepalive { renewals, answers }
    }

    /// Asks for a renewal without waiting. `false`: the queue is full, ask again later.
    pub(crate) fn renew(&self, renewal: Renewal) -> bool {
        self.renewals.try_send(renewal).is_ok()
    }

    /// The next answer. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

/// Why a stream is over.
enum End {
    HandleDropped,
    Lost(String),
}

async fn run(etcd: Etcd, mut requested: mpsc::Receiver<Renewal>, answered: mpsc::Sender<Answer>) {
    let mut backoff = Backoff::keepalive();
    let mut random = fastrand::Rng::new();
    while let Some(first) = requested.recv().await {
        match stream(&etcd, first, &mut requested, &answered, &mut backoff).await {
            End::HandleDropped => return,
            End::Lost(reason) => {
                // `Down` means those that wait too, and the lease clock asks for them again. Kept, they would pile up
                // for as long as etcd is away, and all be sent when it is back.
                while requested.try_recv().is_ok() {}
                if answered.send(Answer::Down { reason }).await.is_err() {
                    return;
                }
                tokio::time::sleep(backoff.next(&mut random)).await;
            }
        }
    }
}

/// One life of the stream, opened with its first renewal.
async fn stream(
    etcd: &Etcd,
    first: Renewal,
    requested: &mut mpsc::Receiver<Renewal>,
    answered: &mpsc::Sender<Answer>,
    backoff: &mut Backoff,
) -> End {
    let (client, peer) = etcd.stream();
    let mut client = client.lease_client();
    // etcd-client waits for the first answer without a limit of its own.
    let opened = tokio::time::timeout(first.patience, client.keep_alive(first.lease.0)).await;
    let (keeper, mut stream) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) if classify(&error) == Failure::LeaseNotFound => {
            // The stream worked; etcd-client drops it when the first lease is gone. The next renewal opens another.
            return match answered.send(Answer::Gone { lease: first.lease }).await {
                Ok(()) => End::Lost("the stream's first lease is gone".to_owned()),
                Err(_) => End::HandleDropped,
            };
        }
        Ok(Err(error)) => {
            return End::Lost(etcd.stream_error("keeping leases alive", &peer, error).to_string());
        }
        Err(_) => {
            let member = etcd.member(&peer);
            return End::Lost(format!(
                "etcd at {member} left a keepalive unanswered for {:?}",
                first.patience
            ));
        }
    };
    // etcd-client keeps the first answer for itself; no error means a TTL above 0.
    if answered.send(Answer::Renewed { lease: first.lease }).await.is_err() {
        return End::HandleDropped;
    }
    backoff.reset();

    let mut unanswered: VecDeque<(LeaseId, Instant)> = VecDeque::new();
    loop {
        let silent = unanswered.front().map(|(_, deadline)| *deadline);
        // Fair: each branch is short, and none may starve the other (many renewals, many answers).
        tokio::select! {
            renewal = requested.recv() => {
                let Some(renewal) = renewal else { return End::HandleDropped };
                unanswered.push_back((renewal.lease, Instant::now() + renewal.patience));
                // One keeper per lease over one sender: this is how one stream keeps many leases.
                let mut keeper = LeaseKeeper { id: renewal.lease.0, sender: keeper.sender.clone() };
                if let Err(error) = keeper.keep_alive().await {
                    return End::Lost(etcd.stream_error("keeping leases alive", &peer, error).to_string());
                }
            }
            message = stream.message() => {
                let answer = match message {
                    Ok(Some(response)) => answer(&response),
                    Ok(None) => return End::Lost(format!("etcd at {} ended the keepalive stream", etcd.member(&peer))),
                    Err(error) => return End::Lost(etcd.stream_error("keeping leases alive", &peer, error).to_string()),
                };
                let (Answer::Renewed { lease } | Answer::Gone { lease }) = &answer else { continue };
                unanswered.retain(|(waiting, _)| waiting != lease);
                if answered.send(answer).await.is_err() {
                    return End::HandleDropped;
                }
            }
            () = until(silent) => {
                return End::Lost(format!("etcd at {} leaves keepalives unanswered", etcd.member(&peer)));
            }
        }
    }
}

fn answer(response: &LeaseKeepAliveResponse) -> Answer {
    let lease = LeaseId(response.id());
    // 0 means unknown; behind `etcd grpc-proxy` it is -1.
    if response.ttl() > 0 { Answer::Renewed { lease } } else { Answer::Gone { lease } }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use svc_channel::{BoxIo, connector_fn};

    use super::*;
    use crate::etcd::EtcdConfig;

    #[tokio::test(start_paused = true)]
    async fn an_outage_leaves_no_backlog_of_renewals_for_an_etcd_that_is_back() {
        let refused = connector_fn(|_| async { Err::<BoxIo, _>(io::ErrorKind::ConnectionRefused.into()) });
        let etcd = Etcd::new(EtcdConfig::default().with_connector(refused)).unwrap();
        let mut keepalive = Keepalive::start(etcd);
        for _ in 0..20 {
            // As the lease clock does it: whatever was lost with the stream is asked for again.
            for lease in 1..=50 {
                let patience = Duration::from_secs(5);
                assert!(keepalive.renew(Renewal { lease: LeaseId(lease), patience }), "the queue is full");
            }
            assert!(matches!(keepalive.next().await, Some(Answer::Down { .. })));
        }
        let waiting = QUEUE - keepalive.renewals.capacity();
        assert!(waiting <= 50, "{waiting} renewals wait for 50 leases");
    }
}
