//! Retry throttling: a bucket of tokens that failures empty and successes fill; while it is half empty or less, nothing
//! is retried, so that retries do not drown a server that is going under (gRFC A6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::service_config::RetryThrottling;

const MILLI: u32 = 1000;

/// One channel's bucket, in thousandths of a token.
#[derive(Debug)]
pub(crate) struct Throttle {
    tokens: AtomicU32,
    settings: RetryThrottling,
}

impl Throttle {
    /// A full bucket.
    pub(crate) fn new(settings: RetryThrottling) -> Self {
        Self { tokens: AtomicU32::new(settings.max_tokens * MILLI), settings }
    }

    /// The bucket that follows `before`, if there was one: the same where the settings are; else one that is as full in
    /// proportion, so that retries that have stopped do not begin anew with each change.
    pub(crate) fn after(before: Option<&Arc<Self>>, settings: RetryThrottling) -> Arc<Self> {
        match before {
            Some(before) if before.settings == settings => before.clone(),
            Some(before) => {
                let part =
                    f64::from(before.tokens.load(Relaxed)) / f64::from(before.settings.max_tokens * MILLI);
                let tokens = (part * f64::from(settings.max_tokens * MILLI)) as u32;
                Arc::new(Self { tokens: tokens.into(), settings })
            }
            None => Arc::new(Self::new(settings)),
        }
    }

    /// A call succeeded, or failed in a way that is not worth a retry.
    pub(crate) fn succeeded(&self) {
        let most = self.settings.max_tokens * MILLI;
        // A store would take the cache line from the other workers on every call; a full bucket stays as it is.
        if self.tokens.load(Relaxed) < most {
            let _ = self.tokens.fetch_update(Relaxed, Relaxed, |tokens| {
                Some(tokens.saturating_add(self.settings.token_ratio_milli).min(most))
            });
        }
    }

    /// Whether there may be another attempt.
    pub(crate) fn allows(&self) -> bool {
        self.tokens.load(Relaxed) > self.settings.max_tokens * MILLI / 2
    }

    /// An attempt failed in a way that is worth a retry; says whether there may be one.
    pub(crate) fn failed(&self) -> bool {
        let before = self.tokens.fetch_update(Relaxed, Relaxed, |tokens| Some(tokens.saturating_sub(MILLI)));
        let after = before.unwrap_or_else(|now| now).saturating_sub(MILLI);
        after > self.settings.max_tokens * MILLI / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stop_at_half_of_the_tokens_and_come_back_with_successes() {
        let throttle = Throttle::new(RetryThrottling { max_tokens: 10, token_ratio_milli: 500 });
        let allowed = (0..20).filter(|_| throttle.failed()).count();
        assert_eq!(allowed, 4, "of ten tokens the first four leave more than half");
        for _ in 0..12 {
            throttle.succeeded();
        }
        assert!(!throttle.failed(), "six tokens, one taken: half");
        (0..100).for_each(|_| throttle.succeeded());
        assert!(throttle.failed(), "and never more than the most");
        assert_eq!((0..20).filter(|_| throttle.failed()).count(), 3);
    }
}
