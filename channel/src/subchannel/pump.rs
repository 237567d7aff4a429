//! The request's side of a call: a unary body was handed over at once; a streaming one has a pump, a task that ends with
//! the body, with the stream, or when the call is dropped, and gives the body back where it can be sent again.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::slot::Slot;
use crate::attempt::replay::Replay;
use crate::metrics::MessageBytes;

/// The request's side of a call, with its stream slot.
#[derive(Debug)]
pub(crate) enum Sending {
    /// All was handed over at once.
    Sent(Slot),
    /// A pump is at work, or was.
    Pumped(Pump),
}

/// The task that sends a streaming body. Dropped with the call, which aborts it; an aborted pump drops its stream,
/// which resets it.
#[derive(Debug)]
pub(crate) struct Pump {
    task: JoinHandle<(Replay, SlotHeld)>,
    orders: Arc<Orders>,
    /// Shared with the task: the slot is free when both are gone.
    _slot: SlotHeld,
}

type SlotHeld = Arc<Slot>;

/// What a pump is told, and tells.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Response headers are there: nothing needs to be kept any more.
    committed: AtomicBool,
    /// The stream is over: give the body back.
    stop: Notify,
    /// Why the caller's own body could not be sent.
    failure: OnceLock<tonic::Status>,
    /// Bytes of messages that were handed to h2, where they are counted.
    sent: AtomicU64,
}

impl Orders {
    /// Bytes of messages that were handed to h2, where they are counted.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sending {
    /// The pump, if there is one.
    pub(super) fn into_pump(self) -> Option<Pump> {
        match self {
            Self::Pumped(pump) => Some(pump),
            Self::Sent(_) => None,
        }
    }

    /// Why the caller's own body could not be sent, if that is what ended the stream.
    pub(crate) fn failure(&self) -> Option<tonic::Status> {
        match self {
            Self::Pumped(pump) => pump.failure(),
            Self::Sent(_) => None,
        }
    }

    /// The response has ended.
    pub(crate) fn response_ended(&mut self) {
        match self {
            Self::Sent(slot) => slot.ended(),
            // The request may still be under way: its slot is given back as for a reset.
            Self::Pumped(_) => {}
        }
    }
}

impl Pump {
    pub(super) fn spawn(stream: SendStream<Bytes>, replay: Replay, slot: Slot, counts: bool) -> Self {
        let slot = Arc::new(slot);
        let orders = Arc::new(Orders::default());
        let (held, seen) = (slot.clone(), orders.clone());
        // Owned by the call, which aborts it when it is dropped; ends with the body or the stream; bounded by the
        // stream's flow control; its errors reach the caller through the response.
        let task = tokio::spawn(async move { (pump(stream, replay, &seen, counts).await, held) });
        Self { task, orders, _slot: slot }
    }

    /// Response headers are there.
    pub(super) fn commit(&self) {
        self.orders.committed.store(true, Release);
    }

    /// What it counts.
    pub(super) fn orders(&self) -> Arc<Orders> {
        self.orders.clone()
    }

    /// Why the caller's own body could not be sent, if that is what ended the stream.
    pub(crate) fn failure(&self) -> Option<tonic::Status> {
        self.orders.failure.get().cloned()
    }

    /// Takes the body back from a stream that is over, where all that was sent of it can be sent again.
    pub(crate) async fn take_back(mut self) -> Option<Replay> {
        self.orders.stop.notify_one();
        let (replay, _slot) = (&mut self.task).await.ok()?;
        replay.rewind()
    }
}

async fn pump(mut stream: SendStream<Bytes>, mut replay: Replay, orders: &Orders, counts: bool) -> Replay {
    let mut bytes = MessageBytes::default();
    loop {
        if orders.committed.load(Acquire) {
            replay.forget();
        }
        let next = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Next::Reset),
            Poll::Pending => replay.poll_next(cx).map(Next::Piece),
        });
        let next = tokio::select! {
            biased; // what is to be given back must not be sent on
            () = orders.stop.notified() => return replay,
            next = next => next,
        };
        match next {
            Next::Piece(Some(Ok(piece))) => {
                if counts {
                    bytes.add(&piece);
                }
                tokio::select! {
                    biased;
                    // A piece half sent is kept whole, or nothing of the body can be sent again.
                    () = orders.stop.notified() => return replay,
                    sent = send(&mut stream, piece) => if sent.is_err() { return replay },
                }
                orders.sent.store(bytes.total(), Relaxed);
            }
            Next::Piece(Some(Err(failure))) => {
                // Set before the reset, which is what wakes whoever reads it; only this task sets it.
                let _ = orders.failure.set(failure);
                stream.send_reset(Reason::CANCEL);
                return replay;
            }
            Next::Piece(None) => {
                // An error means that the stream is over, which the response tells.
                let _ = stream.send_data(Bytes::new(), true);
                return replay;
            }
            Next::Reset => return replay,
        }
    }
}

enum Next {
    Piece(Option<Result<Bytes, tonic::Status>>),
    Reset,
}

/// Sends one piece as the peer's window allows.
async fn send(stream: &mut SendStream<Bytes>, mut piece: Bytes) -> Result<(), ()> {
    stream.reserve_capacity(piece.len());
    while !piece.is_empty() {
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Err(()) };
        let part = piece.split_to(room.min(piece.len()));
        if !part.is_empty() && stream.send_data(part, false).is_err() {
            return Err(());
        }
    }
    Ok(())
}
