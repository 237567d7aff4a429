//! `greeter-load` or `edge-load` as a child: its progress read line by line, its report at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::child::{Child, Signal};
use super::ledger::Totals;
use super::stage::Stage;
use crate::exit::{Exit, Failure};

/// How long a load that was told to end may take: its longest call.
const ENDING: Duration = Duration::from_secs(20);

/// A load to be started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// What its rows are called.
    pub(super) name: &'static str,
    /// The program that makes the calls.
    pub(super) binary: &'static str,
    /// How many calls are in flight at most.
    pub(super) callers: u64,
    /// Further flags of it.
    pub(super) flags: &'static [&'static str],
}

/// What `greeter-load` says while it runs and at its end: the part that is of use here.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Report {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) by_code: BTreeMap<String, u64>,
    pub(super) by_instance: BTreeMap<String, u64>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_gap_ms: f64,
    #[serde(default)]
    pub(super) last_error: Option<String>,
}

impl Report {
    /// Calls that ended well.
    pub(super) fn good(&self) -> u64 {
        self.calls - self.failed.min(self.calls)
    }

    pub(super) fn totals(&self) -> Totals {
        let unavailable = self.by_code.get("UNAVAILABLE").copied().unwrap_or(0);
        Totals { calls: self.calls, failed: self.failed, unavailable }
    }
}

/// A running load.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) plan: Plan,
    child: Child,
    progress: watch::Receiver<Report>,
    result: JoinHandle<String>,
}

impl Load {
    /// Starts the load, with flags that are known only now.
    pub(super) fn start(stage: &Stage, plan: Plan, flags: Vec<String>) -> Result<Load, Failure> {
        let callers = plan.callers.to_string();
        // Longer than any demo: it is ended by a signal.
        let fixed = ["--seconds", "3600", "--progress", "json", "-o", "json", "--callers", &callers];
        let arguments = fixed.iter().chain(plan.flags).map(|&flag| flag.to_owned()).chain(flags);
        let (child, out, err) =
            Child::start_piped(plan.name, &stage.binary(plan.binary), stage.log(plan.name), arguments)?;
        let (reports, progress) = watch::channel(Report::default());
        // Both end when the child's pipes close, which its death does; their results are read in `finish`.
        tokio::spawn(follow(err, reports, stage.log(plan.name)));
        let result = tokio::spawn(read(out));
        Ok(Load { plan, child, progress, result })
    }

    /// The latest report.
    pub(super) fn report(&self) -> Report {
        self.progress.borrow().clone()
    }

    /// Waits for the next report.
    pub(super) async fn next(&mut self) -> Result<(), Failure> {
        match self.progress.changed().await {
            Ok(()) => Ok(()),
            Err(_) => {
                // Its stderr is closed: it is about to be seen ending.
                let status = self.child.ended(Duration::from_secs(5)).await?;
                Err(Failure::new(Exit::Other, format!("{} ended by itself ({status})", self.plan.name)))
            }
        }
    }

    /// Tells it to end, and takes its report.
    pub(super) async fn finish(mut self) -> Result<Report, Failure> {
        let name = self.plan.name;
        self.child.signal(Signal::Interrupt)?;
        let status = self.child.ended(ENDING).await?;
        let text = match timeout(ENDING, self.result).await {
            Ok(Ok(text)) => text,
            _ => String::new(),
        };
        let failed = |reason: String| Failure::new(Exit::Other, format!("{name}: {reason}"));
        if !status.success() {
            return Err(failed(format!("ended with {status}")));
        }
        serde_json::from_str(&text).map_err(|error| failed(format!("its report is unreadable ({error})")))
    }
}

/// Reads progress from a load's stderr; whatever else it says goes to the log.
async fn follow(err: ChildStderr, reports: watch::Sender<Report>, log: std::path::PathBuf) {
    use tokio::io::AsyncWriteExt as _;
    let mut log = tokio::fs::File::options().append(true).open(log).await.ok();
    let mut lines = BufReader::new(err).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(report) => drop(reports.send_replace(report)),
            Err(_) => {
                if let Some(log) = &mut log {
                    // A log that cannot be written costs the log, not the demo.
                    let _ = log.write_all(format!("{line}\n").as_bytes()).await;
                }
            }
        }
    }
}

async fn read(mut out: ChildStdout) -> String {
    let mut text = String::new();
    // What cannot be read is missing from the text, which is noticed where it is parsed.
    let _ = out.read_to_string(&mut text).await;
    text
}
