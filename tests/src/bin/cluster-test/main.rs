//! `make cluster-test`: every fault that the cluster of docker-compose.yml has to stand, one after the other, under load
//! by gRPC and through the edge; a table of what came of it, and exit 1 where a call failed that must not.
//!
//! [`docker`] is the cluster and what can be done to its containers, [`load`] the loads in its `tools` container,
//! [`faults`] the list, [`play`] plays one, [`outcome`] is the table and the verdict. docker/cluster.sh starts it on a cluster
//! of its own: `cluster-test PROJECT`, where PROJECT is the name that docker compose was given.

mod docker;
mod faults;
mod load;
mod outcome;
mod play;

use std::process::ExitCode;

use svcctl::output::{Format, Printer};

use docker::Cluster;
use outcome::Outcomes;

/// An error of the test's own: what cannot be done to the cluster, not what the cluster does wrong.
type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let mut printer = Printer::new(Format::Table);
    let project = std::env::args().nth(1).unwrap_or_else(|| "svc-cluster-test".to_owned());
    match run(&project, &mut printer).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            printer.note(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays every fault, also after one that was not stood; whether all were.
async fn run(project: &str, printer: &mut Printer) -> Result<bool, Error> {
    let cluster = Cluster::find(project).await?;
    let mut outcomes = Outcomes::default();
    // Only faults with this in their names, for who works on one.
    let only = std::env::var("FAULT").unwrap_or_default();
    for fault in faults::all(&cluster).await?.into_iter().filter(|fault| fault.name.contains(&only)) {
        let outcome = play::play(&cluster, &fault, printer).await?;
        outcome.tell(printer);
        outcomes.add(outcome);
    }
    printer.text("")?;
    printer.table(outcomes.table(), "")?;
    let verdict = outcomes.verdict();
    printer.text(&format!("\ncluster-test: {verdict}"))?;
    Ok(verdict.is_ok())
}
