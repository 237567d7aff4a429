//! How much of requests' bodies a channel keeps so that calls can be sent again: a limit for each call and one for all
//! of them together. A body that would go beyond either is sent, not kept: its call cannot be repeated after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A channel's limits, and what is kept by now.
#[derive(Debug)]
pub(crate) struct Budget {
    kept: AtomicUsize,
    per_call: usize,
    per_channel: usize,
}

/// What one call keeps. Its drop gives it back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(per_call: usize, per_channel: usize) -> Arc<Self> {
        Arc::new(Self { kept: AtomicUsize::new(0), per_call, per_channel })
    }

    /// Nothing yet, for a body that grows.
    pub(crate) fn open(self: &Arc<Self>) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0 }
    }

    /// Room for a body that is whole: the channel's limit counts, the call's is for those that grow.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let mut reserved = self.open();
        reserved.take(bytes).then_some(reserved)
    }
}

impl Reserved {
    /// Whether so many more may be kept; if so, they are counted.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.budget.per_call && self.take(bytes)
    }

    fn take(&mut self, bytes: usize) -> bool {
        let kept = &self.budget.kept;
        let before = kept.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.budget.per_channel {
            kept.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.kept.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_no_more_than_its_own_limit_and_all_no_more_than_the_channels() {
        let budget = Budget::new(10, 25);
        let mut calls: Vec<_> = (0..3).map(|_| budget.open()).collect();
        assert!(calls[0].grow(10) && !calls[0].grow(1), "the call's");
        assert!(calls[1].grow(10) && !calls[2].grow(6) && calls[2].grow(5), "the channel's");
        assert!(budget.reserve(1).is_none());
        calls.pop();
        let whole = budget.reserve(5).expect("what was given back");
        drop((whole, calls));
        assert_eq!(budget.kept.load(Relaxed), 0);
    }
}
