//! Random histories under load: what happens to backends and to discovery is drawn from a seed, which a failure prints
//! (`SVC_SEED` repeats it). As long as nothing is cut no call may fail; when things are cut calls may fail, and
//! afterwards everything is as if nothing had been.

use std::time::Duration;

use svc_channel::Channel;
use svc_tests::backends::Fleet;
use tonic::Code;

use crate::load::Load;
use crate::support::{Changes, changing, endpoint, hello, until, until_idle, until_ready};

const BACKENDS: usize = 5;
const STEPS: usize = 60;

/// Names the history; a failing test shows it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SVC_SEED={} repeats this history", self.0);
        }
    }
}

fn seed() -> Seed {
    let given = std::env::var("SVC_SEED").ok().and_then(|seed| seed.parse().ok());
    Seed(given.unwrap_or_else(|| fastrand::u64(..)))
}

struct World {
    fleet: Fleet,
    changes: Changes,
    channel: Channel,
    rng: fastrand::Rng,
}

impl World {
    async fn new(seed: u64) -> World {
        let fleet = Fleet::start(BACKENDS).await;
        let (changes, discover) = changing();
        let channel = Channel::builder().max_backoff(Duration::from_millis(50)).build(discover);
        for backend in fleet.iter() {
            changes.insert(endpoint(backend.name(), &backend.address())).await;
        }
        until_ready(&channel, BACKENDS).await;
        World { fleet, changes, channel, rng: fastrand::Rng::with_seed(seed) }
    }

    fn any(&mut self) -> usize {
        self.rng.usize(..BACKENDS)
    }

    /// Something that is no failure: what an orderly operation of a fleet looks like.
    async fn orderly(&mut self) {
        let one = self.any();
        let (name, address) = (format!("b{one}"), self.fleet[one].address());
        match self.rng.u8(..7) {
            0 => self.fleet[one].goaway().await,
            1 => self.changes.insert(endpoint(&name, &address).weight(self.rng.u32(1..1_000))).await,
            2 => self.changes.insert(endpoint(&name, &address).zone("z").tag("version", "v2")).await,
            3 => {
                self.changes.remove(&name).await;
                self.changes.insert(endpoint(&name, &address)).await;
            }
            4 => {
                // An instance that moves to another's address and back.
                let other = self.any();
                self.changes.insert(endpoint(&name, &self.fleet[other].address())).await;
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..5))).await;
                self.changes.insert(endpoint(&name, &address)).await;
            }
            5 => {
                self.fleet[one].stop_gracefully().await;
                self.fleet[one].restart().await;
            }
            _ => {
                self.changes.remove(&name).await;
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..20))).await;
                self.changes.insert(endpoint(&name, &address)).await;
            }
        }
    }

    /// Something that costs calls.
    async fn harmful(&mut self) {
        let one = self.any();
        match self.rng.u8(..4) {
            0 => {
                self.fleet[one].stop().await;
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..30))).await;
                self.fleet[one].restart().await;
            }
            1 => {
                self.fleet[one].hold();
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..150))).await;
                self.fleet[one].release();
            }
            2 => self.fleet[one].set_fail_percent(self.rng.u32(..=100)),
            _ => {
                // All at once.
                for number in 0..BACKENDS {
                    self.fleet[number].stop().await;
                }
                for number in 0..BACKENDS {
                    self.fleet[number].restart().await;
                }
            }
        }
    }

    /// Everything is as in the beginning, and nothing is left of what was.
    async fn settled(self) {
        for backend in self.fleet.iter() {
            backend.set_fail_percent(0);
            backend.set_delay(Duration::ZERO);
            backend.release();
            self.changes.insert(endpoint(backend.name(), &backend.address())).await;
        }
        until(&self.channel, |dump| {
            dump.endpoints.len() == BACKENDS
                && dump.endpoints.iter().all(|e| {
                    e.state == svc_channel::EndpointState::Ready
                        || e.state == svc_channel::EndpointState::Ejected
                })
        })
        .await;
        hello(&self.channel).await.expect("it works");
        until_idle(&self.channel).await;
        for backend in self.fleet.iter() {
            backend.until(|counts| counts.open == 0 && counts.connections == 1).await;
        }
        drop((self.channel, self.changes));
        for backend in self.fleet.iter() {
            backend.until(|counts| counts.connections == 0).await;
        }
    }
}

#[tokio::test]
async fn an_orderly_history_fails_no_call() {
    let seed = seed();
    let mut world = World::new(seed.0).await;
    for backend in world.fleet.iter() {
        backend.set_delay(Duration::from_millis(2));
    }
    let load = Load::start(&world.channel, 8, None);
    for _ in 0..STEPS {
        world.orderly().await;
        load.more(world.rng.u64(..10)).await;
    }
    load.finish_unharmed().await;
    world.settled().await;
}

#[tokio::test]
async fn after_a_harmful_history_everything_works_and_nothing_is_left_in_flight() {
    let seed = seed();
    let mut world = World::new(seed.0).await;
    let load = Load::start(&world.channel, 8, Some(Duration::from_millis(500)));
    for _ in 0..STEPS {
        if world.rng.bool() {
            world.orderly().await;
        } else {
            world.harmful().await;
        }
        tokio::time::sleep(Duration::from_millis(world.rng.u64(..20))).await;
    }
    let tally = load.finish().await;
    println!("{} calls, {} failed", tally.ok, tally.failed.len());
    for (code, message) in &tally.failed {
        assert!(matches!(code, Code::Unavailable | Code::DeadlineExceeded), "{code:?}: {message}");
    }
    world.settled().await;
}
