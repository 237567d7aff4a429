//! Carries sendings to their end.
//!
//! A sending is written down under a claim and then carried by a task of its own, whatever becomes of the caller: each
//! receipt on its own, step by step, each step written down before the next is taken. A step without a certain answer is
//! taken again, with growing pauses, until there is one. The claim is renewed meanwhile; whoever loses it stops.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use svc_resolver::Channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::coins::Coins;
use super::hub::Hub;
use super::point::{Point, Probe};
use super::receipt::{Inbox, Next, Outcome, Receipt, State};
use super::store::{Advanced, Claim, Error, Order, Sending, Store};
use crate::time::now_ms;

/// Sendings that one instance carries at once. One more is refused before anything of it is written down.
const SENDINGS: usize = 256;

/// Receivers, of all sendings, with whom one instance is busy at once: what balance and the database are given to do.
const RECEIVERS: usize = 64;

/// The pause before a step is taken again is up to this long at first; each later one up to twice as long ...
const PAUSE: Duration = Duration::from_millis(50);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The try of one step whose failure the operator reads of.
const HELD_UP: u32 = 5;

/// The shortest claim: less would be over before it is renewed.
const SHORTEST_CLAIM: Duration = Duration::from_millis(100);

/// How soon, and how seldom at last, a caller's sending that another carries is looked at.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How a courier works.
///
/// # Defaults
/// A claim lasts 10 s; it lasts a tenth of a second at least.
#[derive(Clone, Debug)]
pub struct Terms {
    /// A sending is taken over when its claim has not been renewed for so long.
    pub claim: Duration,
    /// Told of each step; for tests.
    pub probe: Probe,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { claim: Duration::from_secs(10), probe: Probe::default() }
    }
}

/// What carries the sendings of one instance; clones are the same courier.
#[derive(Clone, Debug)]
pub struct Courier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    coins: Coins,
    hub: Hub,
    terms: Terms,
    sendings: Arc<Semaphore>,
    receivers: Semaphore,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// Why a sending was not begun, or is not known to have been.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The store says no.
    Store(Error),
    /// Too many are under way; nothing is written down.
    TooMany,
    /// The caller's time is over before it is known.
    Late,
}

impl From<Error> for NotSent {
    fn from(error: Error) -> NotSent {
        NotSent::Store(error)
    }
}

impl Courier {
    /// Carries what is in `store`, paid for through the one channel to `balance`.
    pub fn new(store: Store, balance: Channel, terms: Terms) -> Courier {
        let hub = Hub::start(store.clone());
        let terms = Terms { claim: terms.claim.max(SHORTEST_CLAIM), ..terms };
        Courier(Arc::new(Inner {
            store,
            coins: Coins::new(balance),
            hub,
            terms,
            sendings: Arc::new(Semaphore::new(SENDINGS)),
            receivers: Semaphore::new(RECEIVERS),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }))
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// How long a claim lasts.
    pub(super) fn claim_limit(&self) -> Duration {
        self.0.terms.claim
    }

    /// Sends, or finds what was sent under the same `biz_id`, and waits for its end until `until`; gives it as it then
    /// stands.
    ///
    /// # Cancel safety
    /// Dropped, what was begun goes on.
    pub(super) async fn send(&self, order: Order, until: Instant) -> Result<Sending, NotSent> {
        let permit = timeout_at(until, self.0.sendings.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(NotSent::TooMany) };
        let claim = Claim::new(self.0.terms.claim);
        let (tell, told) = oneshot::channel();
        let courier = self.clone();
        // Owner: the tracker, which `close` waits for. Ends with the sending, its claim, or the courier. Bound: the permit.
        // Errors of the beginning are the caller's, those behind it are logged.
        let task = async move {
            let begun = courier.0.store.begin(order, &claim).await;
            let ours = begun.as_ref().is_ok_and(|(_, ours)| *ours);
            let sending = begun.as_ref().ok().filter(|_| ours).map(|(sending, _)| sending.clone());
            // A caller that has gone misses nothing.
            let _ = tell.send(begun);
            if let Some(sending) = sending {
                courier.0.terms.probe.reached(Point::Begun);
                return courier.carry(&sending, &claim, permit).await;
            }
            None
        };
        let task = self.0.tasks.spawn(task.in_current_span());
        let begun = timeout_at(until, told).await.map_err(|_| NotSent::Late)?;
        let begun = begun.map_err(|_| Error::Internal("a sending ended early".to_owned()))?;
        let (sending, ours) = begun?;
        if sending.has_ended() {
            return Ok(sending);
        }
        if ours && let Ok(Ok(Some(ended))) = timeout_at(until, task).await {
            return Ok(ended);
        }
        // Late, or somebody else carries it: what is written down says how it stands.
        Ok(self.ended(sending.seq, until).await?)
    }

    /// Reads a sending until it has ended, or the time is over.
    async fn ended(&self, seq: i64, until: Instant) -> Result<Sending, Error> {
        let (mut pause, longest) = LOOK;
        loop {
            let sending = self.0.store.sending(seq).await?;
            if sending.has_ended() || Instant::now() + pause >= until {
                return Ok(sending);
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Takes over what nobody carries any more, as much of it as there is room for; says how many.
    pub(super) async fn take_over(&self) -> Result<usize, Error> {
        let mut taken = 0;
        for seq in self.0.store.left(self.0.sendings.available_permits()).await? {
            let Ok(permit) = self.0.sendings.clone().try_acquire_owned() else { break };
            let claim = Claim::new(self.0.terms.claim);
            if !self.0.store.claim(seq, &claim).await? {
                continue;
            }
            let sending = self.0.store.sending(seq).await?;
            taken += 1;
            tracing::info!(biz_id = sending.biz_id, "a sending that nobody carried is taken over");
            let courier = self.clone();
            // As in `send`.
            self.0.tasks.spawn(async move { drop(courier.carry(&sending, &claim, permit).await) });
        }
        Ok(taken)
    }

    /// Carries a sending until it has ended, which is then given, or its claim is lost, or the courier stops.
    async fn carry(
        &self,
        sending: &Sending,
        claim: &Claim,
        _permit: OwnedSemaphorePermit,
    ) -> Option<Sending> {
        let receipts = sending.receipts.iter().cloned().map(|receipt| self.deliver(sending, receipt));
        tokio::select! {
            // The end first: what has ended needs no claim.
            biased;
            receipts = join_all(receipts) => return Some(Sending { receipts, ..sending.clone() }),
            () = self.lost(sending, claim) => {
                tracing::warn!(biz_id = sending.biz_id, "another instance has taken a sending over");
                return None;
            }
            () = self.0.stopping.cancelled() => {}
        }
        if let Err(error) = self.0.store.release(sending.seq, claim).await {
            tracing::warn!(%error, biz_id = sending.biz_id, "a sending is taken over only when its claim is over");
        }
        None
    }

    /// Renews the claim; resolves when it is somebody else's.
    async fn lost(&self, sending: &Sending, claim: &Claim) {
        loop {
            sleep(self.0.terms.claim / 3).await;
            match self.0.store.renew(sending.seq, claim).await {
                Ok(true) => {}
                Ok(false) => return,
                // Whoever else can reach the database may take it over; this one goes on trying.
                Err(error) => tracing::debug!(%error, biz_id = sending.biz_id, "a claim was not renewed"),
            }
        }
    }

    /// Takes one receipt to its end, and gives it.
    ///
    /// # Cancel safety
    /// Dropped, it stands as it was last written down.
    async fn deliver(&self, sending: &Sending, mut receipt: Receipt) -> Receipt {
        let mut tries = 0;
        while !receipt.state.is_end() {
            // The semaphore is never closed. Held for a step at a time: who pauses lets others go on.
            let permit = self.0.receivers.acquire().await;
            let gone_on = self.step(sending, &receipt).await;
            drop(permit);
            match gone_on {
                Ok(next) => {
                    receipt = next;
                    tries = 0;
                }
                Err(why) => {
                    tries += 1;
                    let (biz_id, to_uid) = (&sending.biz_id, receipt.to);
                    if tries == HELD_UP {
                        tracing::warn!(why, biz_id, to_uid, "a sending is held up; it goes on by itself");
                    } else {
                        tracing::debug!(why, tries, biz_id, to_uid, "a step is taken again");
                    }
                    // Full jitter: those who met do not meet again.
                    let longest = PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
                    sleep(longest.mul_f64(fastrand::f64())).await;
                }
            }
        }
        receipt
    }

    /// Takes the next step and writes down what came of it; gives what the receipt then is.
    async fn step(&self, sending: &Sending, receipt: &Receipt) -> Result<Receipt, String> {
        let coins = &self.0.coins;
        let outcome = match receipt.next(now_ms()) {
            None => return Ok(receipt.clone()),
            Some(Next::Freeze) => {
                coins.freeze(sending, receipt.to).await.map_err(|status| status.to_string())?
            }
            Some(Next::Confirm) => coins.confirm(receipt).await.map_err(|status| status.to_string())?,
            Some(Next::Refund) => coins.refund(receipt).await.map_err(|status| status.to_string())?,
            // This step is the writing down itself.
            Some(Next::Deliver) => match self.written(sending, receipt, Outcome::Delivered).await {
                Err(error @ Error::Database(_)) => {
                    tracing::error!(%error, biz_id = sending.biz_id, to_uid = receipt.to, "the inbox refuses a gift");
                    Outcome::NotDelivered("the gift could not be put into the inbox".to_owned())
                }
                done => return done.map_err(|error| error.to_string()),
            },
            Some(Next::GiveUp) => {
                Outcome::NotDelivered("the time for which the coins were frozen is nearly over".to_owned())
            }
        };
        if let Some(point) = Point::answered(&outcome) {
            self.0.terms.probe.reached(point);
        }
        self.written(sending, receipt, outcome).await.map_err(|error| error.to_string())
    }

    async fn written(
        &self,
        sending: &Sending,
        receipt: &Receipt,
        outcome: Outcome,
    ) -> Result<Receipt, Error> {
        let store = &self.0.store;
        let Some((next, inbox)) = receipt.after(outcome) else {
            return Err(Error::Internal(format!("an outcome that is none of {:?}", receipt.state)));
        };
        match store.advance(sending.seq, receipt.state, next.clone(), inbox).await? {
            Advanced::Written(position) => {
                if let (Inbox::Put, Some(position)) = (inbox, position) {
                    self.0.hub.tell(receipt.to, position);
                }
                self.0.terms.probe.reached(Point::written(next.state));
                Ok(next)
            }
            Advanced::Elsewhere => {
                let stands = store.receipt(sending.seq, receipt.to).await?;
                if stands.state == State::Refused && next.state == State::Delivering {
                    // Another instance was told that there are too few coins, this one came when there were enough.
                    // Without an answer they go back when their time is over.
                    let _ = self.0.coins.refund(&next).await;
                }
                Ok(stands)
            }
        }
    }

    /// Begins nothing any more; waits for what is under way, up to `patience`, and leaves the rest to other instances.
    pub async fn close(&self, patience: Duration) {
        self.0.sendings.close();
        self.0.tasks.close();
        if timeout(patience, self.0.tasks.wait()).await.is_err() {
            self.0.stopping.cancel();
            // Each lets go of its claim, within the limits of a write.
            let _ = timeout(patience, self.0.tasks.wait()).await;
        }
    }
}
