//! When a channel is idle (gRPC's "channel idleness"): calls leave a mark, the owner looks at it four times within the
//! timeout, and after as many quiet looks in a row the channel rests. [`Mark`] is what calls touch; [`Idleness`] (pure)
//! counts the looks; `core/rest.rs` is what rest means.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Looks within the timeout: the channel rests after once to one and a quarter times the timeout.
const LOOKS: u32 = 4;

/// What calls touch. Exists only where an idle timeout is set.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    used: AtomicBool,
    woken: Notify,
}

impl Mark {
    /// A call is being sent.
    pub(crate) fn touch(&self) {
        // A load first: a store would take the cache line from the other workers on every call.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Somebody needs the channel; where it is awake this does nothing.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits until somebody needs the channel.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Whether a call was sent since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.used.swap(false, Relaxed)
    }
}

/// Counts quiet looks.
#[derive(Debug)]
pub(crate) struct Idleness {
    timeout: Duration,
    quiet: u32,
    next: Option<Instant>,
}

impl Idleness {
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        let mut this = Self { timeout, quiet: 0, next: None };
        this.awake(now);
        this
    }

    /// When the next look is due; none at rest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A look: true where the channel is to rest. `busy` says that there is a call, or was one since the last look.
    pub(crate) fn look(&mut self, busy: bool, now: Instant) -> bool {
        // What lies before the first quiet look is not known to be quiet.
        self.quiet = if busy { 0 } else { self.quiet + 1 };
        let rests = self.quiet >= LOOKS;
        self.next = (!rests).then(|| now + self.timeout / LOOKS);
        rests
    }

    /// The channel is awake again.
    pub(crate) fn awake(&mut self, now: Instant) {
        self.quiet = 0;
        self.next = Some(now + self.timeout / LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_once_the_timeout_has_passed_without_a_call_and_not_before() {
        let start = Instant::now();
        let mut idleness = Idleness::new(Duration::from_secs(40), start);
        let mut seconds = |busy| {
            let now = idleness.next().expect("it is awake");
            let rests = idleness.look(busy, now);
            ((now - start).as_secs(), rests)
        };
        assert_eq!(seconds(false), (10, false));
        assert_eq!(seconds(false), (20, false));
        assert_eq!(seconds(false), (30, false));
        assert_eq!(seconds(true), (40, false), "a call between 30 and 40: it is not 40 s old before 80");
        assert_eq!([(); 3].map(|()| seconds(false).1), [false; 3]);
        assert_eq!(seconds(false), (80, true));
        assert_eq!(idleness.next(), None);
        idleness.awake(start + Duration::from_secs(100));
        assert_eq!(idleness.next(), Some(start + Duration::from_secs(110)));
    }
}
