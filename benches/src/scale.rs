//! Many endpoints: 1,000 that appear at once, and one change among 10,000. Costs are CPU time of the client.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use svc_channel::{Channel, Endpoint, PeakEwma, Picker, Policy, Subchannel};
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tower::discover::Change;

use crate::backends::Backends;
use crate::contestants::STOCK;
use crate::load::{Transport, closed};
use crate::report::Report;
use crate::rounds::{Meter, Samples};
use crate::{Effort, report};

/// The part that the rows' names share.
pub(crate) const NAME: &str = "endpoints";

const MANY: usize = 1_000;
const VERY_MANY: usize = 10_000;
const FEW: usize = 10;
const CHANGES: u32 = 200;

/// Every address serves for many endpoints: what is measured is the client's.
const BACKENDS: usize = 8;

/// For connections to end whose channel is gone: their end is not the next contestant's.
const FAREWELL: Duration = Duration::from_millis(300);

/// Failing to be fast here shows in any round.
const ROUNDS: u32 = 3;

/// Runs the rows.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let rounds = effort.rounds.min(ROUNDS);
    let backends = Backends::start(BACKENDS)?;
    added(&backends, rounds, report).await?;
    changed(&backends, rounds, report).await
}

/// From the insert of the first until as many calls were answered as there are endpoints.
async fn added(backends: &Backends, rounds: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("endpoints_added/1000");
    let (mut us, mut peer) = (Samples::of("ours"), Samples::of(STOCK));
    for _ in 0..rounds {
        let (policy, seen) = Seen::policy();
        let meter = Meter::start()?;
        let (channel, _feed) = feed(backends, MANY, policy).await?;
        let client = GreeterClient::new(channel);
        calls(&client).await?;
        seen.reach_ready(MANY).await;
        us.push(meter.stop()?.cpu.as_secs_f64() * 1e3);
        drop(client);
        tokio::time::sleep(FAREWELL).await;

        let meter = Meter::start()?;
        let (channel, inserts) = tonic::transport::Channel::balance_channel(MANY);
        for index in 0..MANY {
            let address = &backends.addresses[index % BACKENDS];
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
            inserts.send(tonic::transport::channel::Change::Insert(index, endpoint)).await?;
        }
        calls(&GreeterClient::new(channel)).await?;
        peer.push(meter.stop()?.cpu.as_secs_f64() * 1e3);
        tokio::time::sleep(FAREWELL).await;
    }
    report.compare("endpoints_added/1000", "ms", &us, &[&peer]);
    Ok(())
}

async fn calls<T: Transport>(client: &GreeterClient<T>) -> Result<(), Box<dyn Error>> {
    closed(std::slice::from_ref(client), BACKENDS, MANY.try_into()?).await.map(drop)
}

/// A weight that changes, until calls see it: by how many endpoints there are.
async fn changed(backends: &Backends, rounds: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("endpoints_one_change/10000");
    let (mut many, mut few) = (Samples::of("ours"), Samples::of("ours, 10 endpoints"));
    for (samples, count) in [(&mut many, VERY_MANY), (&mut few, FEW)] {
        let (policy, seen) = Seen::policy();
        let (_channel, feed) = feed(backends, count, policy).await?;
        seen.reach_ready(count).await;
        for _ in 0..rounds {
            samples.push(change(backends, &feed, &seen).await?);
        }
    }
    report.compare("endpoints_one_change/10000", "us", &many, &[&few]);
    Ok(())
}

/// CPU microseconds for each of some changes, one after the other.
async fn change(backends: &Backends, feed: &Feed, seen: &Seen) -> Result<f64, Box<dyn Error>> {
    let meter = Meter::start()?;
    for weight in 0..CHANGES {
        let before = seen.updates();
        let mut endpoint = Endpoint::new(&backends.addresses[0])?;
        endpoint.weight = 101 + weight % 2; // never the one before
        feed.send(Ok(Change::Insert(0, endpoint))).await?;
        while seen.updates() == before {
            seen.0.updated.notified().await;
        }
    }
    Ok(meter.stop()?.cpu.as_secs_f64() * 1e6 / f64::from(CHANGES))
}

type Feed = mpsc::Sender<Result<Change<usize, Endpoint>, Infallible>>;

/// A channel over `count` endpoints that come all at once, and what feeds it.
async fn feed(
    backends: &Backends,
    count: usize,
    policy: impl Policy,
) -> Result<(Channel, Feed), Box<dyn Error>> {
    let (feed, changes) = mpsc::channel(count);
    for index in 0..count {
        let endpoint = Endpoint::new(&backends.addresses[index % BACKENDS])?;
        feed.send(Ok(Change::Insert(index, endpoint))).await?;
    }
    Ok((Channel::builder().policy(policy).build(ReceiverStream::new(changes)), feed))
}

/// What a policy was told: how often, and of how many ready endpoints the last time.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    updates: AtomicU64,
    ready: AtomicU64,
    updated: Notify,
}

/// The default policy, watched.
struct Watched {
    policy: PeakEwma,
    seen: Seen,
}

impl Seen {
    fn policy() -> (Watched, Seen) {
        let seen = Seen::default();
        (Watched { policy: PeakEwma::new(), seen: seen.clone() }, seen)
    }

    fn updates(&self) -> u64 {
        self.0.updates.load(Relaxed)
    }

    async fn reach_ready(&self, count: usize) {
        while self.0.ready.load(Relaxed) < count as u64 {
            self.0.updated.notified().await;
        }
    }
}

impl Policy for Watched {
    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        let counts = &self.seen.0;
        counts.ready.store(ready.len() as u64, Relaxed);
        counts.updates.fetch_add(1, Relaxed);
        counts.updated.notify_one();
        self.policy.update(ready)
    }
}
