//! What happened how often, and the figures at rest: of the first third of the rests beside those of the last.

use std::collections::BTreeMap;
use std::fmt;

/// What a witness may hold more of in the last third than in the first. Connections to etcd come and go by themselves,
/// each with a task or two, and a reconnect leaves its buffers, once.
const MORE_TASKS: f64 = 10.0;
const MORE_FILES: f64 = 6.0;
const MORE_KIB: f64 = 2_048.0;

/// When all was well.
#[derive(Clone, Debug, Default)]
pub(super) struct AtRest {
    /// Of a witness, the mean of all.
    pub(super) tasks: f64,
    pub(super) kib: f64,
    pub(super) files: f64,
    /// In etcd.
    pub(super) keys: f64,
    pub(super) leases: f64,
    pub(super) watches: f64,
    /// Living processes.
    pub(super) processes: f64,
    /// How long it took until the set in etcd was the set alive.
    pub(super) settled_ms: f64,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    events: BTreeMap<&'static str, usize>,
    rests: Vec<AtRest>,
}

impl Report {
    pub(super) fn happened(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    pub(super) fn rest(&mut self, at_rest: AtRest) {
        self.rests.push(at_rest);
    }

    /// The mean of the first third and of the last.
    fn thirds(&self, figure: impl Fn(&AtRest) -> f64) -> (f64, f64) {
        let third = (self.rests.len() / 3).max(1);
        let mean = |rests: &[AtRest]| rests.iter().map(&figure).sum::<f64>() / rests.len() as f64;
        (mean(&self.rests[..third]), mean(&self.rests[self.rests.len() - third..]))
    }

    /// Asserts that nothing has grown. Keys, leases and watches have been asserted at each rest.
    pub(super) fn is_flat(&self) {
        let flat = |what: &str, figure: fn(&AtRest) -> f64, more: f64| {
            let (first, last) = self.thirds(figure);
            assert!(
                last <= first + more,
                "{what} have grown: {first:.1} in the first third, {last:.1} in the last"
            );
        };
        flat("tasks", |rest| rest.tasks, MORE_TASKS);
        flat("open files", |rest| rest.files, MORE_FILES);
        flat("KiB", |rest| rest.kib, MORE_KIB);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40}{:>12}", "what happened", "times")?;
        for (what, times) in &self.events {
            writeln!(f, "  {what:<38}{times:>12}")?;
        }
        let title = format!("at rest, {} times; means of", self.rests.len());
        writeln!(f, "{title:<40}{:>12}{:>12}", "first third", "last third")?;
        type Row = (&'static str, fn(&AtRest) -> f64);
        let rows: [Row; 9] = [
            ("tasks of a process never killed", |rest| rest.tasks),
            ("its open files", |rest| rest.files),
            ("its resident memory, KiB", |rest| rest.kib),
            ("processes alive", |rest| rest.processes),
            ("keys in etcd", |rest| rest.keys),
            ("leases in etcd", |rest| rest.leases),
            ("leases beyond one a process", |rest| rest.leases - rest.processes),
            ("watches in etcd for each process", |rest| rest.watches / rest.processes),
            ("ms until the set was the set alive", |rest| rest.settled_ms),
        ];
        for (what, figure) in rows {
            let (first, last) = self.thirds(figure);
            writeln!(f, "  {what:<38}{first:>12.1}{last:>12.1}")?;
        }
        let slowest = self.rests.iter().map(|rest| rest.settled_ms).fold(0.0, f64::max);
        writeln!(f, "  {:<38}{:>12}{slowest:>12.1}", "the slowest of all", "")
    }
}
