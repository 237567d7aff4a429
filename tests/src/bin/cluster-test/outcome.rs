//! What came of the faults: a table for people, a verdict for programs. Values: reports in, text out.

use std::fmt;
use std::time::Duration;

use demo_services::load::Report;
use svcctl::output::{Printer, Table};

use crate::docker::Coins;
use crate::load::{GRPC, Plan};

/// What came of one fault.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// Why calls by gRPC may fail, one for each caller at most.
    pub(crate) excused: Option<&'static str>,
    pub(crate) rows: Vec<Row>,
    /// From the end of the fault to the whole.
    pub(crate) whole: Duration,
    /// Before and after.
    pub(crate) coins: Option<(Coins, Coins)>,
}

/// What came of one load.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) plan: Plan,
    pub(crate) report: Report,
}

impl Outcome {
    /// How many calls of this load may have failed.
    fn allowed(&self, row: &Row) -> u64 {
        // Whoever calls through the edge repeats what had no answer: nothing excuses it.
        if self.excused.is_some() && row.plan.name == GRPC.name { row.plan.callers } else { 0 }
    }

    /// Which law was broken, if one was.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for row in &self.rows {
            let (failed, allowed) = (row.report.failed, self.allowed(row));
            if failed > allowed {
                let error = row.report.last_error.as_deref().unwrap_or("no reason");
                let (fault, load) = (&self.name, row.plan.name);
                broken.push(format!(
                    "{fault}: {failed} calls of {load} failed, {allowed} may; the last: {error}"
                ));
            }
        }
        match self.coins {
            Some((before, after)) if before.all != after.all => {
                broken.push(format!("{}: coins were {} and are {}", self.name, before.all, after.all));
            }
            Some((_, after)) if after.frozen != 0 => {
                broken.push(format!("{}: {} coins are still set aside", self.name, after.frozen));
            }
            _ => {}
        }
        broken
    }

    /// A line as soon as it is known.
    pub(crate) fn tell(&self, printer: &mut Printer) {
        let loads: Vec<String> = self
            .rows
            .iter()
            .map(|row| format!("{} {} calls, {} failed", row.plan.name, row.report.calls, row.report.failed))
            .collect();
        let whole = self.whole.as_secs_f64();
        printer.note(&format!("  {}; whole again after {whole:.1} s", loads.join("; ")));
        self.broken().iter().for_each(|broken| printer.note(&format!("  NOT OK {broken}")));
    }
}

/// All that was played.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Vec<Outcome>);

impl Outcomes {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.0.push(outcome);
    }

    pub(crate) fn table(&self) -> Table {
        let headings = [
            "FAULT",
            "LOAD",
            "CALLS",
            "FAILED",
            "MAY FAIL",
            "REPEATED",
            "LONGEST GAP",
            "WHOLE AFTER",
            "COINS",
        ];
        let mut table = Table::new(headings, "no fault was played");
        for outcome in &self.0 {
            for (n, row) in outcome.rows.iter().enumerate() {
                let first = |text: String| if n == 0 { text } else { " ".to_owned() };
                let coins = outcome
                    .coins
                    .map_or_else(String::new, |(before, after)| format!("{} -> {}", before.all, after.all));
                table.row([
                    first(outcome.name.clone()),
                    row.plan.name.to_owned(),
                    row.report.calls.to_string(),
                    row.report.failed.to_string(),
                    outcome.allowed(row).to_string(),
                    row.report.repeated.to_string(),
                    format!("{:.0} ms", row.report.longest_gap_ms),
                    first(format!("{:.1} s", outcome.whole.as_secs_f64())),
                    first(coins),
                ]);
            }
        }
        let mut why: Vec<&str> = self.0.iter().filter_map(|outcome| outcome.excused).collect();
        why.dedup();
        why.iter().for_each(|why| table.footer(&format!("What may fail: {why}.")));
        table
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let reports = || self.0.iter().flat_map(|outcome| &outcome.rows).map(|row| &row.report);
        Verdict {
            faults: self.0.len(),
            calls: reports().map(|report| report.calls).sum(),
            failed: reports().map(|report| report.failed).sum(),
            broken: self.0.iter().flat_map(Outcome::broken).collect(),
        }
    }
}

/// The last line.
#[derive(Debug)]
pub(crate) struct Verdict {
    faults: usize,
    calls: u64,
    failed: u64,
    broken: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_ok(&self) -> bool {
        self.faults > 0 && self.calls > 0 && self.broken.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { faults, calls, failed, broken } = self;
        write!(f, "{faults} faults, {calls} calls, {failed} failed, ")?;
        match broken.as_slice() {
            [] if self.is_ok() => f.write_str("ok"),
            [] => f.write_str("not ok: nothing was called"),
            broken => write!(f, "not ok: {}", broken.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::EDGE;

    fn outcome(plan: Plan, failed: u64, excused: Option<&'static str>) -> Outcome {
        let report = Report { calls: 100, ok: 100 - failed, failed, ..Report::default() };
        let rows = vec![Row { plan, report }];
        Outcome { name: "a fault".into(), excused, rows, whole: Duration::ZERO, coins: None }
    }

    fn verdict(outcome: Outcome) -> String {
        let mut outcomes = Outcomes::default();
        outcomes.add(outcome);
        outcomes.verdict().to_string()
    }

    #[test]
    fn only_calls_by_grpc_are_excused_and_one_for_each_caller() {
        assert_eq!(verdict(outcome(GRPC, 0, None)), "1 faults, 100 calls, 0 failed, ok");
        assert!(verdict(outcome(GRPC, 1, None)).contains("not ok: a fault: 1 calls of gRPC failed, 0 may"));
        assert!(verdict(outcome(GRPC, GRPC.callers, Some("why"))).ends_with(", ok"));
        assert!(verdict(outcome(GRPC, GRPC.callers + 1, Some("why"))).contains("not ok"));
        assert!(verdict(outcome(EDGE, 1, Some("why"))).contains("not ok"));
        assert!(Outcomes::default().verdict().to_string().contains("not ok: nothing"));
    }

    #[test]
    fn coins_that_are_lost_made_or_left_lying_break_the_law() {
        let coins = |all, frozen| Coins { all, frozen };
        let with = |before, after| Outcome { coins: Some((before, after)), ..outcome(GRPC, 0, None) };
        assert!(verdict(with(coins(10, 3), coins(10, 0))).ends_with(", ok"));
        assert!(verdict(with(coins(10, 0), coins(9, 0))).contains("were 10 and are 9"));
        assert!(verdict(with(coins(10, 0), coins(10, 2))).contains("2 coins are still set aside"));
    }
}
