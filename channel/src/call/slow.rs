//! The slow way of a call, boxed: it waits for an endpoint or a stream, sees the attempt through, and sends the call
//! again where that is safe (`attempt/processed.rs`) or where the service config says so (`attempt/retry.rs`).

use std::sync::Arc;

use http::{HeaderMap, Response};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::start::{Start, Waiting};
use super::{Answer, Call};
use crate::admission::Admitted;
use crate::attempt::processed::Processed;
use crate::attempt::replay::Outgoing;
use crate::endpoint::Endpoint;
use crate::load::Outcome;
use crate::metrics::call::Again;
use crate::status;
use crate::subchannel::outcome_of;
use crate::subchannel::pump::Pump;
use crate::subchannel::stream::{Attempt, Failed};

/// What came of waiting for a response.
enum Head {
    /// It is the call's.
    Final(Answer),
    /// A failure and nothing else: the call may be sent again.
    TurnedDown(Attempt, Response<h2::RecvStream>),
}

impl Call {
    /// Lets those that were woken before it go first.
    pub(super) async fn run_after_others(self) -> Answer {
        tokio::task::yield_now().await;
        self.run().await
    }

    /// Sends as soon as that is possible, and sees the call through.
    pub(super) async fn run(mut self) -> Answer {
        loop {
            let attempt = self.sent().await?;
            match self.head_of(attempt).await {
                Ok(Head::Final(answer)) => return answer,
                Ok(Head::TurnedDown(attempt, head)) => self.prepare_after(attempt, head).await?,
                Err(failed) => self.prepare_again(failed).await?,
            }
        }
    }

    /// Goes on after the first attempt has failed.
    pub(super) async fn failed(mut self, failed: Failed) -> Answer {
        self.prepare_again(failed).await?;
        self.run().await
    }

    /// Goes on after the first attempt was answered with a failure, and nothing else.
    pub(super) async fn turned_down(mut self, attempt: Attempt, head: Response<h2::RecvStream>) -> Answer {
        self.prepare_after(attempt, head).await?;
        self.run().await
    }

    /// Waits until the call was handed to a connection.
    async fn sent(&mut self) -> Result<Attempt, Status> {
        let front = self.front.clone();
        let mut place = None;
        loop {
            // Registered before the snapshot is read, so that nothing is missed in between.
            let mut published = std::pin::pin!(front.published.notified());
            published.as_mut().enable();
            let mut slot = std::pin::pin!(front.slot_freed.wait());
            slot.as_mut().enable();
            let waiting = match self.start() {
                Start::Sent(attempt) => return Ok(attempt),
                Start::Failed(status) => {
                    self.pause(status, &HeaderMap::new()).await?;
                    continue;
                }
                Start::Wait(waiting) => waiting,
            };
            self.admit_waiting(&mut place)?;
            tokio::select! {
                biased; // a call whose deadline has passed must not be sent
                () = passed(self.deadline) => return Err(self.expired_waiting(waiting)),
                () = published => {}
                () = slot => {}
            }
        }
    }

    /// Takes a place among the calls that may wait.
    pub(super) fn admit_waiting(&self, place: &mut Option<Admitted>) -> Result<(), Status> {
        if let (Some(limit), None) = (&self.front.admission.waiting, &place) {
            *place = Some(limit.enter(&self.front.name)?);
        }
        Ok(())
    }

    /// Waits for the response's head, until the deadline.
    async fn head_of(&mut self, mut attempt: Attempt) -> Result<Head, Failed> {
        let head = tokio::select! {
            biased; // an answer that is there is taken, however late it is
            head = std::future::poll_fn(|cx| attempt.poll_head(cx)) => head,
            () = passed(self.deadline) => return Ok(Head::Final(Err(self.expired(attempt)))),
        };
        match head {
            Ok(head) if self.is_final(&head) => Ok(Head::Final(Ok(self.respond(attempt, head)))),
            Ok(head) => Ok(Head::TurnedDown(attempt, head)),
            Err(error) => Err(attempt.fail(error)),
        }
    }

    /// After an answer that was a failure and nothing else: Ok, after a pause, where the call is to be sent again.
    async fn prepare_after(
        &mut self,
        attempt: Attempt,
        head: Response<h2::RecvStream>,
    ) -> Result<(), Status> {
        let (call, replay) = attempt.abandon();
        call.head_arrived();
        let status = status::of_head(&head);
        let endpoint = call.connection().endpoint.clone();
        call.trailers_arrived(head.headers());
        call.end(outcome_of(head.headers()), status.code());
        let again = async {
            self.restore(replay, &status).await?;
            self.pause(status, head.headers()).await
        };
        let again = again.await;
        self.settled_unless(&again, &endpoint);
        again
    }

    /// After a failed attempt: Ok where the call may be sent again.
    async fn prepare_again(&mut self, failed: Failed) -> Result<(), Status> {
        let endpoint = failed.call.connection().endpoint.clone();
        let again = self.prepare_after_failure(failed).await;
        self.settled_unless(&again, &endpoint);
        again
    }

    /// A failure that is not to be sent again is the call's.
    fn settled_unless(&self, again: &Result<(), Status>, endpoint: &Arc<Endpoint>) {
        if again.is_err() {
            self.attempts.settled(endpoint);
        }
    }

    async fn prepare_after_failure(&mut self, failed: Failed) -> Result<(), Status> {
        let Failed { error, processed, replay, call } = failed;
        if let Some(status) = replay.as_ref().and_then(Pump::failure) {
            call.end(Outcome::Neutral, status.code()); // the caller's own
            return Err(status);
        }
        let expired = self.deadline.is_some_and(|d| Instant::now() >= d);
        let status = status::of_attempt(call.connection(), &error, expired);
        let safe = !expired
            && match processed {
                Processed::NeverSent => true,
                Processed::Refused => !std::mem::replace(&mut self.refused, true),
                Processed::Perhaps => false,
            };
        let counted = !safe && status::speaks_of_server(status.code());
        call.end(if counted { Outcome::Failed } else { Outcome::Neutral }, status.code());
        if !safe && self.retries.is_none() {
            return Err(status);
        }
        self.restore(replay, &status).await?;
        if !safe {
            return self.pause(status, &HeaderMap::new()).await;
        }
        self.attempts.again(Again::Transparently);
        Ok(())
    }

    /// Makes the body ready to be sent again; where that is impossible the failure is the call's.
    async fn restore(&mut self, replay: Option<Pump>, status: &Status) -> Result<(), Status> {
        if self.body.is_gone() {
            return Err(status.clone());
        }
        if let Some(pump) = replay {
            let Some(replay) = pump.take_back().await else { return Err(status.clone()) };
            self.body = Outgoing::Streaming(replay);
        }
        Ok(())
    }

    /// Waits before the next attempt, as the service config says; where there is none the failure is the call's.
    async fn pause(&mut self, status: Status, trailers: &HeaderMap) -> Result<(), Status> {
        let wait = self.retries.as_mut().and_then(|r| r.after_failure(status.code(), trailers));
        let Some(wait) = wait else { return Err(status) };
        let until = Instant::now() + wait;
        if self.deadline.is_some_and(|deadline| until >= deadline) {
            return Err(status); // the next attempt would begin too late
        }
        self.attempts.again(Again::Retry);
        sleep_until(until).await;
        Ok(())
    }

    pub(super) fn expired_waiting(&self, waiting: Waiting) -> Status {
        let doing = match waiting {
            Waiting::Slot => "waiting for a stream: every connection is at its peer's limit".to_owned(),
            Waiting::Endpoint => {
                format!("waiting for an endpoint: {}", self.front.snapshot.load().verdict.reason())
            }
        };
        status::deadline_exceeded(&self.front.name, &doing)
    }
}

/// Ends at the deadline.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
