//! Random histories against the model: whatever happened, in the end subscribers see what etcd holds.

use std::time::Duration;

use super::fake::{Sim, range};

const HISTORIES: u64 = 150;
const STEPS: usize = 200;

/// One random thing happens to etcd, the link, the subscribers or the clock.
fn step(sim: &mut Sim, random: &mut fastrand::Rng) {
    let n = random.u16(..30);
    match random.u8(..100) {
        0..30 => sim.etcd.put(n, ["a", "b", "c"][random.usize(..3)]),
        30..45 => sim.etcd.delete(n),
        45..65 => {
            sim.hear_one();
        }
        65..85 => {
            sim.read_one();
        }
        85..88 => sim.cut(),
        88..90 => sim.etcd.compact(),
        90..92 => sim.etcd.away = !sim.etcd.away,
        92 => {
            // Wiped, and sometimes grown past where it was before anybody looks.
            sim.wipe(random.i64(1..));
            (0..random.u16(..400)).for_each(|n| sim.etcd.put(n % 30, "w"));
        }
        93 => sim.etcd.delete_all(),
        94 => sim.etcd.fragment = random.usize(1..4),
        95 => sim.etcd.page = random.usize(1..9),
        96 => sim.replay(1),
        97 => sim.unsubscribe(range(n % 3)),
        98 => sim.subscribe(range(n % 3)),
        _ => sim.tick(Duration::from_secs(3)),
    }
}

#[test]
fn whatever_happened_subscribers_see_what_etcd_holds() {
    let seed = std::env::var("SVC_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(0..HISTORIES, |seed| seed..seed + 1) {
        println!("SVC_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sim = Sim::new();
        for n in 0..3 {
            sim.subscribe(range(n));
        }
        for _ in 0..STEPS {
            step(&mut sim, &mut random);
        }
        sim.etcd.away = false;
        (0..3).for_each(|n| sim.subscribe(range(n)));
        // Longer than anything is held.
        sim.wait(Duration::from_secs(90));
        sim.assert_exact();
    }
}
