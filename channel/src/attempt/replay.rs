//! The request's body on its way out, kept so that it can be sent again while that is allowed. A unary body is one
//! piece of memory, so keeping it is a reference count; a streaming body is kept until response headers arrive or
//! `budget.rs` has no more room for it. Each new message is measured against the service config's limit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;

use super::budget::{Budget, Reserved};
use crate::meter::Meter;
use crate::status;

/// Unary bodies up to this size are not counted in the channel's budget: two writes to a cache line that all workers
/// share would cost more than what they guard. A thousand such calls at once are 64 MB.
const NOT_COUNTED: usize = 64 * 1024;

/// A request's body as far as it was known when the call was made.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The whole body, one piece.
    Unary(Unary),
    /// A body that still grows.
    Streaming(Replay),
}

/// A body in one piece.
#[derive(Debug)]
pub(crate) struct Unary {
    data: Bytes,
    keep: Keep,
}

#[derive(Debug)]
enum Keep {
    Uncounted,
    Counted {
        _room: Reserved,
    },
    /// There is no room for it: it is sent once.
    No,
    /// It was sent.
    Gone,
}

/// A growing body: what it gave so far, a place in that, and the rest.
#[derive(Debug)]
pub(crate) struct Replay {
    kept: VecDeque<Bytes>,
    /// The next of `kept` to be sent.
    next: usize,
    /// What is kept begins at the beginning, so that all of it can be sent again; `None` where it does not.
    whole: Option<Reserved>,
    /// `None` once it has ended.
    rest: Option<Rest>,
}

/// What is still to come of a body.
#[derive(Debug)]
struct Rest {
    body: Body,
    meter: Option<Meter>,
}

impl Outgoing {
    /// Asks the body for what it has, without waiting: a unary body gives a frame and its end (tonic gives no exact
    /// size hint), everything else streams. Messages may have `largest` bytes.
    pub(crate) fn read(body: Body, largest: Option<u32>, budget: &Arc<Budget>) -> Result<Self, Status> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut rest = Rest { body, meter: largest.map(Meter::new) };
        let first = match rest.poll_data(&mut cx) {
            Poll::Ready(Some(data)) => data?,
            Poll::Ready(None) => return Ok(Self::Unary(Unary::new(Bytes::new(), budget))),
            Poll::Pending => return Ok(Self::Streaming(Replay::new([], Some(rest), budget))),
        };
        if rest.body.is_end_stream() {
            return Ok(Self::Unary(Unary::new(first, budget)));
        }
        match rest.poll_data(&mut cx) {
            Poll::Ready(None) => Ok(Self::Unary(Unary::new(first, budget))),
            Poll::Ready(Some(second)) => {
                Ok(Self::Streaming(Replay::new([first, second?], Some(rest), budget)))
            }
            Poll::Pending => Ok(Self::Streaming(Replay::new([first], Some(rest), budget))),
        }
    }

    /// All of it is here, and stays until the call is answered.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Unary(Unary { keep: Keep::Uncounted | Keep::Counted { .. }, .. }))
    }

    /// It was sent and not kept.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Unary(Unary { keep: Keep::Gone, .. }))
    }
}

impl Unary {
    fn new(data: Bytes, budget: &Arc<Budget>) -> Self {
        let keep = if data.len() <= NOT_COUNTED {
            Keep::Uncounted
        } else {
            budget.reserve(data.len()).map_or(Keep::No, |room| Keep::Counted { _room: room })
        };
        Self { data, keep }
    }

    /// What is sent.
    pub(crate) fn send(&mut self) -> Bytes {
        if let Keep::No | Keep::Gone = self.keep {
            self.keep = Keep::Gone;
            return std::mem::take(&mut self.data);
        }
        self.data.clone()
    }
}

impl Replay {
    fn new(pieces: impl IntoIterator<Item = Bytes>, rest: Option<Rest>, budget: &Arc<Budget>) -> Self {
        let mut this = Self { kept: VecDeque::new(), next: 0, whole: Some(budget.open()), rest };
        for piece in pieces {
            // Sent in any case; where there is no room it is let go then.
            if !this.whole.as_mut().is_some_and(|room| room.grow(piece.len())) {
                this.whole = None;
            }
            this.kept.push_back(piece);
        }
        this
    }

    /// A body without a byte.
    pub(crate) fn empty() -> Self {
        Self { kept: VecDeque::new(), next: 0, whole: None, rest: None }
    }

    /// The next piece to send; `None` at the body's end. Cancel safe: a piece is handed out once, or once more after
    /// a [`rewind`](Self::rewind).
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(piece) = self.kept.get(self.next).cloned() {
            self.next += 1;
            self.let_go();
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let next = match rest.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next,
        };
        match &next {
            None => self.rest = None,
            Some(Ok(data)) => self.keep(data),
            Some(Err(_)) => {}
        }
        Poll::Ready(next)
    }

    /// The call will not be sent again: what was sent is let go, and nothing more is kept.
    pub(crate) fn forget(&mut self) {
        self.whole = None;
        self.let_go();
    }

    /// Starts again from the beginning; `None` where that is gone.
    pub(crate) fn rewind(mut self) -> Option<Self> {
        self.next = 0;
        self.whole.is_some().then_some(self)
    }

    fn keep(&mut self, data: &Bytes) {
        let Some(room) = &mut self.whole else { return };
        if room.grow(data.len()) {
            self.kept.push_back(data.clone());
            self.next = self.kept.len();
        } else {
            self.forget();
        }
    }

    fn let_go(&mut self) {
        if self.whole.is_none() {
            self.kept.drain(..self.next);
            self.next = 0;
        }
    }
}

impl Rest {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let next = next_data(&mut self.body, cx);
        if let (Poll::Ready(Some(Ok(data))), Some(meter)) = (&next, &mut self.meter)
            && let Err(too_large) = meter.pass(data)
        {
            return Poll::Ready(Some(Err(status::request_too_large(too_large))));
        }
        next
    }
}

fn next_data(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
            // gRPC clients send no trailers.
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, StreamBody};
    use tokio_stream::StreamExt;

    fn streaming(pieces: Vec<&'static [u8]>, then_pending: bool) -> Body {
        let frames = tokio_stream::iter(pieces)
            .map(|p| Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(p))));
        if then_pending {
            Body::new(StreamBody::new(frames.chain(tokio_stream::pending())))
        } else {
            Body::new(StreamBody::new(frames))
        }
    }

    const LIMIT: usize = 1024;

    fn read(body: Body) -> Result<Outgoing, Status> {
        Outgoing::read(body, None, &Budget::new(LIMIT, LIMIT * LIMIT))
    }

    #[test]
    fn one_frame_and_the_end_is_unary() {
        for body in [Body::new(Full::new(Bytes::from_static(b"a"))), streaming(vec![b"a"], false)] {
            assert!(matches!(read(body), Ok(Outgoing::Unary(b)) if b.data == "a"));
        }
    }

    #[test]
    fn whatever_is_not_over_at_once_streams() {
        for (pieces, pending, kept) in
            [(vec![], true, 0), (vec![&b"a"[..]], true, 1), (vec![&b"a"[..], b"b"], false, 2)]
        {
            match read(streaming(pieces, pending)) {
                Ok(Outgoing::Streaming(replay)) => assert_eq!(replay.kept.len(), kept),
                other => panic!("streams: {other:?}"),
            }
        }
    }

    fn drain(replay: &mut Replay) -> Vec<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut pieces = vec![];
        while let Poll::Ready(Some(Ok(piece))) = replay.poll_next(&mut cx) {
            pieces.push(piece);
        }
        pieces
    }

    #[test]
    fn what_was_sent_can_be_sent_again() {
        let Ok(Outgoing::Streaming(mut replay)) = read(streaming(vec![b"a", b"b", b"c"], false)) else {
            panic!("streams")
        };
        let first = drain(&mut replay);
        let mut again = replay.rewind().expect("whole");
        assert_eq!(drain(&mut again), first);
        assert_eq!(first, ["a", "b", "c"]);
    }

    #[test]
    fn a_committed_body_is_let_go_but_sent_to_its_end() {
        let Ok(Outgoing::Streaming(mut replay)) = read(streaming(vec![b"a", b"b", b"c"], false)) else {
            panic!("streams")
        };
        replay.forget();
        assert_eq!(drain(&mut replay), ["a", "b", "c"]);
        assert!(replay.kept.is_empty() && replay.rewind().is_none());
    }

    #[test]
    fn a_body_beyond_the_limit_cannot_be_sent_again() {
        let mut replay = Replay::new([Bytes::from(vec![0; LIMIT])], None, &Budget::new(LIMIT, LIMIT));
        assert!(replay.whole.is_some());
        replay.keep(&Bytes::from_static(b"x"));
        assert!(replay.rewind().is_none());
    }

    #[test]
    fn a_body_for_which_there_is_no_room_from_the_start_is_sent_whole_and_once() {
        let pieces = [Bytes::from(vec![0; LIMIT]), Bytes::from_static(b"x")];
        let mut replay = Replay::new(pieces.clone(), None, &Budget::new(LIMIT, LIMIT));
        assert_eq!(drain(&mut replay), pieces);
        assert!(replay.kept.is_empty() && replay.rewind().is_none());
    }

    #[test]
    fn a_large_unary_body_takes_room_in_the_channels_budget_or_is_sent_once() {
        let large = || Body::new(Full::new(Bytes::from(vec![0; NOT_COUNTED + 1])));
        let budget = Budget::new(LIMIT, NOT_COUNTED + 1);
        let unary = || match Outgoing::read(large(), None, &budget) {
            Ok(outgoing @ Outgoing::Unary(_)) => outgoing,
            other => panic!("unary: {other:?}"),
        };
        let (kept, mut once) = (unary(), unary());
        assert!(kept.is_whole() && !once.is_whole() && !once.is_gone());
        if let Outgoing::Unary(body) = &mut once {
            assert_eq!(body.send().len(), NOT_COUNTED + 1);
        }
        assert!(once.is_gone());
        drop(kept);
        assert!(unary().is_whole(), "room again");
    }

    #[test]
    fn a_message_larger_than_allowed_is_refused_with_both_numbers() {
        let message = Bytes::from_static(&[0, 0, 0, 0, 3, 1, 2, 3]);
        let budget = Budget::new(LIMIT, LIMIT);
        let read = |largest| Outgoing::read(Body::new(Full::new(message.clone())), Some(largest), &budget);
        assert!(read(3).is_ok());
        let refused = read(2).expect_err("too large");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "trying to send message larger than max (3 vs. 2)");
    }
}
