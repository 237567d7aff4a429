//! What the demo prints: numbered chapters, what is done and why, tables, and one line of progress.

use std::time::{Duration, Instant, SystemTime};

use super::ledger::Ledger;
use super::load::Report;
use super::stage::Stage;
use crate::exit::Failure;
use crate::inventory::Inventory;
use crate::output::{self, Printer, Table};

/// How often the progress is told where each telling is a line of its own.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What stands before the lines that a command answers.
const ANSWER: &str = "     ";

/// Tells the story.
pub(super) struct Narrator<'a> {
    printer: &'a mut Printer,
    chapter: usize,
    progress_told: Option<Instant>,
}

impl<'a> Narrator<'a> {
    pub(super) fn new(printer: &'a mut Printer) -> Narrator<'a> {
        Narrator { printer, chapter: 0, progress_told: None }
    }

    /// What is about to be seen, and on what.
    pub(super) fn opening(&mut self, stage: &Stage) -> Result<(), Failure> {
        let etcd = stage.etcd();
        let (at, prefix) = (etcd.endpoints(), etcd.prefix().as_str());
        self.say("Services that register in etcd, a client that balances over them, and what may go wrong.")?;
        if stage.is_embedded() {
            self.say(&format!(
                "etcd: embedded in this process, in memory, on {at}; behind a proxy that can cut it off"
            ))
        } else {
            self.say(&format!(
                "etcd: {at}, under the fresh prefix {prefix}; behind a proxy that can cut it off"
            ))
        }
    }

    /// Begins a chapter.
    pub(super) fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        self.chapter += 1;
        let line = format!("\n{}. {title}", self.chapter);
        self.quiet();
        self.printer.heading(&line)?;
        Ok(())
    }

    /// A sentence.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.quiet();
        self.printer.text(format!("   {text}").trim_end())?;
        Ok(())
    }

    /// A command line as an operator would type it, and the printer to which it answers, until
    /// [`answered`](Self::answered).
    pub(super) fn command(&mut self, line: &str) -> Result<&mut Printer, Failure> {
        self.say(&format!("$ {line}"))?;
        self.printer.indent(ANSWER);
        Ok(self.printer)
    }

    /// A command has answered.
    pub(super) fn answered(&mut self) {
        self.printer.indent("");
    }

    /// The instances as `svcctl get` shows them.
    pub(super) fn instances(&mut self, inventory: &Inventory) -> Result<(), Failure> {
        let instances = inventory.instances().instances;
        self.table(output::instances(&instances, SystemTime::now()))
    }

    fn table(&mut self, table: Table) -> Result<(), Failure> {
        self.quiet();
        self.printer.table(table, ANSWER)?;
        Ok(())
    }

    /// How the calls go: the shares are those of the replies since `since`.
    pub(super) fn progress(&mut self, now: &Report, since: &Report) {
        let every =
            if self.printer.shows_progress_in_place() { Duration::ZERO } else { PLAIN_PROGRESS_EVERY };
        let too_soon = self.progress_told.is_some_and(|told| told.elapsed() < every);
        // Shares of nothing say nothing.
        if too_soon || now.by_instance == since.by_instance {
            return;
        }
        self.progress_told = Some(Instant::now());
        self.printer.progress(&format!("   {}", progress_line(now, since)));
    }

    /// Ends the line of progress, if there is one.
    pub(super) fn quiet(&mut self) {
        self.printer.end_progress();
        self.progress_told = None;
    }

    /// The two tables of the end.
    pub(super) fn closing(&mut self, ledger: &Ledger) -> Result<(), Failure> {
        self.chapter("What came of it")?;
        self.table(ledger.chapters())?;
        self.printer.text("")?;
        self.table(ledger.loads())?;
        self.printer.text("")?;
        Ok(())
    }

    /// The last line, for scripts and people in a hurry.
    pub(super) fn last(&mut self, text: &str) -> Result<(), Failure> {
        self.quiet();
        self.printer.text(text)?;
        Ok(())
    }
}

fn progress_line(now: &Report, since: &Report) -> String {
    let shares: Vec<(&str, u64)> = now
        .by_instance
        .iter()
        .map(|(instance, &n)| {
            (instance.as_str(), n - since.by_instance.get(instance).copied().unwrap_or(0).min(n))
        })
        .collect();
    let all: u64 = shares.iter().map(|(_, n)| n).sum();
    let mut line = format!("{:>6} calls, {} failed", now.calls, now.failed);
    // The share of the only one is all of it.
    for (instance, n) in shares.into_iter().filter(|_| now.by_instance.len() > 1) {
        let percent = (n * 100).checked_div(all).unwrap_or(0);
        line.push_str(&format!("   {} {percent} %", output::escape(instance)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_chapter() {
        let report = |calls, a, b| Report {
            calls,
            by_instance: [("a".to_owned(), a), ("b".to_owned(), b)].into(),
            ..Report::default()
        };
        let line = progress_line(&report(300, 150, 150), &report(200, 50, 150));
        assert_eq!(line, "   300 calls, 0 failed   a 100 %   b 0 %");
        assert!(progress_line(&report(0, 0, 0), &report(0, 0, 0)).contains("a 0 %"), "no division by zero");
    }
}
