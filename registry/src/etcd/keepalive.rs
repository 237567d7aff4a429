//! One keepalive stream for all leases: renewals go in, answers come out, the stream between is made again
//! whenever it ends or falls silent.
//!
//! Which lease is due, and what a missing answer means, is the lease clock's (`registrar/lease.rs`). A renewal that was
//! lost with its stream is reported as [`Answer::Down`] and not repeated. How long silence may last is etcd's
//! [`Pace`]. A stream that was given up for its silence is still listened to while the next one opens: where etcd
//! is only slow, the answer that was waited for comes there, tells the pace, and the stream goes on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use svc_channel::Peer;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::Etcd;
use super::error::{Failure, classify};
use super::pace::Pace;
use crate::backoff::Backoff;
use crate::name::LeaseId;

/// More renewals than a process has leases; a full queue means that the stream is stuck.
const QUEUE: usize = 1024;

/// A wish to renew a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) lease: LeaseId,
    pub(crate) ttl: Duration,
    /// When the lease clock asked for it.
    pub(crate) sent: Instant,
}

/// What became of renewals.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The lease lives for its granted TTL from `sent` on, which is its renewal's.
    Renewed { lease: LeaseId, sent: Instant },
    /// etcd does not know the lease, or no longer.
    Gone { lease: LeaseId },
    /// The stream ended, fell silent or could not be opened; whoever waits for an answer has to ask again.
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
        let task = Task { etcd, requested, answered, pace: Pace::default(), backoff: Backoff::keepalive() };
        // Owned by this handle: ends when the handle is dropped (both channels close); bounded by its two queues;
        // its errors are `Answer::Down`.
        tokio::spawn(task.run());
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

struct Task {
    etcd: Etcd,
    requested: mpsc::Receiver<Renewal>,
    answered: mpsc::Sender<Answer>,
    pace: Pace,
    backoff: Backoff,
}

impl Task {
    async fn run(mut self) {
        let mut random = fastrand::Rng::new();
        let mut silent = None;
        while let Some(first) = self.requested.recv().await {
            // What has been silent for a life of the lease says nothing of etcd's pace, if it speaks at all.
            silent.take_if(|silent: &mut Stream| silent.silent_for() >= first.ttl);
            let stream = Stream::open(&self.etcd, first);
            let reason = match self.serve(stream, &mut silent).await {
                End::HandleDropped => return,
                End::Lost(reason) => reason,
            };
            // `Down` means those that wait too, and the lease clock asks for them again. Kept, they would pile up
            // for as long as etcd is away, and all be sent when it is back.
            while self.requested.try_recv().is_ok() {}
            if self.answered.send(Answer::Down { reason }).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next(&mut random)) => {}
                () = self.answered.closed() => return,
            }
        }
    }

    /// One life of the stream. The one before it, if it was given up for its silence, is listened to until this one speaks.
    async fn serve(&mut self, mut stream: Stream, silent: &mut Option<Stream>) -> End {
        let mut again = None;
        loop {
            let silence = stream.silence(&self.pace);
            // Fair: each branch is short, and none may starve the other (many renewals, many answers).
            tokio::select! {
                renewal = either(&mut again, &mut self.requested), if stream.is_open() => {
                    let Some(renewal) = renewal else { return End::HandleDropped };
                    match tokio::time::timeout(self.pace.patience(renewal.ttl), stream.renew(renewal)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return self.lost(&stream.peer, error),
                        Err(_) => return self.given_up(stream, silent),
                    }
                }
                answer = stream.next() => match answer {
                    Ok(answer) => {
                        *silent = None;
                        if self.heard(answer).await.is_err() {
                            return End::HandleDropped;
                        }
                    }
                    Err(Some(error)) => return self.lost(&stream.peer, error),
                    Err(None) if stream.is_open() => {
                        let member = self.etcd.member(&stream.peer);
                        return End::Lost(format!("etcd at {member} ended the keepalive stream"));
                    }
                    Err(None) => return End::Lost("the stream's first lease is gone".to_owned()),
                },
                late = next(silent) => {
                    // Without an answer it has nothing more to say. With one it was only slow, and goes on in this one's place.
                    let spoke = silent.take();
                    let Ok(answer) = late else { continue };
                    if self.heard(answer).await.is_err() {
                        return End::HandleDropped;
                    }
                    if let Some(spoke) = spoke.filter(Stream::is_open) {
                        again = stream.unanswered.pop_front().map(|(renewal, _)| renewal);
                        stream = spoke;
                    }
                }
                () = self.answered.closed() => return End::HandleDropped,
                () = until(silence) => return self.given_up(stream, silent),
            }
        }
    }

    /// Passes an answer on, with what it says of etcd's pace.
    async fn heard(
        &mut self,
        answer: Option<(Answer, Duration)>,
    ) -> Result<(), mpsc::error::SendError<Answer>> {
        let Some((answer, round_trip)) = answer else { return Ok(()) };
        self.pace.answered(round_trip);
        self.backoff.reset();
        self.answered.send(answer).await
    }

    fn lost(&self, peer: &Peer, error: etcd_client::Error) -> End {
        End::Lost(self.etcd.stream_error("keeping leases alive", peer, error).to_string())
    }

    /// For its silence: an answer may come all the same, and of two that are silent the older one owes it first.
    fn given_up(&self, stream: Stream, silent: &mut Option<Stream>) -> End {
        let (member, time) = (self.etcd.member(&stream.peer), stream.silent_for());
        silent.get_or_insert(stream);
        End::Lost(format!("etcd at {member} left keepalives unanswered for {time:.1?}"))
    }
}

type Opening =
    Pin<Box<dyn Future<Output = Result<(LeaseKeeper, LeaseKeepAliveStream), etcd_client::Error>> + Send>>;

enum State {
    /// etcd-client waits for the answer to the first renewal, without a limit of its own.
    Opening(Opening),
    Open(LeaseKeeper, Box<LeaseKeepAliveStream>),
    Over,
}

/// An answer and what it took, `None` for one that nobody waits for; or the error that ended the stream, if there is one.
type Next = Result<Option<(Answer, Duration)>, Option<etcd_client::Error>>;

/// A stream, and what is under way on it.
struct Stream {
    state: State,
    peer: Peer,
    /// With when each was sent here.
    unanswered: VecDeque<(Renewal, Instant)>,
    /// When it said something last: etcd answers one after the other, and each answer is a sign of life for all.
    heard: Instant,
}

impl Stream {
    fn open(etcd: &Etcd, first: Renewal) -> Stream {
        let now = Instant::now();
        let (client, peer) = etcd.stream();
        let mut client = client.lease_client();
        let opening = Box::pin(async move { client.keep_alive(first.lease.0).await });
        Stream { state: State::Opening(opening), peer, unanswered: [(first, now)].into(), heard: now }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// When its silence has lasted too long.
    fn silence(&self, pace: &Pace) -> Option<Instant> {
        self.unanswered.front().map(|(first, asked)| self.heard.max(*asked) + pace.patience(first.ttl))
    }

    fn silent_for(&self) -> Duration {
        self.unanswered.front().map_or(Duration::ZERO, |(_, asked)| self.heard.max(*asked).elapsed())
    }

    async fn renew(&mut self, renewal: Renewal) -> Result<(), etcd_client::Error> {
        let State::Open(keeper, _) = &self.state else { return Ok(()) };
        // One keeper per lease over one sender: this is how one stream keeps many leases.
        LeaseKeeper { id: renewal.lease.0, sender: keeper.sender.clone() }.keep_alive().await?;
        self.unanswered.push_back((renewal, Instant::now()));
        Ok(())
    }

    /// Cancel safe.
    async fn next(&mut self) -> Next {
        let (lease, lives) = match &mut self.state {
            State::Opening(opening) => match opening.await {
                Ok((keeper, stream)) => {
                    // etcd-client keeps the first answer for itself; no error means a TTL above 0.
                    let lease = LeaseId(keeper.id);
                    self.state = State::Open(keeper, Box::new(stream));
                    (lease, true)
                }
                Err(error) => {
                    self.state = State::Over;
                    // The stream worked; etcd-client drops it when the first lease is gone.
                    match self.unanswered.front() {
                        Some((first, _)) if classify(&error) == Failure::LeaseNotFound => {
                            (first.lease, false)
                        }
                        _ => return Err(Some(error)),
                    }
                }
            },
            State::Open(_, stream) => {
                let response = stream.message().await.map_err(Some)?.ok_or(None)?;
                // 0 means unknown; behind `etcd grpc-proxy` it is -1.
                (LeaseId(response.id()), response.ttl() > 0)
            }
            State::Over => return Err(None),
        };
        self.heard = Instant::now();
        let at = self.unanswered.iter().position(|(renewal, _)| renewal.lease == lease);
        let Some((Renewal { sent, .. }, asked)) = at.and_then(|at| self.unanswered.remove(at)) else {
            return Ok(None);
        };
        let answer = if lives { Answer::Renewed { lease, sent } } else { Answer::Gone { lease } };
        Ok(Some((answer, asked.elapsed())))
    }
}

/// The next answer of a stream, where there is one.
async fn next(stream: &mut Option<Stream>) -> Next {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn either(again: &mut Option<Renewal>, requested: &mut mpsc::Receiver<Renewal>) -> Option<Renewal> {
    match again.take() {
        Some(renewal) => Some(renewal),
        None => requested.recv().await,
    }
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
                let (ttl, sent) = (Duration::from_secs(15), Instant::now());
                assert!(keepalive.renew(Renewal { lease: LeaseId(lease), ttl, sent }), "the queue is full");
            }
            assert!(matches!(keepalive.next().await, Some(Answer::Down { .. })));
        }
        let waiting = QUEUE - keepalive.renewals.capacity();
        assert!(waiting <= 50, "{waiting} renewals wait for 50 leases");
    }
}
