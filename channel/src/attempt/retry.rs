//! Retries as the service config orders them (gRFC A6): which failures are worth another attempt, and how long it
//! waits. A call is committed by response headers that do not end the stream; what failed before that, with a code that
//! the policy names, is sent again.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tonic::Code;

use super::pushback::{self, Pushback};
use super::throttle::Throttle;
use crate::service_config::{MethodConfig, RetryPolicy};

const JITTER: f64 = 0.2;

/// One call's retries.
#[derive(Debug)]
pub(crate) struct Retries {
    /// A method config with a retry policy.
    method: Arc<MethodConfig>,
    throttle: Option<Arc<Throttle>>,
    /// Attempts that have failed; those that were provably not processed do not count.
    failed: u32,
    /// Waits since the last pushback; a pushback starts the backoff anew.
    waits: u32,
}

impl Retries {
    /// `None` where the method has no retry policy.
    pub(crate) fn of(method: &Arc<MethodConfig>, throttle: Option<&Arc<Throttle>>) -> Option<Self> {
        method.retry.as_ref()?;
        Some(Self { method: method.clone(), throttle: throttle.cloned(), failed: 0, waits: 0 })
    }

    fn policy(&self) -> Option<&RetryPolicy> {
        self.method.retry.as_ref()
    }

    /// An attempt failed with `code`; `trailers` are what the server said with it. How long to wait before the next
    /// one, or `None` where this failure is the call's.
    pub(crate) fn after_failure(&mut self, code: Code, trailers: &HeaderMap) -> Option<Duration> {
        let retryable = self.policy().is_some_and(|p| p.retryable.contains(&code));
        let pushback = Pushback::of(trailers);
        if !retryable && pushback != Pushback::Never {
            self.count_success();
            return None;
        }
        let throttled = self.throttle.as_ref().is_some_and(|throttle| !throttle.failed());
        self.failed += 1;
        let policy = self.policy()?;
        if throttled || !retryable || self.failed >= policy.max_attempts {
            return None;
        }
        match pushback {
            Pushback::Never => None,
            Pushback::After(wait) => {
                self.waits = 0;
                Some(wait)
            }
            Pushback::None => {
                let wait = backoff(policy, self.waits);
                self.waits += 1;
                Some(wait)
            }
        }
    }

    /// The call was answered.
    pub(crate) fn count_success(&self) {
        if let Some(throttle) = &self.throttle {
            throttle.succeeded();
        }
    }

    /// Tells the server how many attempts there were before this one.
    pub(crate) fn write_header(&self, headers: &mut HeaderMap) {
        pushback::write_previous_attempts(headers, self.failed);
    }
}

fn backoff(policy: &RetryPolicy, waits: u32) -> Duration {
    let exponential = policy.initial_backoff.as_secs_f64() * policy.backoff_multiplier.powi(waits as i32);
    let jitter = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
    Duration::from_secs_f64(exponential.min(policy.max_backoff.as_secs_f64()) * jitter)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::pushback::{PREVIOUS_ATTEMPTS, PUSHBACK};
    use super::*;
    use crate::service_config::RetryThrottling;

    fn retries(throttle: Option<&Arc<Throttle>>) -> Retries {
        let retry = RetryPolicy {
            max_attempts: 4,
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(300),
            backoff_multiplier: 2.0,
            retryable: vec![Code::Unavailable],
        };
        Retries::of(&Arc::new(MethodConfig { retry: Some(retry), ..Default::default() }), throttle)
            .expect("some")
    }

    fn pushback(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(PUSHBACK, HeaderValue::from_static(value))])
    }

    #[test]
    fn waits_grow_to_the_most_with_a_jitter_of_a_fifth_until_attempts_are_used_up() {
        let mut retries = retries(None);
        for ms in [100.0, 200.0, 300.0] {
            let wait = retries.after_failure(Code::Unavailable, &HeaderMap::new()).expect("another attempt");
            assert!((ms * 0.8..=ms * 1.2).contains(&(wait.as_secs_f64() * 1e3)), "{wait:?} of {ms} ms");
        }
        assert_eq!(retries.after_failure(Code::Unavailable, &HeaderMap::new()), None);
    }

    #[test]
    fn only_the_codes_of_the_policy_are_retried() {
        assert_eq!(retries(None).after_failure(Code::Internal, &HeaderMap::new()), None);
    }

    #[test]
    fn the_server_says_when_or_never() {
        let mut retries = retries(None);
        let after = retries.after_failure(Code::Unavailable, &pushback("1234"));
        assert_eq!(after, Some(Duration::from_millis(1234)));
        for never in ["-1", "soon", ""] {
            assert_eq!(retries.after_failure(Code::Unavailable, &pushback(never)), None, "{never:?}");
        }
    }

    #[test]
    fn the_header_counts_failed_attempts() {
        let mut retries = retries(None);
        let mut headers = HeaderMap::new();
        retries.write_header(&mut headers);
        assert!(headers.is_empty());
        retries.after_failure(Code::Unavailable, &HeaderMap::new());
        retries.write_header(&mut headers);
        assert_eq!(headers[PREVIOUS_ATTEMPTS], "1");
    }

    #[test]
    fn retries_stop_at_the_throttle() {
        let throttle = Arc::new(Throttle::new(RetryThrottling { max_tokens: 4, token_ratio_milli: 100 }));
        let again = (0..10)
            .filter(|_| {
                retries(Some(&throttle)).after_failure(Code::Unavailable, &HeaderMap::new()).is_some()
            })
            .count();
        assert_eq!(again, 1, "of four tokens one failure leaves more than half");
    }
}
