//! One fault under load: the loads begin, the fault comes and goes, all is whole again, the loads end.

use std::time::{Duration, Instant};

use svcctl::output::Printer;
use tokio::time::sleep;

use crate::Error;
use crate::docker::{Cluster, Coins};
use crate::faults::{Act, Fault};
use crate::load::{EDGE, GIFTS, GRPC, Load};
use crate::outcome::{Outcome, Row};

/// How long the calls go on after all is whole.
const AFTER: Duration = Duration::from_secs(1);

/// How long sendings may take to end once nobody orders any more: gift looks for forgotten ones by itself.
const SETTLED: Duration = Duration::from_secs(60);

pub(crate) async fn play(cluster: &Cluster, fault: &Fault, printer: &mut Printer) -> Result<Outcome, Error> {
    printer.note(&format!("{} ...", fault.name));
    let of = |error: Error| format!("{}: {error}", fault.name);
    let mut loads = Vec::new();
    for plan in [GRPC, EDGE, GIFTS].into_iter().filter(|plan| cluster.has(plan.needs)) {
        loads.push(Load::start(cluster, plan).await.map_err(of)?);
    }
    // The loads have given coins to their users, and give none later.
    let before = match cluster.has(GIFTS.needs) {
        true => Some(cluster.coins().await.map_err(of)?),
        false => None,
    };
    let whole = fault_and_recovery(cluster, fault, &mut loads).await.map_err(of)?;
    sleep(AFTER).await;
    let mut rows = Vec::new();
    for load in loads {
        let plan = load.plan;
        rows.push(Row { plan, report: load.finish(cluster).await.map_err(of)? });
    }
    let after = match before {
        Some(_) => Some(settled(cluster).await.map_err(of)?),
        None => None,
    };
    Ok(Outcome { name: fault.name.clone(), excused: fault.excused, rows, whole, coins: before.zip(after) })
}

/// From the end of the fault to when every instance serves, every member of etcd is healthy, and every greeter answers
/// calls again.
async fn fault_and_recovery(cluster: &Cluster, fault: &Fault, loads: &mut [Load]) -> Result<Duration, Error> {
    let mut known = cluster.serving().await?;
    for act in &fault.begin {
        act.run(cluster).await?;
        if let Act::Whole(renewed) = act {
            cluster.until_whole(&known, renewed).await?;
            known = cluster.serving().await?;
        }
    }
    sleep(fault.lasts).await;
    let lifted = Instant::now();
    for act in &fault.end {
        act.run(cluster).await?;
    }
    let since: Vec<_> = loads.iter().map(Load::report).collect();
    cluster.until_whole(&known, &fault.renewed).await?;
    let (Some(load), Some(since)) = (loads.first_mut(), since.first()) else { return Ok(lifted.elapsed()) };
    let greeters = cluster.members("greeter");
    let calls = |report: &demo_services::load::Report, id: &str| report.by_instance.get(id).copied();
    load.until(|now| greeters.iter().all(|id| calls(now, id) > calls(since, id))).await?;
    Ok(lifted.elapsed())
}

/// What the ledger holds once nothing is set aside any more.
async fn settled(cluster: &Cluster) -> Result<Coins, Error> {
    let since = Instant::now();
    loop {
        let coins = cluster.coins().await?;
        // What stays is told in the table.
        if coins.frozen == 0 || since.elapsed() > SETTLED {
            return Ok(coins);
        }
        sleep(Duration::from_millis(500)).await;
    }
}
