//! The model test: a channel over HTTP/2 servers in memory, under a paused clock, while everything that can happen
//! does, at random: endpoints come, change, move and go; servers are slow, turn down, refuse, reset, fall silent, freeze,
//! send GOAWAY, die, let nobody in; calls of all kinds are made, cut, retried, hedged. A step is one such event.
//!
//! What must hold:
//! * no call reaches an endpoint that was removed before it began
//! * no call is sent to an ejected endpoint, unless too few are healthy (`health/outlier.rs`)
//! * a call that may not be repeated is processed at most once, others as often as their policy allows
//! * every call ends, none later than its deadline
//! * whatever happened, counts of calls in flight return to zero
//! * when the channel is dropped no task of its is left
//!
//! A life is a few thousand steps of one channel with settings of its own. `MODEL_SEED` repeats a run as far as hash maps
//! let it, `MODEL_STEPS` sets its length: the default, 100,000, takes about half a minute of one core in a debug build.
//! The endpoint set by itself, without connections, does a million steps in `channel/src/owner/core_model_tests.rs`.

mod calls;
mod world;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use svc_channel::{
    Channel, ChannelDump, Endpoint, EndpointState, LeastRequest, Load, OutlierDetection, PeakEwma, PickFirst,
    Picker, Policy, RoundRobin, Subchannel, WeightedRoundRobin,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tower::BoxError;
use tower::discover::Change;
use tower_service::Service;

use calls::{End, Plan};
use world::World;

const STEPS: u64 = 100_000;
const STEPS_OF_A_LIFE: u64 = 3_000;
/// Between two looks at the counts all calls are awaited.
const STEPS_BETWEEN_CALMS: u64 = 300;
const ENDPOINTS: usize = 8;
const MOST_CALLS: usize = 64;
/// By now every call has met its deadline, and every frozen server is awake.
const LONG: Duration = Duration::from_secs(30);

/// A policy, and the loads of all that it was ever shown.
struct Watched {
    inner: Box<dyn Policy>,
    loads: Loads,
}

type Loads = Arc<Mutex<Vec<Arc<Load>>>>;

impl Policy for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for subchannel in ready {
            if !loads.iter().any(|load| Arc::ptr_eq(load, subchannel.load())) {
                loads.push(subchannel.load().clone());
            }
        }
        self.inner.update(ready)
    }

    fn connects_all(&self) -> bool {
        self.inner.connects_all()
    }
}

type Found = Result<Change<u32, Endpoint>, BoxError>;

/// One channel and its world.
struct Life {
    rng: fastrand::Rng,
    step: u64,
    world: Arc<World>,
    channel: Channel,
    changes: mpsc::Sender<Found>,
    /// What discovery has, with every address that each had.
    endpoints: HashMap<u32, (Endpoint, Vec<String>)>,
    next_address: u32,
    loads: Loads,
    calls: JoinSet<End>,
    handles: Vec<AbortHandle>,
    made: u64,
    ends: HashMap<String, u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        // The channel's own generators are the thread's.
        fastrand::seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(fastrand::Rng::with_seed(seed ^ 1));
        let (changes, discover) = mpsc::channel(64);
        let loads = Loads::default();
        let inner: Box<dyn Policy> = match rng.u32(..5) {
            0 => Box::new(PeakEwma::new()),
            1 => Box::new(RoundRobin::new()),
            2 => Box::new(LeastRequest::new()),
            3 => Box::new(WeightedRoundRobin::new()),
            _ => Box::new(PickFirst::new()),
        };
        let mut outliers = OutlierDetection::default();
        outliers.base_ejection_time = Duration::from_millis(rng.u64(100..3_000));
        let mut builder = Channel::builder()
            .name("model")
            .policy(Watched { inner, loads: loads.clone() })
            .service_config(calls::CONFIG.parse().expect("a good config"))
            .outlier_detection(outliers)
            .connect_timeout(Duration::from_millis(500))
            .max_backoff(Duration::from_secs(2))
            .max_dials(rng.usize(1..6))
            .max_connections_per_endpoint(rng.usize(1..4))
            .connector(world.connector());
        if rng.u32(..3) == 0 {
            builder = builder.max_calls_in_flight(rng.usize(8..32)).max_calls_waiting(rng.usize(..8));
        }
        if rng.u32(..3) == 0 {
            builder = builder.replay_limit_per_call(rng.usize(..200_000)).replay_limit_per_channel(300_000);
        }
        Self {
            rng,
            step: 0,
            world,
            channel: builder.build(ReceiverStream::new(discover)),
            changes,
            endpoints: HashMap::new(),
            next_address: 1,
            loads,
            calls: JoinSet::new(),
            handles: Vec::new(),
            made: 0,
            ends: HashMap::new(),
        }
    }

    async fn run(mut self, steps: u64) -> (u64, u64, HashMap<String, u64>) {
        let mut calm_at = STEPS_BETWEEN_CALMS;
        while self.step < steps {
            self.step += 1;
            self.one_step().await;
            tokio::task::yield_now().await;
            while let Some(end) = self.calls.try_join_next() {
                self.ended(end);
            }
            if self.step >= calm_at {
                calm_at += STEPS_BETWEEN_CALMS;
                self.calm().await;
            }
        }
        self.calm().await;
        let (made, arrivals) = (self.made, self.world.arrivals());
        let ends = std::mem::take(&mut self.ends);
        drop(self);
        for _ in 0..100 {
            if Handle::current().metrics().num_alive_tasks() == 0 {
                return (made, arrivals, ends);
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("{} tasks are left", Handle::current().metrics().num_alive_tasks());
    }

    async fn one_step(&mut self) {
        match self.rng.u32(..100) {
            0..50 if self.calls.len() < MOST_CALLS => self.call(),
            0..55 => {
                if let Some(at) = self.rng.choice(0..self.handles.len()) {
                    self.handles.swap_remove(at).abort();
                }
            }
            55..58 => self.insert().await,
            58..60 => self.update().await,
            60..62 => self.remove().await,
            62..64 => self.readdress().await,
            64..75 => {
                if let Some((_, addresses)) = self.any_endpoint().and_then(|key| self.endpoints.get(&key))
                    && let Some(address) = self.rng.choice(addresses)
                {
                    self.world.stir(address);
                }
            }
            75..99 => sleep(Duration::from_millis(self.rng.u64(..40))).await,
            _ => sleep(Duration::from_millis(self.rng.u64(..5_000))).await,
        }
    }

    fn any_endpoint(&mut self) -> Option<u32> {
        let mut keys: Vec<_> = self.endpoints.keys().copied().collect();
        keys.sort_unstable();
        self.rng.choice(keys)
    }

    fn address(&mut self) -> String {
        self.next_address += 1;
        let address = format!("h:{}", self.next_address);
        self.world.serve(&address);
        address
    }

    async fn tell(&self, change: Change<u32, Endpoint>) {
        self.changes.send(Ok(change)).await.expect("the channel reads its discovery");
    }

    /// A new endpoint, or one that was there before and has moved.
    async fn insert(&mut self) {
        let key = self.rng.u32(..ENDPOINTS as u32);
        if self.endpoints.contains_key(&key) {
            return;
        }
        let address = self.address();
        let endpoint = Endpoint::new(&address).expect("an address").instance(format!("e{key}"));
        self.endpoints.insert(key, (endpoint.clone(), vec![address]));
        self.tell(Change::Insert(key, endpoint)).await;
    }

    async fn update(&mut self) {
        let Some(key) = self.any_endpoint() else { return };
        let weight = self.rng.u32(..300);
        let Some((endpoint, _)) = self.endpoints.get_mut(&key) else { return };
        *endpoint = endpoint.clone().weight(weight);
        let endpoint = endpoint.clone();
        self.tell(Change::Insert(key, endpoint)).await;
    }

    async fn readdress(&mut self) {
        let Some(key) = self.any_endpoint() else { return };
        let address = self.address();
        let Some((endpoint, addresses)) = self.endpoints.get_mut(&key) else { return };
        let moved = Endpoint::new(&address).expect("an address").instance(endpoint.instance.clone());
        *endpoint = moved.clone();
        addresses.push(address);
        self.tell(Change::Insert(key, moved)).await;
    }

    /// Calls that begin once the channel has seen it are noted by the servers.
    async fn remove(&mut self) {
        let Some(key) = self.any_endpoint() else { return };
        let Some((endpoint, addresses)) = self.endpoints.remove(&key) else { return };
        self.tell(Change::Remove(key)).await;
        while self.channel.dump().endpoints.iter().any(|e| e.instance == endpoint.instance) {
            tokio::task::yield_now().await;
        }
        self.step += 1; // calls before and after are told apart by their step
        for address in addresses {
            self.world.removed(&address, self.step);
        }
    }

    fn call(&mut self) {
        self.made += 1;
        let (request, plan): (_, Plan) = calls::draw(&mut self.rng, self.made, self.step);
        let before = self.channel.dump();
        let call = self.channel.call(request);
        let after = self.channel.dump();
        assert_picked(&before, &after);
        self.handles.retain(|handle| !handle.is_finished());
        self.handles.push(self.calls.spawn(calls::finish(call, plan)));
    }

    fn ended(&mut self, end: Result<End, tokio::task::JoinError>) {
        let end = match end {
            Ok(end) => format!("{end:?}"),
            Err(error) if error.is_cancelled() => "Aborted".into(),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// Every call ends, and then none is in flight.
    async fn calm(&mut self) {
        let all = async {
            while let Some(end) = self.calls.join_next().await {
                self.ended(end);
            }
        };
        assert!(tokio::time::timeout(LONG, all).await.is_ok(), "calls do not end");
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight: Vec<_> = loads.iter().map(|load| load.in_flight()).filter(|n| *n != 0).collect();
        assert_eq!(in_flight, [] as [u32; 0], "no call is in flight: {:#?}", self.channel.dump());
        assert_eq!(self.world.broken(), [] as [String; 0]);
    }
}

/// A call that was sent within `call` itself went to an endpoint that takes calls.
fn assert_picked(before: &ChannelDump, after: &ChannelDump) {
    let count = |state| before.endpoints.iter().filter(|e| e.state == state).count();
    let (healthy, ejected) = (count(EndpointState::Ready), count(EndpointState::Ejected));
    for (was, is) in before.endpoints.iter().zip(&after.endpoints) {
        if is.in_flight == was.in_flight {
            continue;
        }
        let panic = healthy * 100 < 50 * (healthy + ejected);
        let may = was.state == EndpointState::Ready
            || (was.state == EndpointState::Ejected && (healthy == 0 || panic));
        assert!(may, "a call was sent to {}: {before:#?}", was.instance);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_laws_hold() {
    let seed = variable("MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let steps = variable("MODEL_STEPS").unwrap_or(STEPS);
    println!("MODEL_SEED={seed} MODEL_STEPS={steps}");
    let (mut calls, mut arrivals, mut ends) = (0, 0, HashMap::<String, u64>::new());
    for number in 0..steps.div_ceil(STEPS_OF_A_LIFE) {
        println!("life {number}");
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = clock.expect("a runtime");
        let steps = STEPS_OF_A_LIFE.min(steps - number * STEPS_OF_A_LIFE);
        // Each life has a seed of its own: a later one can be run by itself.
        let life = runtime.block_on(async { Life::new(seed.wrapping_add(number)).run(steps).await });
        calls += life.0;
        arrivals += life.1;
        for (end, count) in life.2 {
            *ends.entry(end).or_default() += count;
        }
    }
    let mut ends: Vec<_> = ends.into_iter().collect();
    ends.sort();
    println!("{calls} calls, {arrivals} arrived at servers; they ended: {ends:?}");
    assert!(arrivals > calls / 4, "the servers were reached");
}
