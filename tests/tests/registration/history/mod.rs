//! Random histories of many processes over a few ids: registered, taken over, crashed, restarted, drained, deleted by others,
//! cut off; and etcd killed, wiped, compacted. However it went, once all is well again a model of ten lines (`model.rs`)
//! says what has to stand in etcd, and nothing else stands there.
//!
//! Each history follows from its seed as far as times allow. A failing one names it, and `HISTORY_SEED=<seed>` plays it
//! again, alone.

mod model;
mod place;
mod play;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use svc_tests::etcd::{Kind, TestEtcd};

use self::place::Place;
use self::play::{Plan, Play};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// On the embedded etcd, under a paused clock.
const EMBEDDED: Plan = Plan {
    steps: 250,
    judged_every: 50,
    ids: 10,
    processes: 4,
    ttl: Duration::from_secs(2),
    pauses: &[ms(0), ms(0), ms(1), ms(10), ms(50), ms(300), ms(1_500)],
};

/// How many steps that are in all; `HISTORY_STEPS` says another number, and `make histories` 10^5.
const STEPS: usize = 10_000;

/// On a real 3.4 and on a real 3.5: 1,000 steps.
const REAL: Plan = Plan {
    steps: 500,
    judged_every: 125,
    ids: 25,
    processes: 12,
    ttl: Duration::from_secs(1),
    pauses: &[ms(0), ms(0), ms(1), ms(5), ms(20), ms(60)],
};

/// The one seed that is to be played again.
fn given() -> Option<u64> {
    std::env::var("HISTORY_SEED").ok().and_then(|seed| seed.parse().ok())
}

fn embedded(seed: u64) -> BTreeMap<String, usize> {
    // What the code itself draws on this thread, such as its jitter, follows from the seed too.
    fastrand::seed(seed);
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    clock.expect("a runtime").block_on(async {
        let place = Place::Memory(EmbeddedEtcd::start().await);
        let mut play = Box::pin(Play::new(place, EMBEDDED, seed)).await;
        Box::pin(play.run()).await;
        std::mem::take(&mut play.counts)
    })
}

async fn real(etcd: TestEtcd) {
    let seed = given().unwrap_or_else(|| fastrand::u64(..));
    println!("{}: HISTORY_SEED={seed}", etcd.kind());
    let mut play = Play::new(Place::Real(etcd), REAL, seed).await;
    play.run().await;
    println!("{:?}", play.counts);
}

#[test]
fn whatever_happened_the_model_says_what_stands_embedded() {
    let steps = std::env::var("HISTORY_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(STEPS);
    let seeds = given().map_or(0..steps.div_ceil(EMBEDDED.steps) as u64, |seed| seed..seed + 1);
    let (next, counts) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::<String, usize>::new()));
    let play = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        let happened = embedded(seed);
        let mut counts = counts.lock().expect("nobody panics while counting");
        happened.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    };
    // Each history is played by one thread, and says nothing of the others.
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(play);
        }
    });
    println!("embedded etcd: {seeds:?}: {:?}", counts.into_inner().expect("nobody panicked"));
}

#[test]
fn whatever_happened_the_model_says_what_stands_etcd_3_4() {
    svc_tests::etcd::run(Kind::Etcd34, &Default::default(), real);
}

#[test]
fn whatever_happened_the_model_says_what_stands_etcd_3_5() {
    svc_tests::etcd::run(Kind::Etcd35, &Default::default(), real);
}
