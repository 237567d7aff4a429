//! What happened to the calls so far. A value: one outcome and its time in, a [`Report`] out.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tonic::Code;

use super::report::Report;
use crate::codes;

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Good replies by the instance that gave them: one for a unary call, more for a stream, also for one that
    /// failed later.
    pub replies: Vec<String>,
    /// `Ok`, or why the call failed.
    pub result: Result<(), (Code, String)>,
    /// How many attempts were made after the first.
    pub repeats: u64,
    /// From the start of the call to its end.
    pub took: Duration,
}

/// The calls of one run, counted.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    last_good: Instant,
    longest_gap: Duration,
    ok: u64,
    repeated: u64,
    by_code: BTreeMap<&'static str, u64>,
    by_instance: BTreeMap<String, u64>,
    last_error: Option<String>,
    latency_us: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new(started: Instant) -> Tally {
        Tally {
            started,
            last_good: started,
            longest_gap: Duration::ZERO,
            ok: 0,
            repeated: 0,
            by_code: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            last_error: None,
            // Three digits up to an hour: a few hundred KB, no allocation while recording.
            latency_us: new_histogram(),
        }
    }

    /// Counts a call that ended at `now`.
    pub(crate) fn add(&mut self, now: Instant, outcome: Outcome) {
        if !outcome.replies.is_empty() {
            self.longest_gap = self.longest_gap.max(now.saturating_duration_since(self.last_good));
            self.last_good = self.last_good.max(now);
        }
        for instance in outcome.replies {
            *self.by_instance.entry(instance).or_default() += 1;
        }
        self.repeated += outcome.repeats;
        match outcome.result {
            Ok(()) => {
                self.ok += 1;
                let us = u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(us);
            }
            Err((code, message)) => {
                *self.by_code.entry(codes::name(code)).or_default() += 1;
                self.last_error = Some(format!("{}: {message}", codes::name(code)));
            }
        }
    }

    /// What is known at `now`; the time since the last good reply counts as a gap too.
    pub(crate) fn report(&self, now: Instant, target: &str, policy: &str) -> Report {
        let failed = self.by_code.values().sum();
        let gap = self.longest_gap.max(now.saturating_duration_since(self.last_good));
        let at = |quantile: f64| ms(Duration::from_micros(self.latency_us.value_at_quantile(quantile)));
        Report {
            target: target.to_owned(),
            policy: policy.to_owned(),
            seconds: ms(now.saturating_duration_since(self.started)) / 1000.0,
            calls: self.ok + failed,
            ok: self.ok,
            failed,
            repeated: self.repeated,
            by_code: self.by_code.iter().map(|(&code, &n)| (code.to_owned(), n)).collect(),
            by_instance: self.by_instance.clone(),
            p50_ms: at(0.50),
            p99_ms: at(0.99),
            max_ms: ms(Duration::from_micros(self.latency_us.max())),
            longest_gap_ms: ms(gap),
            last_error: self.last_error.clone(),
        }
    }
}

fn new_histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    match Histogram::new_with_bounds(1, HOUR_US, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds are valid: {error}"),
    }
}

/// Milliseconds with three digits behind the point: what a person reads and a program parses.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn good(instance: &str) -> Outcome {
        Outcome { replies: vec![instance.into()], result: Ok(()), repeats: 0, took: 2 * MS }
    }

    fn failed() -> Outcome {
        Outcome { replies: Vec::new(), result: Err((Code::Unavailable, "gone".into())), repeats: 1, took: MS }
    }

    #[test]
    fn calls_are_counted_by_code_and_by_instance() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for outcome in [good("a"), good("b"), good("a"), failed()] {
            tally.add(start + MS, outcome);
        }
        let report = tally.report(start + 2 * MS, "greeter", "round_robin");
        assert_eq!((report.calls, report.ok, report.failed), (4, 3, 1));
        assert_eq!(
            report.by_instance.iter().map(|(i, &n)| (i.as_str(), n)).collect::<Vec<_>>(),
            [("a", 2), ("b", 1)]
        );
        assert_eq!((report.by_code["UNAVAILABLE"], report.repeated), (1, 1));
        assert_eq!(report.last_error.as_deref(), Some("UNAVAILABLE: gone"));
        assert!((report.p50_ms - 2.0).abs() < 0.01, "{}", report.p50_ms);
    }

    #[test]
    fn the_longest_gap_is_between_good_replies_and_counts_both_ends() {
        let start = Instant::now();
        let gap = |events: &[(u32, bool)], end: u32| {
            let mut tally = Tally::new(start);
            for &(at, ok) in events {
                tally.add(start + at * MS, if ok { good("a") } else { failed() });
            }
            tally.report(start + end * MS, "", "").longest_gap_ms
        };
        assert_eq!(
            gap(&[(10, true), (20, false), (60, true), (70, true)], 80),
            50.0,
            "failures do not end it"
        );
        assert_eq!(gap(&[(90, true)], 100), 90.0, "from the start");
        assert_eq!(gap(&[(10, true)], 100), 90.0, "to the end");
        assert_eq!(gap(&[], 100), 100.0, "never a good reply");
    }

    #[test]
    fn good_replies_of_a_stream_that_fails_later_still_count() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let replies = vec!["a".to_owned(), "a".to_owned()];
        tally.add(start, Outcome { replies, ..failed() });
        let report = tally.report(start, "", "");
        assert_eq!((report.failed, report.by_instance["a"]), (1, 2));
    }
}
