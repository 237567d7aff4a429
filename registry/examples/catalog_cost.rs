//! What a change costs a follower among few and among many instances, on the embedded etcd in memory:
//! `cargo run --release -p svc-registry --example catalog_cost`
//!
//! It prints how long the first snapshot took, and how long a change took from its put to the follower. Both include
//! etcd's part; the second is to stay flat.

use std::time::{Duration, Instant};

use embedded_etcd::EmbeddedEtcd;
use futures_util::StreamExt;
use svc_channel::{BoxIo, connector_fn};
use svc_registry::catalog::{Catalog, CatalogEvent, Selector};
use svc_registry::{Etcd, EtcdConfig, InstanceId, Record, ServiceName, Weight};

const CHANGES: u32 = 2_000;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:>9}  {:>10}  {:>10}", "instances", "snapshot", "a change");
    for count in [10, 100, 1_000, 10_000] {
        let (snapshot, change) = measure(count).await?;
        println!("{count:>9}  {snapshot:>10.1?}  {change:>10.1?}");
    }
    Ok(())
}

async fn measure(count: u32) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let server = EmbeddedEtcd::start().await;
    let dialer = server.dialer();
    let connector = connector_fn(move |_| {
        let dialer = dialer.clone();
        async move { Ok(Box::new(dialer.dial().await?) as BoxIo) }
    });
    let etcd = Etcd::new(EtcdConfig::default().with_connector(connector))?;
    let (service, mut client) = (ServiceName::new("greeter")?, server.client().await?);
    let key = |n: u32| format!("/services/greeter/i-{n}");
    for n in 0..count {
        client.put(key(n), record(&service, n, 100)?, None).await?;
    }

    let begun = Instant::now();
    let mut events = Catalog::new(&etcd).watch(Selector::service(service.clone()));
    let Some(CatalogEvent::Snapshot(all)) = events.next().await else {
        return Err("a snapshot comes first".into());
    };
    let snapshot = begun.elapsed();
    assert_eq!(all.instances.len(), count as usize, "everything is listed");

    let begun = Instant::now();
    for change in 0..CHANGES {
        let n = change % count;
        // Another weight in each round: a put that changes nothing is no event.
        client.put(key(n), record(&service, n, 101 + change / count)?, None).await?;
        events.next().await;
    }
    Ok((snapshot, begun.elapsed() / CHANGES))
}

fn record(service: &ServiceName, n: u32, weight: u32) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let address = format!("10.{}.{}.1:50051", n / 250, n % 250).parse()?;
    let mut record = Record::new(service.clone(), InstanceId::new(&format!("i-{n}"))?, address);
    record.weight = Weight::new(weight).unwrap_or_default();
    record.zone = Some("a".into());
    Ok(record.encode())
}
