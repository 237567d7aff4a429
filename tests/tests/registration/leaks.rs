//! What comes and goes leaves nothing behind: tasks, leases, watches, memory.

use std::time::{Duration, Instant};

use svc_tests::etcd::TestEtcd;
use svc_tests::process::Process;

use crate::support::{LONG, Look, watches};

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

async fn until_watched(etcd: &TestEtcd) {
    let begin = Instant::now();
    loop {
        let now = watches(etcd).await;
        if now == WATCHES {
            return;
        }
        assert!(begin.elapsed() < LONG, "{now} watches, not {WATCHES}");
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
        until_watched(&etcd).await;
        let before = stats(&mut process);
        for _ in 0..2 {
            process.ask("cycle 500");
            until_watched(&etcd).await;
        }
        let after = settled(&mut process, before.tasks + OWN_TASKS).await;
        println!("1,000 cycles: {} to {} tasks, {} to {} KiB", before.tasks, after.tasks, before.kib, after.kib);
        assert!(after.tasks <= before.tasks + OWN_TASKS, "{} tasks, {} before", after.tasks, before.tasks);
        assert!(after.kib <= before.kib + SLACK, "{} KiB, {} before", after.kib, before.kib);
        assert_eq!(look.leases().await, 1);
        assert!(look.get("/services/greeter/i-0").await.is_some());
    }

    async fn leak_1_a_hundred_failed_connects_leave_nothing(etcd: TestEtcd) {
        let mut process = Process::spawn(env!("CARGO_BIN_EXE_instances"), &[&etcd.url(), "i", "1", TTL]);
        until_watched(&etcd).await;
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
