//! The calls of each chapter, and which of them were allowed to fail. A value: totals in, verdict out.

use std::fmt;

use crate::output::Table;

/// Calls since the load began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// All that have ended.
    pub(super) calls: u64,
    /// Those of them that failed.
    pub(super) failed: u64,
    /// Those of the failed that were told UNAVAILABLE, which is what a lost connection is.
    pub(super) unavailable: u64,
}

impl std::ops::Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals {
            calls: self.calls + other.calls,
            failed: self.failed + other.failed,
            unavailable: self.unavailable + other.unavailable,
        }
    }
}

/// How long good calls took, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    /// Whose calls.
    pub(super) of: &'static str,
    pub(super) totals: Totals,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_gap_ms: f64,
}

/// What happened between two settled counts.
#[derive(Clone, Debug)]
struct Chapter {
    title: String,
    calls: u64,
    failed: u64,
    /// How many calls may have been in flight where it hurt; each may fail as UNAVAILABLE, no other.
    allowed: u64,
    other_codes: u64,
}

/// The books of one demo.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    chapters: Vec<Chapter>,
    until: Totals,
    latencies: Vec<Latency>,
    /// All coins that there are, before the gifts and after.
    coins: Option<(i64, i64)>,
}

impl Ledger {
    /// Ends a chapter at these totals; gives its failed calls.
    pub(super) fn close(&mut self, title: &str, now: Totals, allowed: u64) -> u64 {
        let failed = now.failed.saturating_sub(self.until.failed);
        let unavailable = now.unavailable.saturating_sub(self.until.unavailable);
        self.chapters.push(Chapter {
            title: title.to_owned(),
            calls: now.calls.saturating_sub(self.until.calls),
            failed,
            allowed,
            other_codes: failed.saturating_sub(unavailable),
        });
        self.until = now;
        failed
    }

    /// Notes how long the calls of one load took, once it has ended.
    pub(super) fn measured(&mut self, latency: Latency) {
        self.latencies.push(latency);
    }

    /// Notes all coins that there are, before the gifts and after.
    pub(super) fn coins(&mut self, before: i64, after: i64) {
        self.coins = Some((before, after));
    }

    /// `Ok` if only calls failed that may, and no coin was lost or made.
    pub(super) fn verdict(&self) -> Result<(), String> {
        if self.until.calls == 0 {
            return Err("no call was made".to_owned());
        }
        for chapter in &self.chapters {
            let Chapter { title, failed, allowed, other_codes, .. } = chapter;
            if failed > allowed {
                return Err(format!("{failed} calls failed in \"{title}\", where {allowed} may"));
            }
            if *other_codes > 0 {
                return Err(format!(
                    "{other_codes} calls failed in \"{title}\" as something else than UNAVAILABLE"
                ));
            }
        }
        match self.coins {
            Some((before, after)) if before != after => {
                Err(format!("there were {before} coins, and there are {after}"))
            }
            _ => Ok(()),
        }
    }

    /// All calls, those that failed, and the coins, in words.
    pub(super) fn total(&self) -> impl fmt::Display {
        let calls = format!("{} calls, {} failed", self.until.calls, self.until.failed);
        match self.coins {
            Some((before, after)) => format!("{calls}, coins {before} -> {after}"),
            None => calls,
        }
    }

    /// The calls by chapter.
    pub(super) fn chapters(&self) -> Table {
        let mut table = Table::new(["CHAPTER", "CALLS", "FAILED", "ALLOWED"], "no chapter was told");
        for chapter in &self.chapters {
            let allowed = match chapter.allowed {
                0 => "none".to_owned(),
                n => format!("up to {n}, in flight on what was killed"),
            };
            table.row([&chapter.title, &chapter.calls.to_string(), &chapter.failed.to_string(), &allowed]);
        }
        table
    }

    /// The calls by load, with how long they took.
    pub(super) fn loads(&self) -> Table {
        let mut table =
            Table::new(["LOAD", "CALLS", "FAILED", "P50", "P99", "LONGEST GAP"], "no load was run");
        for of in &self.latencies {
            table.row([
                of.of.to_owned(),
                of.totals.calls.to_string(),
                of.totals.failed.to_string(),
                format!("{:.1} ms", of.p50_ms),
                format!("{:.1} ms", of.p99_ms),
                format!("{:.0} ms", of.longest_gap_ms),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(calls: u64, failed: u64, unavailable: u64) -> Totals {
        Totals { calls, failed, unavailable }
    }

    #[test]
    fn only_what_may_fail_may_fail() {
        let mut ledger = Ledger::default();
        assert!(ledger.verdict().is_err(), "a demo without calls shows nothing");
        assert_eq!(ledger.close("steady", totals(100, 0, 0), 0), 0);
        assert_eq!(ledger.close("killed", totals(200, 3, 3), 4), 3);
        assert_eq!(ledger.verdict(), Ok(()));
        assert_eq!(ledger.total().to_string(), "200 calls, 3 failed");
        assert_eq!(ledger.close("frozen", totals(300, 4, 4), 0), 1);
        let reason = ledger.verdict().unwrap_err();
        assert!(reason.contains("frozen") && reason.contains("1 calls"), "{reason}");
    }

    #[test]
    fn no_coin_may_be_lost_or_made() {
        let mut ledger = Ledger::default();
        ledger.close("gifts", totals(10, 0, 0), 0);
        ledger.coins(500, 500);
        assert_eq!(ledger.verdict(), Ok(()));
        assert_eq!(ledger.total().to_string(), "10 calls, 0 failed, coins 500 -> 500");
        ledger.coins(500, 499);
        assert!(ledger.verdict().unwrap_err().contains("499"));
    }

    #[test]
    fn a_killed_instance_excuses_lost_connections_only() {
        let mut ledger = Ledger::default();
        ledger.close("killed", totals(100, 2, 1), 4);
        assert!(ledger.verdict().unwrap_err().contains("something else than UNAVAILABLE"));
        let mut ledger = Ledger::default();
        ledger.close("killed", totals(100, 5, 5), 4);
        assert!(ledger.verdict().unwrap_err().contains("5 calls failed"));
    }
}
