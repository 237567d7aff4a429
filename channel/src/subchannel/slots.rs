//! Stream slots: the peer's limit of concurrent streams, counted by ourselves, so that no stream ever waits inside h2,
//! where it could no longer be moved to another connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use tokio::sync::Notify;

/// Wakes one call that waits for a stream slot, if there is one.
#[derive(Debug, Default)]
pub(crate) struct SlotFreed {
    waiting: AtomicUsize,
    pub(super) notify: Notify,
}

impl SlotFreed {
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Waits for a slot; counted, so that those who free one know whether to wake somebody.
    pub(crate) fn wait(&self) -> SlotWait<'_> {
        self.waiting.fetch_add(1, AcqRel);
        SlotWait { freed: self, notified: self.notify.notified() }
    }
}

pin_project! {
    /// Counted while it waits.
    pub(crate) struct SlotWait<'a> {
        freed: &'a SlotFreed,
        #[pin]
        notified: tokio::sync::futures::Notified<'a>,
    }
    impl PinnedDrop for SlotWait<'_> {
        fn drop(this: Pin<&mut Self>) {
            this.freed.waiting.fetch_sub(1, AcqRel);
        }
    }
}

impl SlotWait<'_> {
    /// From here on nothing is missed.
    pub(crate) fn enable(self: Pin<&mut Self>) {
        self.project().notified.enable();
    }
}

impl Future for SlotWait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().notified.poll(cx)
    }
}

/// The peer's stream limit, counted by ourselves.
#[derive(Debug)]
pub(super) struct Slots {
    /// Streams in use; the top bit says that no new one is taken.
    used: AtomicU32,
    limit: AtomicU32,
    /// Slots whose RST_STREAM may not be on the wire yet.
    pub(super) late: AtomicU32,
    pub(super) driver: AtomicWaker,
}

const CLOSED: u32 = 1 << 31;

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        let slots = Self { used: 0.into(), limit: 0.into(), late: 0.into(), driver: AtomicWaker::new() };
        slots.set_limit(limit);
        slots
    }

    pub(super) fn take(&self) -> bool {
        let mut used = self.used.load(Relaxed);
        loop {
            if used >= self.limit.load(Relaxed) {
                return false; // closed is above every limit
            }
            match self.used.compare_exchange_weak(used, used + 1, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    pub(super) fn release(&self, count: u32, freed: &SlotFreed) {
        let left = self.used.fetch_sub(count, AcqRel) - count;
        if left == CLOSED {
            self.driver.wake();
        }
        if freed.waiting.load(Acquire) > 0 {
            for _ in 0..count {
                freed.notify.notify_one();
            }
        }
    }

    pub(super) fn release_after_write(&self) {
        self.late.fetch_add(1, AcqRel);
        self.driver.wake();
    }

    pub(super) fn close(&self) {
        self.used.fetch_or(CLOSED, AcqRel);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.used.load(Acquire) & CLOSED != 0
    }

    pub(super) fn idle_and_closed(&self) -> bool {
        self.used.load(Acquire) == CLOSED
    }

    pub(super) fn used(&self) -> u32 {
        self.used.load(Relaxed) & !CLOSED
    }

    /// True where there is more room than before.
    pub(super) fn set_limit(&self, limit: usize) -> bool {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(CLOSED - 1);
        self.limit.swap(limit, AcqRel) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_streams_than_the_peer_allows() {
        let (slots, freed) = (Slots::new(2), SlotFreed::default());
        assert!(slots.take() && slots.take() && !slots.take());
        slots.release(1, &freed);
        assert!(slots.take());
        slots.set_limit(1);
        slots.release(1, &freed);
        assert!(!slots.take(), "a limit that fell is kept as streams end");
        slots.release(1, &freed);
        assert!(slots.take());
    }

    #[test]
    fn a_closed_connection_takes_no_call_and_is_idle_after_the_last() {
        let (slots, freed) = (Slots::new(usize::MAX), SlotFreed::default());
        assert!(slots.take());
        slots.close();
        assert!(!slots.take() && !slots.idle_and_closed());
        slots.release(1, &freed);
        assert!(slots.idle_and_closed());
    }
}
