//! `make soak MINUTES=n`: 200 instances in ten processes, on a real cluster of three, through everything that can happen to
//! them: kills, stops, freezes, links, members, leaders, foreign hands. Whenever all is well again the set in etcd is the
//! set alive, and at the end nothing has grown.
//!
//! ```text
//! this file: how much, for how long -> world: one thing happens, or all is well -> report: the figures at rest
//! ```
//! `SOAK_SEED` plays the same order of events again, as far as real processes and times allow.

mod report;
mod world;

use std::time::{Duration, Instant};

use svc_tests::etcd::{Cluster, Kind, run_cluster, run_cluster_within};

use self::report::Report;
use self::world::World;

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    processes: usize,
    /// Instances of a process.
    each: usize,
    /// Processes that are never killed, stopped or frozen: what they hold in the last third is compared with what they
    /// held in the first.
    witnesses: usize,
    /// How long things happen for; what it takes until all is well again comes on top.
    time: Duration,
    /// How often all is made well, and looked at.
    rests: u32,
    seed: u64,
}

fn given<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

async fn play(cluster: Cluster, plan: Plan) -> Report {
    println!("soak: SOAK_SEED={}, {} s, {} rests", plan.seed, plan.time.as_secs(), plan.rests);
    let mut world = World::new(cluster, plan).await;
    let mut report = Report::default();
    let (mut happened, every) = (Duration::ZERO, plan.time / plan.rests);
    for rest in 1..=plan.rests {
        while happened < every * rest {
            let begin = Instant::now();
            let what = world.step().await;
            report.happened(what);
            happened += begin.elapsed();
        }
        world.heal().await;
        let took = world.settles().await;
        report.rest(world.at_rest(took).await);
    }
    report
}

#[test]
#[ignore = "as long as one likes: make soak MINUTES=n"]
fn soak() {
    let minutes: f64 = given("SOAK_MINUTES").unwrap_or(1.0);
    let seed = given("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = Duration::from_secs_f64(minutes * 60.0);
    // Rests are seldom enough for what happens to pile up, and often enough for two thirds to be compared.
    let rests = (time.as_secs() / 10).clamp(6, 30) as u32;
    let plan = Plan { processes: 10, each: 20, witnesses: 2, time, rests, seed };
    // Each rest may take two minutes on a busy machine, and fails by itself if it takes longer.
    let limit = time * 2 + Duration::from_secs(600);
    run_cluster_within(limit, Kind::Etcd35, async move |cluster| {
        let version = cluster.version();
        let report = Box::pin(play(cluster, plan)).await;
        println!(
            "\nsoak: {} instances in {} processes, etcd {version} of three members, {minutes} min, SOAK_SEED={seed}\n{report}",
            plan.processes * plan.each,
            plan.processes,
        );
        report.is_flat();
    });
}

/// The same order of events each time: what it finds besides is the long one's to find.
#[test]
fn the_set_in_etcd_is_the_set_alive_whatever_happens_to_processes_links_and_members() {
    let seed = given("SOAK_SEED").unwrap_or(5);
    let plan = Plan { processes: 4, each: 10, witnesses: 1, time: Duration::from_secs(6), rests: 2, seed };
    run_cluster(Kind::Etcd35, async move |cluster| {
        println!("{}", Box::pin(play(cluster, plan)).await);
    });
}
