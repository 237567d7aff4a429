//! What comes and goes leaves nothing behind: tasks, leases, watches, memory.

use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use futures_util::StreamExt;
use svc_registry::catalog::{Catalog, CatalogEvent, Selector};
use svc_registry::{Registrar, ServiceName};
use svc_tests::etcd::TestEtcd;
use svc_tests::process::Process;

use crate::support::{LONG, Look, connect, registered, watches};

/// Seconds; a goodbye is followed up for as long.
const TTL: &str = "2";

/// What a thousand cycles may add to the resident memory, in KiB: less than half a KiB a cycle.
const SLACK: u64 = 512;

/// A process's connections to etcd come and go by themselves, each with a task or two.
const OWN_TASKS: u64 = 5;

/// An instance's two keys, and the intents.
const WATCHES: u64 = 3;

struct Stats {
    tasks: u64,
    kib: u64,
}

fn stats(process: &mut Process) -> Stats {
    let answer = process.ask("stats");
    let mut numbers = answer.split(' ').map(|number| number.parse().expect("a number"));
    Stats { tasks: numbers.next().expect("tasks"), kib: numbers.next().expect("memory") }
}

/// Once the tasks have come down to `tasks`, or when that takes too long.
async fn settled(process: &mut Process, tasks: u64) -> Stats {
    let begin = Instant::now();
    loop {
        let now = stats(process);
        if now.tasks <= tasks || begin.elapsed() > LONG {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_watched(etcd: &TestEtcd, wanted: u64) {
    let begin = Instant::now();
    loop {
        let now = watches(etcd).await;
        if now == wanted {
            return;
        }
        assert!(begin.elapsed() < LONG, "{now} watches, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

svc_tests::etcd_tests! {
    async fn leak_1_a_thousand_registrations_and_goodbyes_leave_nothing(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        // One instance stays, so that its lease does and goodbyes are followed up.
        let mut process = Process::spawn(env!("CARGO_BIN_EXE_instances"), &[&etcd.url(), "i", "1", TTL]);
        // What is allocated once, and kept for the next time, is no leak.
        process.ask("cycle 300");
        until_watched(&etcd, WATCHES).await;
        let before = stats(&mut process);
        for _ in 0..2 {
            process.ask("cycle 500");
            until_watched(&etcd, WATCHES).await;
        }
        let after = settled(&mut process, before.tasks + OWN_TASKS).await;
        println!("1,000 cycles: {} to {} tasks, {} to {} KiB", before.tasks, after.tasks, before.kib, after.kib);
        assert!(after.tasks <= before.tasks + OWN_TASKS, "{} tasks, {} before", after.tasks, before.tasks);
        assert!(after.kib <= before.kib + SLACK, "{} KiB, {} before", after.kib, before.kib);
        assert_eq!(look.leases().await, 1);
        assert!(look.get("/services/greeter/i-0").await.is_some());
    }

    /// etcd keeps a watch that fell behind a compaction in its books until it is cancelled, or its stream ends.
    async fn leak_1_watches_that_fell_behind_a_compaction_are_cancelled(etcd: TestEtcd) {
        let link = Proxy::start(etcd.address()).await.expect("a free port");
        let registry = connect(&link.url());
        let registrar = Registrar::new(&registry);
        let registration = registered(&registrar, "i-1").await;
        let catalog = Catalog::new(&registry);
        let greeter = Selector::service(ServiceName::new("greeter").expect("a name"));
        let mut events = catalog.watch(greeter);
        assert!(matches!(events.next().await, Some(CatalogEvent::Snapshot(_))));
        until_watched(&etcd, WATCHES + 1).await;
        for _ in 0..3 {
            // All watches wait for changes of their own, at a revision that is compacted when they go on.
            link.set(Mode::Blackhole);
            let mut client = etcd.client().await;
            let mut revision = 0;
            for _ in 0..10 {
                let put = client.put("/elsewhere", "x", None).await.expect("etcd is up");
                revision = put.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            client.compact(revision, None).await.expect("etcd is up");
            link.set(Mode::Reset);
            tokio::time::sleep(Duration::from_millis(50)).await;
            link.set(Mode::Pass);
            // It writes, and is seen: the watches are new ones.
            let zone = format!("zone-{revision}");
            registration.update(|instance| instance.set_zone(Some(&zone)));
            let seen = async {
                while !format!("{:?}", events.next().await).contains(&zone) {}
            };
            tokio::time::timeout(LONG, seen).await.expect("the update is seen");
            until_watched(&etcd, WATCHES + 1).await;
        }
    }

    async fn leak_1_a_hundred_failed_connects_leave_nothing(etcd: TestEtcd) {
        let mut process = Process::spawn(env!("CARGO_BIN_EXE_instances"), &[&etcd.url(), "i", "1", TTL]);
        until_watched(&etcd, WATCHES).await;
        let tasks = stats(&mut process).tasks + OWN_TASKS;
        process.ask("fail 20");
        let before = settled(&mut process, tasks).await;
        process.ask("fail 100");
        let after = settled(&mut process, before.tasks + OWN_TASKS).await;
        println!("100 failed connects: {} to {} tasks, {} to {} KiB", before.tasks, after.tasks, before.kib, after.kib);
        assert!(after.tasks <= before.tasks + OWN_TASKS, "{} tasks, {} before", after.tasks, before.tasks);
        assert!(after.kib <= before.kib + SLACK, "{} KiB, {} before", after.kib, before.kib);
    }
}
