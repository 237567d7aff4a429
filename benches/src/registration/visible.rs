//! From the wish to register until a raw watch of etcd-client shows the key: one instance after the other, by turns with
//! a raw put. Ours reads first, so that it takes over what it finds: two round trips.

use std::error::Error;
use std::time::Instant;

use etcd_client::{Client, WatchOptions, WatchStream};
use hdrhistogram::Histogram;

use super::{Fleet, KEYS_PER_LEASE, LIMIT, OURS, RAW, THEIRS, TTL, connect, id, put};
use crate::etcd::Etcd;
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

pub(super) const NAME: &str = "register_to_visible";

/// A round is so many of each.
const SAMPLES: usize = 500;
const ROUNDS: u32 = 3;

/// Runs the rows.
pub(super) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let Some(etcd) = Etcd::start(NAME).await? else { return Ok(()) };
    let (handle, mut client) = (connect(&etcd).await?, etcd.client().await?);
    let (mut ours_p50, mut raw_p50) = (Samples::of("ours"), Samples::of(RAW));
    let (mut ours_p99, mut raw_p99) = (Samples::of("ours"), Samples::of(RAW));
    for round in 0..=effort.rounds.min(ROUNDS) {
        let (ours, raw) = latencies(&handle, &mut client).await?;
        // The first round warms up.
        if round > 0 {
            for (samples, histogram, quantile) in [
                (&mut ours_p50, &ours, 0.5),
                (&mut raw_p50, &raw, 0.5),
                (&mut ours_p99, &ours, 0.99),
                (&mut raw_p99, &raw, 0.99),
            ] {
                samples.push(f64::from(u32::try_from(histogram.value_at_quantile(quantile))?) / 1e3);
            }
        }
    }
    report.compare("register_to_visible_p50", "ms", &ours_p50, &[&raw_p50]);
    report.compare("register_to_visible_p99", "ms", &ours_p99, &[&raw_p99]);
    Ok(())
}

/// Microseconds of ours and of puts. A lease is granted for each hundred, within the time of the first of them.
async fn latencies(
    handle: &svc_registry::Etcd,
    client: &mut Client,
) -> Result<(Histogram<u64>, Histogram<u64>), Box<dyn Error>> {
    let mut watch = client.watch("/services/", Some(WatchOptions::new().with_prefix())).await?;
    let (mut ours, mut raw) = (Histogram::new(3)?, Histogram::new(3)?);
    let (mut fleet, mut leases) = (Fleet::new(handle), Vec::new());
    for at in 0..SAMPLES {
        let begin = Instant::now();
        fleet.register(&id(at))?;
        shown(&mut watch, OURS, at).await?;
        ours.record(u64::try_from(begin.elapsed().as_micros())?)?;

        let begin = Instant::now();
        if at % KEYS_PER_LEASE == 0 {
            leases.push(client.lease_grant(TTL, None).await?.id());
        }
        put(client, at, leases[at / KEYS_PER_LEASE]).await?;
        shown(&mut watch, THEIRS, at).await?;
        raw.record(u64::try_from(begin.elapsed().as_micros())?)?;
    }
    drop(watch);
    fleet.leave().await?;
    for lease in leases {
        client.lease_revoke(lease).await?;
    }
    Ok((ours, raw))
}

async fn shown(watch: &mut WatchStream, service: &str, at: usize) -> Result<(), Box<dyn Error>> {
    let key = format!("/services/{service}/{}", id(at));
    let shown = async {
        while let Some(message) = watch.message().await? {
            let mut keys = message.events().iter().filter_map(|event| event.kv());
            if keys.any(|kv| kv.key() == key.as_bytes()) {
                return Ok(());
            }
        }
        Err("etcd has ended the watch".into())
    };
    tokio::time::timeout(LIMIT, shown).await.map_err(|_| "no watch shows the key")?
}
