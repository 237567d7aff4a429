//! The response's body: hands on what h2 receives, enforces the deadline, and ends the accounting of its call with the
//! trailers, an error or its own drop, whichever comes first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use super::pump::Sending;
use crate::admission::Admitted;
use crate::load::Outcome;
use crate::load::in_flight::InFlight;
use crate::meter::{Meter, TooLarge};
use crate::metrics::call::CallRecord;
use crate::status;

/// Window is given back in lots, to spare h2's lock; well below the stream window, so that senders never wait for it.
const RELEASE_LOT: usize = 128 * 1024;

/// The body of a response. Errors are [`Status`]es, which tonic passes on as they are. The default is an empty one, which
/// interceptors answer with where they refuse a call.
#[derive(Debug, Default)]
pub struct ResponseBody {
    open: Option<Open>,
    /// The call as a whole, where it is observed.
    record: Option<CallRecord>,
}

/// Field order is drop order: the stream goes before the slot that `sending` gives back.
#[derive(Debug)]
struct Open {
    recv: RecvStream,
    unreleased: usize,
    data_ended: bool,
    deadline: Option<Deadline>,
    meter: Option<Meter>,
    sending: Sending,
    call: InFlight,
    _admitted: Option<Admitted>,
}

/// What holds for a call until its response has ended.
pub(crate) struct Terms<'a> {
    pub(crate) deadline: Option<Instant>,
    pub(crate) channel: &'a Arc<str>,
    /// Measures the response's messages.
    pub(crate) meter: Option<Meter>,
    /// The call's place among those that the channel admits.
    pub(crate) admitted: Option<Admitted>,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    channel: Arc<str>,
    /// Made only when the body has to wait: a unary answer is mostly whole by then.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// `headers` are the response's: a trailers-only response ends with them.
    pub(crate) fn new(
        recv: RecvStream,
        headers: &HeaderMap,
        sending: Sending,
        call: InFlight,
        terms: Terms<'_>,
    ) -> Self {
        let Terms { deadline, channel, meter, admitted } = terms;
        let deadline = deadline.map(|at| Deadline { at, channel: channel.clone(), timer: None });
        let open = Open {
            recv,
            unreleased: 0,
            data_ended: false,
            deadline,
            meter,
            sending,
            call,
            _admitted: admitted,
        };
        if open.recv.is_end_stream() {
            open.call.trailers_arrived(headers);
            open.end(outcome_of(headers), status::code_of_trailers(headers));
            return Self::default();
        }
        Self { open: Some(open), record: None }
    }

    /// Ends the call's record when it ends itself.
    pub(crate) fn observe(&mut self, record: CallRecord) {
        self.record = Some(record);
    }

    fn tell(&mut self, code: Code) {
        if let Some(record) = self.record.take() {
            record.end(code);
        }
    }
}

impl Open {
    /// Ends the call in order.
    fn end(mut self, outcome: Outcome, code: Code) {
        self.sending.response_ended();
        self.call.end(outcome, code);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if let Some(deadline) = &self.deadline
            && Instant::now() >= deadline.at
        {
            return Poll::Ready(Received::Expired);
        }
        let received = self.poll_stream(cx);
        match (&mut self.deadline, received) {
            (Some(deadline), Poll::Pending) => {
                let timer = deadline.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.at)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Received::Expired)
            }
            (_, received) => received,
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    if let Some(Err(too_large)) = self.meter.as_mut().map(|meter| meter.pass(&data)) {
                        return Poll::Ready(Received::TooLarge(too_large));
                    }
                    self.release(data.len());
                    self.call.received(&data);
                    return Poll::Ready(Received::Data(data));
                }
                Some(Err(error)) => return Poll::Ready(Received::Error(error)),
                None => self.data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.recv.poll_trailers(cx)) {
            Ok(trailers) => Received::End(trailers),
            Err(error) => Received::Error(error),
        })
    }

    fn release(&mut self, bytes: usize) {
        self.unreleased += bytes;
        if self.unreleased >= RELEASE_LOT {
            // An error means that the stream is closed, and its window with it.
            let _ = self.recv.flow_control().release_capacity(std::mem::take(&mut self.unreleased));
        }
    }
}

enum Received {
    Data(Bytes),
    End(Option<HeaderMap>),
    Error(h2::Error),
    TooLarge(TooLarge),
    Expired,
}

/// What a response's last headers say of the server's health.
pub(crate) fn outcome_of(trailers: &HeaderMap) -> Outcome {
    match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => Outcome::Answered,
        Some(code) if !status::speaks_of_server(Code::from_bytes(code)) => Outcome::Answered,
        _ => Outcome::Failed,
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        let received = ready!(open.poll(cx));
        if let Received::Data(data) = received {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(open) = self.open.take() else { return Poll::Ready(None) };
        Poll::Ready(match received {
            Received::Data(_) | Received::End(None) => {
                // No trailers: tonic makes of this what the HTTP status says.
                open.end(Outcome::Failed, Code::Unknown);
                self.tell(Code::Unknown);
                None
            }
            Received::End(Some(trailers)) => {
                open.call.trailers_arrived(&trailers);
                let code = status::code_of_trailers(&trailers);
                open.end(outcome_of(&trailers), code);
                self.tell(code);
                Some(Ok(Frame::trailers(trailers)))
            }
            Received::Error(error) => {
                let expired = open.deadline.as_ref().is_some_and(|d| Instant::now() >= d.at);
                let own = open.sending.failure();
                let counted = own.is_none();
                let status =
                    own.unwrap_or_else(|| status::of_attempt(open.call.connection(), &error, expired));
                let counted = counted && status::speaks_of_server(status.code());
                let outcome = if counted { Outcome::Failed } else { Outcome::Neutral };
                let Open { recv, sending, call, .. } = open;
                drop((recv, sending));
                call.end(outcome, status.code());
                self.tell(status.code());
                Some(Err(status))
            }
            Received::TooLarge(too_large) => {
                let Open { recv, sending, call, .. } = open;
                drop((recv, sending));
                let status = status::response_too_large(too_large);
                call.end(Outcome::Neutral, status.code()); // the limit is ours
                self.tell(status.code());
                Some(Err(status))
            }
            Received::Expired => {
                let channel = open.deadline.as_ref().map(|d| d.channel.clone()).unwrap_or_default();
                let Open { recv, sending, call, .. } = open;
                drop((recv, sending));
                call.end(Outcome::Expired, Code::DeadlineExceeded);
                self.tell(Code::DeadlineExceeded);
                Some(Err(status::deadline_exceeded(&channel, "while the response was arriving")))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.open.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
