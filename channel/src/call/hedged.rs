//! A hedged call (gRFC A6), boxed: attempts begin one after the other at different endpoints, as `attempt/hedge.rs`
//! says; the first answer that commits the call is its answer. The others are dropped, which resets their streams with
//! CANCEL and counts neither for nor against their endpoints.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::slow::passed;
use super::start::{Start, Waiting};
use super::{Answer, Call, outcome_is_ok};
use crate::attempt::hedge::{After, Hedges};
use crate::attempt::processed::Processed;
use crate::load::Outcome;
use crate::metrics::call::Again;
use crate::status;
use crate::subchannel::outcome_of;
use crate::subchannel::stream::Attempt;

type Head = Result<Response<h2::RecvStream>, h2::Error>;

/// The attempts under way, at most as many as the policy allows.
type Flight = Vec<Attempt>;

impl Call {
    /// Sends attempts as they fall due and sees the call through.
    pub(super) async fn run_hedged(mut self) -> Answer {
        let front = self.front.clone();
        let mut flight = Flight::new();
        let mut place = None;
        loop {
            let now = Instant::now();
            let due = self.hedges.as_mut().and_then(|hedges| hedges.due(now));
            let is_due = due.is_some_and(|due| due <= now);
            // Registered before the snapshot is read, so that nothing is missed in between.
            let mut published = std::pin::pin!(is_due.then(|| front.published.notified()));
            let mut slot = std::pin::pin!(is_due.then(|| front.slot_freed.wait()));
            if let (Some(published), Some(slot)) =
                (published.as_mut().as_pin_mut(), slot.as_mut().as_pin_mut())
            {
                published.enable();
                slot.enable();
            }
            let mut waiting = Waiting::Endpoint;
            if is_due {
                match self.start() {
                    Start::Sent(attempt) => {
                        self.began(&attempt);
                        flight.push(attempt);
                        place = None;
                        continue;
                    }
                    Start::Failed(status) if flight.is_empty() => return Err(status),
                    // Those under way may still be answered.
                    Start::Failed(_) => {}
                    Start::Wait(what) => waiting = what,
                }
                if flight.is_empty() {
                    self.admit_waiting(&mut place)?;
                }
            }
            let (attempt, head) = tokio::select! {
                biased; // an answer that is there is taken, however late it is; after the deadline nothing is sent
                answered = poll_fn(|cx| poll_heads(&mut flight, cx)) => answered,
                () = passed(self.deadline) => return Err(self.all_expired(flight, waiting)),
                () = passed(due), if !is_due => continue,
                () = some(published), if is_due => continue,
                () = some(slot), if is_due => continue,
            };
            if let Some(answer) = self.after(attempt, head, flight.is_empty()) {
                return answer; // the others are dropped
            }
        }
    }

    fn began(&mut self, attempt: &Attempt) {
        if let Some(hedges) = &mut self.hedges {
            hedges.began(&attempt.connection().load, Instant::now());
        }
    }

    /// An attempt was answered or failed: the call's answer, if that is it. `alone` says that no other is under way.
    fn after(&mut self, attempt: Attempt, head: Head, alone: bool) -> Option<Answer> {
        let now = Instant::now();
        let Some(hedges) = &mut self.hedges else {
            return Some(Err(Status::internal("a hedged call has hedges")));
        };
        hedges.ended(&attempt.connection().load);
        match head {
            Ok(head) if !head.body().is_end_stream() || outcome_is_ok(head.headers()) => {
                hedges.count_success();
                Some(Ok(self.respond(attempt, head)))
            }
            Ok(head) => {
                let code = status::of_head(&head).code();
                if goes_on(hedges, code, head.headers(), now, alone) {
                    let (call, _no_pump) = attempt.abandon();
                    call.head_arrived();
                    call.trailers_arrived(head.headers());
                    call.end(outcome_of(head.headers()), code);
                    return None;
                }
                Some(Ok(self.respond(attempt, head)))
            }
            Err(error) => {
                let failed = attempt.fail(error);
                let expired = self.deadline.is_some_and(|deadline| now >= deadline);
                let status = status::of_attempt(failed.call.connection(), &failed.error, expired);
                let safe = match failed.processed {
                    Processed::NeverSent => true,
                    Processed::Refused => !std::mem::replace(&mut self.refused, true),
                    Processed::Perhaps => false,
                };
                if safe && !expired {
                    failed.call.end(Outcome::Neutral, status.code());
                    self.attempts.again(Again::Transparently);
                    hedges.not_processed();
                    return None;
                }
                let counted = status::speaks_of_server(status.code());
                let endpoint = failed.call.connection().endpoint.clone();
                failed.call.end(if counted { Outcome::Failed } else { Outcome::Neutral }, status.code());
                if goes_on(hedges, status.code(), &HeaderMap::new(), now, alone) {
                    return None;
                }
                self.attempts.settled(&endpoint);
                Some(Err(status))
            }
        }
    }

    fn all_expired(&self, flight: Flight, waiting: Waiting) -> Status {
        let mut flight = flight.into_iter();
        let Some(first) = flight.next() else {
            return self.expired_waiting(waiting);
        };
        for attempt in flight {
            attempt.give_up().end(Outcome::Expired, Code::DeadlineExceeded);
        }
        self.expired(first)
    }
}

/// Whether the call goes on after an attempt has failed: others are under way, or one more will be.
fn goes_on(hedges: &mut Hedges, code: tonic::Code, trailers: &HeaderMap, now: Instant, alone: bool) -> bool {
    hedges.failed(code, trailers, now) == After::GoOn && !(alone && hedges.due(now).is_none())
}

/// The first attempt that was answered or failed, taken out of the others.
fn poll_heads(flight: &mut Flight, cx: &mut Context<'_>) -> Poll<(Attempt, Head)> {
    for at in 0..flight.len() {
        if let Some(Poll::Ready(head)) = flight.get_mut(at).map(|attempt| attempt.poll_head(cx)) {
            return Poll::Ready((flight.remove(at), head));
        }
    }
    Poll::Pending
}

/// Waits for what is there.
async fn some<F: Future<Output = ()>>(future: Pin<&mut Option<F>>) {
    match future.as_pin_mut() {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
