//! The result of a run: as JSON for programs, as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a load run measured; serialises to the JSON that scripts rely on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was called.
    pub target: String,
    /// How calls were spread.
    pub policy: String,
    /// How long the run took, open calls included.
    pub seconds: f64,
    /// All calls.
    pub calls: u64,
    /// Calls that ended well.
    pub ok: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Attempts after the first one, of all calls: they were made again, or meant for two instances.
    #[serde(default)]
    pub repeated: u64,
    /// Failed calls by gRPC status code.
    pub by_code: BTreeMap<String, u64>,
    /// Good replies by the instance that gave them; a stream gives many.
    pub by_instance: BTreeMap<String, u64>,
    /// Median time of a good call, in milliseconds; 0 without one.
    pub p50_ms: f64,
    /// The time within which 99 of 100 good calls ended, in milliseconds.
    pub p99_ms: f64,
    /// The longest good call, in milliseconds.
    pub max_ms: f64,
    /// The longest time without a good reply, the run's two ends included, in milliseconds.
    pub longest_gap_ms: f64,
    /// The status of the call that failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target       {}", self.target)?;
        writeln!(f, "policy       {}", self.policy)?;
        writeln!(f, "seconds      {:.1}", self.seconds)?;
        writeln!(f, "calls        {}", self.calls)?;
        writeln!(f, "failed       {}{}", self.failed, Counts(&self.by_code))?;
        writeln!(f, "repeated     {}", self.repeated)?;
        writeln!(f, "p50          {:.2} ms", self.p50_ms)?;
        writeln!(f, "p99          {:.2} ms", self.p99_ms)?;
        writeln!(f, "max          {:.2} ms", self.max_ms)?;
        writeln!(f, "longest gap  {:.0} ms", self.longest_gap_ms)?;
        if let Some(error) = &self.last_error {
            writeln!(f, "last error   {}", error.escape_debug())?;
        }
        let replies: u64 = self.by_instance.values().sum();
        for (instance, &n) in &self.by_instance {
            let share = n as f64 * 100.0 / replies as f64;
            writeln!(f, "  {n:>9}  {share:>5.1} %  {}", instance.escape_debug())?;
        }
        Ok(())
    }
}

struct Counts<'a>(&'a BTreeMap<String, u64>);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (code, n) in self.0 {
            write!(f, "  {n} {code}")?;
        }
        Ok(())
    }
}
