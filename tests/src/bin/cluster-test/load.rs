//! The loads: `greeter-load` and `edge-load` in the cluster's `tools` container, from which they see its networks as any
//! client does. Each tells how it goes twice a second, and gives its report when it is told to end.

use std::process::Stdio;
use std::time::Duration;

use demo_services::load::Report;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Error;
use crate::docker::Cluster;

/// How long a load may take to begin, and to end: its longest call.
const LIMIT: Duration = Duration::from_secs(40);

/// What is called, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What its rows are called.
    pub(crate) name: &'static str,
    /// Calls in flight at most.
    pub(crate) callers: u64,
    /// The service without which there is nothing to be called.
    pub(crate) needs: &'static str,
    command: &'static [&'static str],
}

/// Greetings by gRPC, found through etcd; they change nothing, so a lost connection is worth another attempt.
pub(crate) const GRPC: Plan = Plan {
    name: "gRPC",
    callers: 16,
    needs: "greeter-1",
    command: &[
        "greeter-load",
        "--callers",
        "16",
        "--rate",
        "100",
        "--deadline",
        "2s",
        "--service-config",
        RETRY,
    ],
};

const RETRY: &str = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.05s",
    "maxBackoff": "0.5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

/// Greetings by HTTP.
pub(crate) const EDGE: Plan = Plan {
    name: "edge",
    callers: 8,
    needs: "edge-1",
    command: &["edge-load", "--call", "greeting", "--callers", "8", "--rate", "25", "--edge", EDGES],
};

/// Gifts by HTTP, each through edge, gift, balance and PostgreSQL.
pub(crate) const GIFTS: Plan = Plan {
    name: "gifts",
    callers: 8,
    needs: "gift-1",
    command: &[
        "edge-load",
        "--call",
        "gift",
        "--callers",
        "8",
        "--rate",
        "10",
        "--deadline",
        "20s",
        "--edge",
        EDGES,
    ],
};

const EDGES: &str = "http://edge-1.mesh:50051,http://edge-2.mesh:50051";

/// A load that runs; its client on this side is killed with the value, and it ends in `tools` when its time is over.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) plan: Plan,
    child: Child,
    progress: watch::Receiver<Report>,
    said: watch::Receiver<String>,
    result: JoinHandle<String>,
}

impl Load {
    /// Starts it, and waits for its first good call.
    pub(crate) async fn start(cluster: &Cluster, plan: Plan) -> Result<Load, Error> {
        let marker = format!("echo $$ >/tmp/{}.pid; exec \"$@\"", plan.name);
        // Longer than any fault: it is told to end.
        let fixed = ["--seconds", "240", "--progress", "json", "-o", "json"];
        let mut child = Command::new("docker")
            .args(["exec", cluster.container("tools")?, "sh", "-c", &marker, "sh"])
            .args(plan.command)
            .args(fixed)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err) = out.zip(err).ok_or("docker was started without pipes")?;
        let (reports, progress) = watch::channel(Report::default());
        let (words, said) = watch::channel(String::new());
        // Both end with the child's pipes; the first one's findings are in the channels, the second's is awaited.
        tokio::spawn(async move {
            let mut lines = BufReader::new(err).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(report) => drop(reports.send_replace(report)),
                    Err(_) => drop(words.send_replace(line)),
                }
            }
        });
        let result = tokio::spawn(read(out));
        let mut load = Load { plan, child, progress, said, result };
        load.until(|report| report.ok > 0).await?;
        Ok(load)
    }

    /// The latest report.
    pub(crate) fn report(&self) -> Report {
        self.progress.borrow().clone()
    }

    /// Waits for a report that will do.
    pub(crate) async fn until(&mut self, enough: impl FnMut(&Report) -> bool) -> Result<(), Error> {
        let name = self.plan.name;
        let waited = timeout(LIMIT, self.progress.wait_for(enough)).await.map(|waited| waited.map(drop));
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(format!("{name}: ended by itself: {}", self.said.borrow().as_str()).into()),
            Err(_) => {
                let report = self.report();
                Err(format!("{name}: not as it should be after {LIMIT:?}: {report}").into())
            }
        }
    }

    /// Tells it to end, and takes its report.
    pub(crate) async fn finish(mut self, cluster: &Cluster) -> Result<Report, Error> {
        let name = self.plan.name;
        cluster.exec("tools", &["sh", "-c", &format!("kill -INT $(cat /tmp/{name}.pid)")]).await?;
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.map_err(|_| format!("{name} has not ended within {LIMIT:?}"))??;
        let text = timeout(LIMIT, &mut self.result).await??;
        if !status.success() {
            return Err(format!("{name} ended with {status}: {}", self.said.borrow().as_str()).into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}

async fn read(mut out: tokio::process::ChildStdout) -> String {
    let mut text = String::new();
    // What cannot be read is missing from the text, which is noticed where it is parsed.
    let _ = out.read_to_string(&mut text).await;
    text
}
