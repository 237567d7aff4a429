//! Registration on a real etcd: 5,000 instances of one process, by our registrar and by etcd-client by hand.
//!
//! By hand is what a competent user would write: leases of 100 keys granted at once, and puts by as many tasks as our
//! registrar has calls under way. Both write values of the same size, over connections that are open, on one worker.
//! The rows: [`rate`], [`visible`], [`keepalives`] and [`restart`].

mod keepalives;
mod rate;
mod restart;
mod visible;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use etcd_client::{Client, PutOptions};
use svc_registry::record::Address;
use svc_registry::{
    Epoch, Etcd, EtcdConfig, Incarnation, Instance, InstanceId, Record, Registrar, Registration, ServiceName,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Effort;
use crate::report::Report;

/// The name of the peer in the report.
const RAW: &str = "raw etcd";

/// Instances in one process.
const MANY: usize = 5_000;
/// Keys that share a lease, by us and by hand.
const KEYS_PER_LEASE: usize = 100;
/// Calls under way at once: as many as our registrar has.
const AT_ONCE: usize = 64;
/// Our default, in seconds.
const TTL: i64 = 15;

/// Whatever takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The services that the contestants register: their records have the same size.
const OURS: &str = "ours";
const THEIRS: &str = "hand";
const ADDRESS: &str = "10.0.0.1:50051";

/// Runs the rows that are wanted.
pub(crate) async fn run(
    effort: Effort,
    wanted: impl Fn(&str) -> bool,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    // Boxed, since they are large futures.
    if wanted(rate::NAME) {
        Box::pin(rate::run(effort, report)).await?;
    }
    if wanted(visible::NAME) {
        visible::run(effort, report).await?;
    }
    if wanted(keepalives::NAME) {
        keepalives::run(report).await?;
    }
    if wanted(restart::NAME) {
        Box::pin(restart::run(effort, report)).await?;
    }
    Ok(())
}

/// A handle of ours on that etcd, connected.
async fn connect(etcd: &crate::etcd::Etcd) -> Result<Etcd, Box<dyn Error>> {
    let ours = Etcd::new(EtcdConfig::new([etcd.url()])?)?;
    ours.ready(LIMIT).await?;
    Ok(ours)
}

/// Instances that our registrar keeps.
struct Fleet {
    registrar: Registrar,
    registrations: Vec<Registration>,
}

impl Fleet {
    fn new(etcd: &Etcd) -> Fleet {
        Fleet { registrar: Registrar::new(etcd), registrations: Vec::new() }
    }

    /// Registers one more; returns at once.
    fn register(&mut self, id: &str) -> Result<&Registration, Box<dyn Error>> {
        self.registrations.push(self.registrar.register(Instance::new(OURS, id, ADDRESS)?));
        self.registrations.last().ok_or_else(|| "just pushed".into())
    }

    /// Registers [`MANY`] and waits until all of them are in etcd.
    async fn register_many(&mut self) -> Result<(), Box<dyn Error>> {
        for at in 0..MANY {
            self.register(&id(at))?;
        }
        timeout(LIMIT, self.registered()).await.map_err(|_| "not registered within a minute")?;
        Ok(())
    }

    async fn registered(&self) {
        for registration in &self.registrations {
            // An error means that the registrar has ended, which only its last handle can make it do.
            let _ = registration.status().wait_for(|status| status.is_registered()).await;
        }
    }

    /// Says goodbye for all of them.
    async fn leave(self) -> Result<(), Box<dyn Error>> {
        let goodbyes = self.registrations.into_iter().map(|registration| registration.deregister(LIMIT));
        futures_util::future::try_join_all(goodbyes).await?;
        Ok(())
    }
}

/// Keys that etcd-client has put, on leases.
struct Raw {
    client: Client,
    leases: Vec<i64>,
}

impl Raw {
    fn new(client: Client) -> Raw {
        Raw { client, leases: Vec::new() }
    }

    /// Puts `keys` keys, `keys_per_lease` on each lease, at most [`AT_ONCE`] calls under way.
    async fn put_many(&mut self, keys: usize, keys_per_lease: usize) -> Result<(), Box<dyn Error>> {
        let client = self.client.clone();
        let grants = at_once(keys.div_ceil(keys_per_lease), move |_| {
            let mut client = client.clone();
            async move { Ok(client.lease_grant(TTL, None).await?.id()) }
        });
        self.leases = grants.await?;
        let (client, leases) = (self.client.clone(), Arc::new(self.leases.clone()));
        let puts = at_once(keys, move |at| {
            let (mut client, lease) = (client.clone(), leases[at / keys_per_lease]);
            async move { put(&mut client, at, lease).await }
        });
        puts.await.map(drop)
    }

    /// Revokes the leases, and with them the keys.
    async fn leave(self) -> Result<(), Box<dyn Error>> {
        let (client, leases) = (self.client, Arc::new(self.leases));
        let count = leases.len();
        let revokes = at_once(count, move |at| {
            let (mut client, lease) = (client.clone(), leases[at]);
            async move { client.lease_revoke(lease).await.map(drop) }
        });
        revokes.await.map(drop)
    }
}

/// `count` calls by [`AT_ONCE`] tasks, which take them in turn; their results in order.
async fn at_once<T, C, F>(count: usize, call: C) -> Result<Vec<T>, Box<dyn Error>>
where
    T: Send + 'static,
    C: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<T, etcd_client::Error>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    // Owned here; each ends when no calls are left, or with the first error.
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (next, call) = (next.clone(), call.clone());
        tasks.spawn(async move {
            let mut results = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                if at >= count {
                    return Ok::<_, etcd_client::Error>(results);
                }
                results.push((at, call(at).await?));
            }
        });
    }
    let mut results = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        results.extend(done??);
    }
    results.sort_unstable_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// One key of the contestant by hand.
async fn put(client: &mut Client, at: usize, lease: i64) -> Result<(), etcd_client::Error> {
    let key = format!("/services/{THEIRS}/{}", id(at));
    client.put(key, value(at), Some(PutOptions::new().with_lease(lease))).await.map(drop)
}

fn id(at: usize) -> String {
    format!("i-{at}")
}

/// A record as ours would be, field by field.
fn value(at: usize) -> Vec<u8> {
    let names = ServiceName::new(THEIRS).ok().zip(InstanceId::new(&id(at)).ok());
    let Some(((service, id), address)) = names.zip(ADDRESS.parse::<Address>().ok()) else {
        unreachable!("the constants are valid")
    };
    let mut record = Record::new(service, id, address);
    record.incarnation = Some(Incarnation(u64::MAX));
    record.started_at = Some(SystemTime::now());
    record.epoch = Some(Epoch(1_700_000_000_000));
    record.ttl_s = u32::try_from(TTL).ok();
    record.encode()
}
