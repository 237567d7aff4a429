//! Readiness: a process's own judgement of whether it can do its work, asked for again and again.
//!
//! ```text
//! the user's check -> Readiness (here: when to ask, how long to wait) -> tally (pure: how often is enough) -> verdict
//!                                                                         verdict -> Serve, Registration::unready
//! ```
//! There is no task: whoever wants to know polls [`Readiness::changed`], and nothing is asked while nobody does.

mod tally;

use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use self::tally::Tally;
use crate::error::Error;

/// Ready, or why not.
pub type Verdict = Result<(), Arc<str>>;

type Answer = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// When a readiness check is asked, and how many answers in a row count.
///
/// # Defaults
/// - `interval`: 5 s from the start of one question to the next; the first is asked at once.
/// - `timeout`: 2 s for an answer; none is a failure.
/// - `failures`: 3 in a row before the instance goes out of service, so that one lost packet moves nobody, and one
///   that is broken is out after 10 to 17 s, about when a crashed one would be gone with its lease.
/// - `successes`: 1 before it comes, or comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessConfig {
    /// From the start of one question to the start of the next; a question that takes longer delays the next.
    pub interval: Duration,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Failures in a row that take the instance out.
    pub failures: u32,
    /// Successes in a row that bring it in.
    pub successes: u32,
}

impl Default for ReadinessConfig {
    fn default() -> ReadinessConfig {
        ReadinessConfig {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures: 3,
            successes: 1,
        }
    }
}

impl ReadinessConfig {
    /// Shorter is a busy loop, and after a day nobody waits for an answer.
    const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

    /// Refuses what makes no sense, with the field's name.
    ///
    /// # Errors
    /// An `interval` or `timeout` below 10 ms or above a day; `failures` or `successes` of 0.
    pub fn check(&self) -> Result<(), Error> {
        for (field, value) in [("interval", self.interval), ("timeout", self.timeout)] {
            if !Self::TIMES.contains(&value) {
                let reason = format!("{value:?} is out of range; write 10ms to 24h");
                return Err(Error::config(field, reason));
            }
        }
        for (field, value) in [("failures", self.failures), ("successes", self.successes)] {
            if value == 0 {
                return Err(Error::config(field, "0 is out of range; write 1 or more"));
            }
        }
        Ok(())
    }
}

/// A check of the user's that is asked again and again, and what its answers amount to.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), svc_registry::Error> {
/// use svc_registry::{Readiness, ReadinessConfig};
/// let mut left = 2;
/// let mut readiness = Readiness::new(
///     move || {
///         left -= 1;
///         async move { if left > 0 { Err("the cache is cold") } else { Ok(()) } }
///     },
///     ReadinessConfig::default(),
/// )?;
/// assert_eq!(readiness.changed().await, Err("the cache is cold".into()));
/// assert_eq!(readiness.changed().await, Ok(()));
/// # Ok(()) }
/// ```
///
/// A registration without [`Serve`](crate::Serve) follows it so:
///
/// ```no_run
/// # async fn example(
/// #     mut readiness: svc_registry::Readiness, registration: svc_registry::Registration
/// # ) {
/// loop {
///     match readiness.changed().await {
///         Ok(()) => registration.ready(),
///         Err(reason) => registration.unready(&reason),
///     }
/// }
/// # }
/// ```
#[must_use = "nothing is asked before `changed`"]
pub struct Readiness {
    check: Box<dyn FnMut() -> Answer + Send>,
    config: ReadinessConfig,
    tally: Tally,
    /// The question that is open, and until when its answer counts.
    asked: Option<(Answer, Instant)>,
    /// When to ask next; at once at first.
    due: Option<Instant>,
}

impl Readiness {
    /// Asks `check` as `config` says. An error is why the process is not ready, in words for an operator.
    ///
    /// The check runs where [`Readiness::changed`] is polled: it must not block its thread. One that has not answered in
    /// time is dropped; one that panics has failed. It should ask only for what is this process's own: a check of
    /// something that all instances share takes all of them out of service at once.
    ///
    /// # Errors
    /// What [`ReadinessConfig::check`] refuses.
    pub fn new<C, F, E>(mut check: C, config: ReadinessConfig) -> Result<Readiness, Error>
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        config.check()?;
        let check = move || -> Answer {
            match catch_unwind(AssertUnwindSafe(&mut check)) {
                Ok(answer) => Box::pin(async move {
                    match AssertUnwindSafe(answer).catch_unwind().await {
                        Ok(answer) => answer.map_err(|error| tidy(&error.to_string()).into()),
                        Err(_) => Err(PANICKED.into()),
                    }
                }),
                Err(_) => Box::pin(std::future::ready(Err(PANICKED.into()))),
            }
        };
        let tally = Tally::new(config.failures, config.successes);
        Ok(Readiness { check: Box::new(check), config, tally, asked: None, due: None })
    }

    /// Waits until the verdict changes, and gives the new one. Before the first it counts as neither: the first is
    /// "ready" after as many successes as configured, or "not ready" after one failure, since nothing was served yet.
    ///
    /// # Cancel safety
    /// Cancel safe: an open question stays open, and its answer counts when this is polled again in time.
    pub async fn changed(&mut self) -> Verdict {
        loop {
            let answer = self.answer().await;
            let result = if answer.is_ok() { "passed" } else { "failed" };
            metrics::counter!(crate::metrics::READINESS_CHECKS, "result" => result).increment(1);
            if let Some(verdict) = self.tally.count(answer) {
                return verdict;
            }
        }
    }

    /// The answer to the open question, or to the next one.
    async fn answer(&mut self) -> Verdict {
        if self.asked.is_none() {
            if let Some(due) = self.due {
                tokio::time::sleep_until(due).await;
            }
            let now = Instant::now();
            self.due = Some(now + self.config.interval);
            self.asked = Some(((self.check)(), now + self.config.timeout));
        }
        let Some((answer, deadline)) = &mut self.asked else { return Err("nothing was asked".into()) };
        let answer = tokio::time::timeout_at(*deadline, answer).await;
        self.asked = None;
        let timeout = self.config.timeout;
        answer.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}").into()))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("config", &self.config)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// What a check that panicked says; the panic's own text went to stderr.
const PANICKED: &str = "the readiness check panicked";

/// A reason as records may hold it: they refuse what steers a terminal, and every client has every record.
pub(crate) fn tidy(reason: &str) -> String {
    const MOST: usize = 200;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = reason.trim().chars().map(plain).take(MOST).collect();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
