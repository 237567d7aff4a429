//! How many instances a process registers in a second: from the first wish to the last record, leases included. Ours
//! reads before it writes, guards each write, and watches its keys; by hand they are plain puts.

use std::error::Error;
use std::time::Duration;

use super::{Fleet, MANY, RAW, Raw, connect};
use crate::etcd::Etcd;
use crate::report::Report;
use crate::rounds::{Meter, Samples};
use crate::{Effort, report};

pub(super) const NAME: &str = "registrations_per_second/5000";
const CPU_NAME: &str = "registration_cpu/5000";

/// A round is 5,000 of each.
const ROUNDS: u32 = 5;

/// For etcd to be done with what a turn has left behind.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs the row.
pub(super) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let Some(etcd) = Etcd::start(NAME).await? else { return Ok(()) };
    let (handle, client) = (connect(&etcd).await?, etcd.client().await?);
    let (mut ours, mut raw) = (Samples::of("ours"), Samples::of(RAW));
    let (mut ours_cpu, mut raw_cpu) = (Samples::of("ours"), Samples::of(RAW));
    for round in 0..=effort.rounds.min(ROUNDS) {
        let mut fleet = Fleet::new(&handle);
        let meter = Meter::start()?;
        fleet.register_many().await?;
        let by_us = meter.stop()?;
        fleet.leave().await?;
        tokio::time::sleep(FAREWELL).await;

        let mut puts = Raw::new(client.clone());
        let meter = Meter::start()?;
        puts.put_many(MANY, super::KEYS_PER_LEASE).await?;
        let by_hand = meter.stop()?;
        puts.leave().await?;
        tokio::time::sleep(FAREWELL).await;

        // The first round warms up.
        if round > 0 {
            for (rate, cpu, spent) in [(&mut ours, &mut ours_cpu, by_us), (&mut raw, &mut raw_cpu, by_hand)] {
                rate.push(MANY as f64 / spent.wall.as_secs_f64());
                cpu.push(spent.cpu.as_secs_f64() * 1e6 / MANY as f64);
            }
        }
    }
    report.compare(NAME, "registrations/s", &ours, &[&raw]);
    report.compare(CPU_NAME, "us", &ours_cpu, &[&raw_cpu]);
    Ok(())
}
