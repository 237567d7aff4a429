//! An etcd that comes back empty: from its first answer until it holds all 5,000 keys again. It was away for so long
//! that whoever waits longer after each failure waits as long as he ever does. The peer is told when etcd is back, and has only to
//! put the same number of keys.

use std::error::Error;
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};

use super::{Fleet, KEYS_PER_LEASE, LIMIT, MANY, OURS, RAW, Raw, connect};
use crate::etcd::Etcd;
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

pub(super) const NAME: &str = "whole_after_restart/5000";

const ROUNDS: u32 = 3;
const AWAY: Duration = Duration::from_secs(5);

/// Runs the row.
pub(super) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let Some(mut etcd) = Etcd::start(NAME).await? else { return Ok(()) };
    let handle = connect(&etcd).await?;
    let (mut ours, mut raw) = (Samples::of("ours"), Samples::of(RAW));
    for _ in 0..effort.rounds.min(ROUNDS) {
        let mut fleet = Fleet::new(&handle);
        fleet.register_many().await?;
        etcd.wipe()?;
        tokio::time::sleep(AWAY).await;
        etcd.start_again().await?;
        let begin = Instant::now();
        let mut client = etcd.client().await?;
        whole(&mut client).await?;
        ours.push(begin.elapsed().as_secs_f64());
        fleet.registered().await;
        fleet.leave().await?;

        let mut puts = Raw::new(client);
        let begin = Instant::now();
        puts.put_many(MANY, KEYS_PER_LEASE).await?;
        raw.push(begin.elapsed().as_secs_f64());
        puts.leave().await?;
    }
    report.compare(NAME, "s", &ours, &[&raw]);
    Ok(())
}

/// Waits until etcd holds all keys of ours.
async fn whole(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let prefix = format!("/services/{OURS}/");
    loop {
        let count = GetOptions::new().with_prefix().with_count_only();
        let found = client.get(prefix.as_str(), Some(count)).await?.count();
        if usize::try_from(found)? == MANY {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("{found} of {MANY} keys are back after {LIMIT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
