//! What it costs to stay registered: keepalive messages and CPU time for 5,000 instances at rest, over a third of a
//! TTL. By hand: a stream for each lease of 100 keys; and, as many write it, a lease and a stream for each instance.

use std::convert::Infallible;
use std::error::Error;
use std::time::{Duration, Instant};

use etcd_client::Client;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Fleet, KEYS_PER_LEASE, LIMIT, MANY, RAW, Raw, TTL, connect};
use crate::etcd::Etcd;
use crate::report;
use crate::report::Report;
use crate::rounds::{Meter, Samples};

pub(super) const NAME: &str = "keepalives/5000";
const A_LEASE_EACH: &str = "a lease and a stream each";

/// A lease is renewed each third of its TTL, by all contestants.
const THIRD: Duration = Duration::from_secs(TTL.unsigned_abs() / 3);
/// What is measured.
const WINDOW: Duration = THIRD;

/// The name of a row, its unit, and what it shows.
type Row = (&'static str, &'static str, fn(&Upkeep) -> &Samples);

/// What staying registered took, in [`WINDOW`].
struct Upkeep {
    leases: Samples,
    streams: Samples,
    messages: Samples,
    cpu: Samples,
    etcd_cpu: Samples,
}

/// Runs the rows: once, since nothing here is left to chance but the CPU times.
pub(super) async fn run(report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let Some(etcd) = Etcd::start(NAME).await? else { return Ok(()) };
    let ours = ours(&etcd).await?;
    let raw = by_hand(&etcd, RAW, KEYS_PER_LEASE).await?;
    let each = by_hand(&etcd, A_LEASE_EACH, 1).await?;
    let rows: [Row; 5] = [
        ("keepalive_leases/5000", "leases", |upkeep| &upkeep.leases),
        ("keepalive_streams/5000", "streams", |upkeep| &upkeep.streams),
        (NAME, "messages a second", |upkeep| &upkeep.messages),
        ("keepalives_cpu/5000", "% of a core", |upkeep| &upkeep.cpu),
        ("keepalives_etcd_cpu/5000", "% of a core", |upkeep| &upkeep.etcd_cpu),
    ];
    for (name, unit, of) in rows {
        report.compare(name, unit, of(&ours), &[of(&raw), of(&each)]);
    }
    Ok(())
}

async fn ours(etcd: &Etcd) -> Result<Upkeep, Box<dyn Error>> {
    let mut fleet = Fleet::new(&connect(etcd).await?);
    fleet.register_many().await?;
    let upkeep = measure(etcd, "ours").await?;
    fleet.leave().await?;
    Ok(upkeep)
}

async fn by_hand(etcd: &Etcd, name: &'static str, keys_per_lease: usize) -> Result<Upkeep, Box<dyn Error>> {
    let mut puts = Raw::new(etcd.client().await?);
    puts.put_many(MANY, keys_per_lease).await?;
    // Owned here and ended by the drop; none ends by itself while etcd is up.
    let mut keepers = JoinSet::new();
    for lease in puts.leases.clone() {
        keepers.spawn(keep(puts.client.clone(), lease));
    }
    let begin = Instant::now();
    while etcd.keepalive_streams().await? < keepers.len() as f64 {
        if begin.elapsed() > LIMIT {
            return Err("the keepalive streams are not open".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let upkeep = measure(etcd, name).await?;
    if let Some(ended) = keepers.try_join_next() {
        return Err(format!("a keepalive loop ended: {ended:?}").into());
    }
    drop(keepers);
    puts.leave().await?;
    Ok(upkeep)
}

/// A loop as users write it.
async fn keep(mut client: Client, lease: i64) -> Result<Infallible, etcd_client::Error> {
    // The first keepalive goes out with the stream.
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    let mut ticks = interval(THIRD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        keeper.keep_alive().await?;
        answers.message().await?;
    }
}

async fn measure(etcd: &Etcd, name: &'static str) -> Result<Upkeep, Box<dyn Error>> {
    settled(etcd).await?;
    let leases = etcd.client().await?.leases().await?.leases().len();
    let streams = etcd.keepalive_streams().await?;
    let (messages, etcd_cpu, meter) = (etcd.keepalives().await?, etcd.cpu_seconds().await?, Meter::start()?);
    sleep(WINDOW).await;
    let spent = meter.stop()?;
    let (messages, etcd_cpu) = (etcd.keepalives().await? - messages, etcd.cpu_seconds().await? - etcd_cpu);
    let seconds = spent.wall.as_secs_f64();
    let one = |value: f64| {
        let mut samples = Samples::of(name);
        samples.push(value);
        samples
    };
    Ok(Upkeep {
        leases: one(leases as f64),
        streams: one(streams),
        messages: one(messages / seconds),
        cpu: one(100.0 * spent.cpu.as_secs_f64() / seconds),
        etcd_cpu: one(100.0 * etcd_cpu / seconds),
    })
}

/// Waits until renewals have begun, and then for half of their pause: leases that were granted together are renewed
/// together, and none of these waves is to fall on an edge of what is measured.
async fn settled(etcd: &Etcd) -> Result<(), Box<dyn Error>> {
    let (begin, before) = (Instant::now(), etcd.keepalives().await?);
    while etcd.keepalives().await? - before < 1.0 {
        if begin.elapsed() > LIMIT {
            return Err("no lease is renewed".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    sleep(THIRD / 2).await;
    Ok(())
}
