//! Plays a history: draws what happens from a seed, does it, and now and then lets everything be well and compares etcd with
//! the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::{Client, CompactionOptions, Error, GetOptions, KeyValue};
use svc_registry::intent::{DrainIntent, Then};
use svc_registry::{Instance, Registrar, RegistrarConfig, Registration, RegistrationStatus};
use tokio::time::Instant;

use super::model::{Model, Number, Step};
use super::place::{Link, Place, State};
use crate::support::value;

/// What a history is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Things that happen; those that could not happen where they were drawn do not count.
    pub(super) steps: usize,
    /// After so many, and at the end, all is made well and judged.
    pub(super) judged_every: usize,
    pub(super) ids: usize,
    pub(super) processes: usize,
    /// Of the leases; whole seconds.
    pub(super) ttl: Duration,
    /// Between two steps, one of these.
    pub(super) pauses: &'static [Duration],
}

/// How long etcd and all processes may take until what has to stand stands.
const LIMIT: Duration = Duration::from_secs(90);

/// How often it is looked at meanwhile: a part of the TTL.
const LOOKS: u32 = 2;

struct Process {
    link: Link,
    /// `None`: crashed.
    registrar: Option<Registrar>,
    incarnation: String,
    handles: BTreeMap<usize, Registration>,
}

impl Process {
    fn lives(&self) -> bool {
        self.registrar.is_some()
    }

    /// SIGKILL, as etcd sees it: nothing is heard of it any more. Its tasks end, without a word.
    fn crash(&mut self) -> Vec<usize> {
        self.link.set(State::Cut);
        self.registrar = None;
        let mut ids = Vec::new();
        for (id, handle) in std::mem::take(&mut self.handles) {
            ids.push(id);
            // Ends at once, by its deadline; etcd cannot be told.
            tokio::spawn(handle.deregister(Duration::ZERO));
        }
        ids
    }
}

/// A record as it stands.
#[derive(Debug)]
struct Standing {
    draining: bool,
    lease: i64,
    record: serde_json::Value,
}

pub(super) struct Play {
    place: Place,
    client: Client,
    plan: Plan,
    seed: u64,
    random: fastrand::Rng,
    up: bool,
    processes: Vec<Process>,
    models: Vec<Model>,
    last_start: std::time::Instant,
    begin: Instant,
    log: Vec<(Duration, String)>,
    /// How often what happened.
    pub(super) counts: BTreeMap<String, usize>,
}

impl Play {
    pub(super) async fn new(place: Place, plan: Plan, seed: u64) -> Play {
        Play {
            client: place.client().await,
            place,
            plan,
            seed,
            random: fastrand::Rng::with_seed(seed),
            up: true,
            processes: Vec::new(),
            models: vec![Model::default(); plan.ids],
            last_start: std::time::Instant::now(),
            begin: Instant::now(),
            log: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) async fn run(&mut self) {
        let mut done = 0;
        while done < self.plan.steps {
            let happened = self.step().await;
            done += happened;
            if happened > 0 && (done.is_multiple_of(self.plan.judged_every) || done == self.plan.steps) {
                self.judge().await;
            }
        }
    }

    /// Draws what is to happen, does as much of it as can happen, and says how much that was. The same numbers are
    /// drawn whatever has come of those before.
    async fn step(&mut self) -> usize {
        let (what, whom, which) = (self.random.u8(..64), self.random.usize(..), self.random.usize(..));
        let pause = self.plan.pauses[self.random.usize(..self.plan.pauses.len())];
        let living: Vec<Number> =
            (0..self.processes.len()).filter(|number| self.processes[*number].lives()).collect();
        let id = which % self.plan.ids;
        let happened = if what < 2 || living.is_empty() {
            if living.len() < self.plan.processes { self.start(&[id]).await } else { 0 }
        } else {
            let process = living[whom % living.len()];
            let held: Vec<usize> = self.processes[process].handles.keys().copied().collect();
            let one = (!held.is_empty()).then(|| held[which % held.len()]);
            match what {
                2..16 => usize::from(self.register(process, id)),
                16 => self.crash(process).len().max(1),
                17 | 18 => {
                    let ids = self.crash(process);
                    1 + self.start(&ids).await
                }
                19..24 => usize::from(one.is_some_and(|id| self.goodbye(process, id))),
                24..28 => usize::from(one.is_some_and(|id| self.update(process, id, whom))),
                28..34 => self.drain(Some(id), wish(whom)).await,
                34..42 => self.drain(Some(id), None).await,
                42 => self.drain(None, wish(whom)).await,
                43..46 => self.drain(None, None).await,
                46..51 => self.foreign_delete(id, whom % 4 == 0).await,
                51..55 => self.foreign_put(id, whom % 4 == 0).await,
                55 => self.revoke(whom).await,
                56 => self.compact().await,
                57 => self.link(process, State::Silent),
                58 => self.link(process, State::Cut),
                59 | 60 => self.link(process, State::Well),
                61 => self.outage(which % 4 == 0).await,
                _ => self.back().await,
            }
        };
        tokio::time::sleep(pause).await;
        happened
    }

    fn note(&mut self, id: Option<usize>, step: Step) {
        let name = format!("{step:?}");
        let kind = name.split('(').next().unwrap_or_default().to_owned();
        *self.counts.entry(kind).or_default() += 1;
        let line = id.map_or_else(|| name.clone(), |id| format!("i-{id} {name}"));
        self.log.push((self.begin.elapsed(), line));
        let models = match id {
            Some(id) => &mut self.models[id..=id],
            None => &mut self.models[..],
        };
        models.iter_mut().for_each(|model| model.apply(step));
    }

    // Processes.

    /// Starts another process, which registers these ids; how many of them it could.
    async fn start(&mut self, ids: &[usize]) -> usize {
        // Who is newer is told by the milliseconds of starts, which a paused clock does not hold up.
        while self.last_start.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        self.last_start = std::time::Instant::now();
        let link = self.place.link().await;
        let notice = Duration::from_millis(100);
        let registrar = Registrar::with_config(&link.etcd(), RegistrarConfig { ttl: self.plan.ttl, notice })
            .expect("a valid configuration");
        let incarnation = registrar.incarnation().to_string();
        let handles = BTreeMap::new();
        self.processes.push(Process { link, registrar: Some(registrar), incarnation, handles });
        let process = self.processes.len() - 1;
        ids.iter().filter(|id| self.register(process, **id)).count()
    }

    fn status(&self, process: Number, id: usize) -> Option<RegistrationStatus> {
        self.processes[process].handles.get(&id).map(|handle| handle.status().borrow().clone())
    }

    /// Only where it is known who of all is the newest: after every other one that has the id, and has had it.
    fn register(&mut self, process: Number, id: usize) -> bool {
        use RegistrationStatus::{Deregistered, Registering, Removed};
        let behind = |other: &Number| {
            let status = self.status(*other, id);
            *other < process && !matches!(status, Some(Registering { .. } | Removed { .. } | Deregistered))
        };
        let Some(registrar) = self.processes[process].registrar.as_ref() else { return false };
        if !self.models[id].alive.iter().all(behind) {
            return false;
        }
        let address = format!("10.0.0.{}:50051", process % 250 + 1);
        let instance = Instance::new("greeter", &format!("i-{id}"), &address).expect("valid");
        let handle = registrar.register(instance);
        self.processes[process].handles.insert(id, handle);
        self.note(Some(id), Step::Register(process));
        true
    }

    fn crash(&mut self, process: Number) -> Vec<usize> {
        let ids = self.processes[process].crash();
        self.note(None, Step::Crash(process));
        ids
    }

    fn goodbye(&mut self, process: Number, id: usize) -> bool {
        let Some(handle) = self.processes[process].handles.remove(&id) else { return false };
        // Ends by its deadline; whether etcd could be told shows in the end.
        tokio::spawn(handle.deregister(self.plan.ttl / 4));
        self.note(Some(id), Step::Goodbye(process));
        true
    }

    fn update(&mut self, process: Number, id: usize, zone: usize) -> bool {
        let Some(handle) = self.processes[process].handles.get(&id) else { return false };
        handle.update(|instance| instance.set_zone(Some(&format!("z{zone}"))));
        self.note(Some(id), Step::Update(process));
        true
    }

    fn link(&mut self, process: Number, state: State) -> usize {
        self.processes[process].link.set(state);
        self.note(
            None,
            match state {
                State::Well => Step::Heal(process),
                State::Silent => Step::Silence(process),
                State::Cut => Step::Cut(process),
            },
        );
        1
    }

    // Others, who speak to etcd as long as it is up.

    async fn drain(&mut self, id: Option<usize>, wish: Option<Then>) -> usize {
        let name = id.map_or_else(|| "*".to_owned(), |id| format!("i-{id}"));
        let key = format!("/services-control/drain/greeter/{name}");
        let value = wish.map(|then| DrainIntent::new("a test", "a test").then(then).encode());
        let told = match value {
            Some(value) => self.tell(async |mut etcd| etcd.put(&*key, &*value, None).await.map(drop)).await,
            None => self.tell(async |mut etcd| etcd.delete(&*key, None).await.map(drop)).await,
        };
        if told {
            self.note(id, if id.is_some() { Step::Drain(wish) } else { Step::DrainAll(wish) });
        }
        usize::from(told)
    }

    async fn foreign_delete(&mut self, id: usize, draining: bool) -> usize {
        let key = key(id, draining);
        let told = self.tell(async |mut etcd| etcd.delete(&*key, None).await.map(drop)).await;
        if told {
            self.note(Some(id), Step::ForeignDelete);
        }
        usize::from(told)
    }

    async fn foreign_put(&mut self, id: usize, draining: bool) -> usize {
        let key = key(id, draining);
        let told = self.tell(async |mut etcd| etcd.put(&*key, "10.9.9.9:1", None).await.map(drop)).await;
        if told {
            self.note(Some(id), Step::ForeignPut);
        }
        usize::from(told)
    }

    async fn revoke(&mut self, which: usize) -> usize {
        let told = self
            .tell(async |mut etcd| {
                let leases = etcd.leases().await?;
                match leases.leases() {
                    [] => Ok(()),
                    leases => {
                        // It may have run out meanwhile.
                        let _ = etcd.lease_revoke(leases[which % leases.len()].id()).await;
                        Ok(())
                    }
                }
            })
            .await;
        if told {
            self.note(None, Step::Revoke);
        }
        usize::from(told)
    }

    async fn compact(&mut self) -> usize {
        let told = self
            .tell(async |mut etcd| {
                let revision = etcd.get("any", None).await?.header().map_or(0, |header| header.revision());
                // Refused where it is compacted up to there already.
                let _ = etcd.compact(revision, Some(CompactionOptions::new())).await;
                Ok(())
            })
            .await;
        if told {
            self.note(None, Step::Compact);
        }
        usize::from(told)
    }

    /// Does something to etcd, from outside our code; `false` while it is down.
    async fn tell(&self, what: impl AsyncFn(Client) -> Result<(), Error>) -> bool {
        if self.up {
            self.ask(what).await;
        }
        self.up
    }

    /// The same for an etcd that is up. A client that lost it a moment ago needs another one to find it again.
    async fn ask<T>(&self, what: impl AsyncFn(Client) -> Result<T, Error>) -> T {
        let begin = Instant::now();
        loop {
            let error = match tokio::time::timeout(Duration::from_secs(5), what(self.client.clone())).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            assert!(begin.elapsed() < LIMIT, "etcd is up and does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    // etcd.

    async fn outage(&mut self, wiped: bool) -> usize {
        if !self.up {
            return 0;
        }
        self.place.kill().await;
        self.up = false;
        self.note(None, Step::Outage);
        if wiped {
            self.place.wipe().await;
            self.note(None, Step::Wipe);
        }
        1
    }

    async fn back(&mut self) -> usize {
        if self.up {
            return 0;
        }
        self.place.start().await;
        self.up = true;
        self.note(None, Step::Back);
        1
    }

    // The end.

    /// All is well again: what has to stand then, and that nothing is written any more.
    async fn judge(&mut self) {
        self.back().await;
        for process in self.processes.iter().filter(|process| process.lives()) {
            process.link.set(State::Well);
        }
        self.log.push((self.begin.elapsed(), "all is made well".to_owned()));
        let (begin, look) = (Instant::now(), self.plan.ttl / LOOKS);
        let mut calm: Option<(Instant, i64)> = None;
        loop {
            let (revision, problem) = self.problem().await;
            match (problem, calm) {
                (Some(problem), _) => {
                    calm = None;
                    assert!(begin.elapsed() < LIMIT, "{problem}");
                }
                (None, Some((since, at))) if at == revision => {
                    // As long as a lease could still run out that nobody knows of.
                    if since.elapsed() > self.plan.ttl + Duration::from_secs(1) {
                        return;
                    }
                }
                (None, _) => {
                    assert!(begin.elapsed() < LIMIT, "no rest: something is written on and on");
                    calm = Some((Instant::now(), revision));
                }
            }
            tokio::time::sleep(look).await;
        }
    }

    /// etcd's revision, and what is not as it has to be.
    async fn problem(&mut self) -> (i64, Option<String>) {
        let all = GetOptions::new().with_prefix();
        let found = self.ask(async |mut etcd| etcd.get("/services", Some(all.clone())).await).await;
        let leases = self.ask(async |mut etcd| etcd.leases().await).await.leases().len();
        let revision = found.header().map_or(0, |header| header.revision());
        let mut standing: BTreeMap<usize, Vec<Standing>> = BTreeMap::new();
        for (id, record) in found.kvs().iter().filter_map(parse) {
            standing.entry(id).or_default().push(record);
        }
        let mut problem = None;
        let mut holders: BTreeSet<Number> = BTreeSet::new();
        for id in 0..self.plan.ids {
            for process in self.models[id].alive.clone() {
                if matches!(self.status(process, id), Some(RegistrationStatus::Superseded { .. })) {
                    self.models[id].superseded(process);
                    self.processes[process].handles.remove(&id);
                }
            }
            holders.extend(&self.models[id].alive);
            let records = standing.remove(&id).unwrap_or_default();
            if let Err(why) = self.compare(id, &records) {
                problem = Some(format!("i-{id}: {why}; {:?}; {records:?}", self.models[id]));
            }
        }
        if leases != holders.len() {
            problem = problem.or(Some(format!("{leases} leases for {holders:?}")));
        }
        (revision, problem)
    }

    fn compare(&self, id: usize, records: &[Standing]) -> Result<(), String> {
        let model = &self.models[id];
        match model.expected() {
            (None, _) => {
                // A plain one has no owner: with nobody alive nobody puts it right.
                let left = records.iter().filter(|record| record.lease != 0).count();
                (left == 0).then_some(()).ok_or_else(|| "a record outlives its owner".to_owned())
            }
            (Some(_), None) => {
                let away = |process: &Number| {
                    matches!(self.status(*process, id), Some(RegistrationStatus::Removed { .. }))
                };
                if !model.alive.iter().all(away) {
                    return Err("not removed".to_owned());
                }
                let ours = records.iter().filter(|record| record.record["incarnation"].is_string()).count();
                (ours == 0).then_some(()).ok_or_else(|| "a record of one that is removed".to_owned())
            }
            (Some(owner), Some(state)) => {
                let status = self.status(owner, id);
                if status != Some(RegistrationStatus::Registered) {
                    return Err(format!("the owner is {status:?}"));
                }
                if model.alive.len() > 1 {
                    return Err("more than one has the id".to_owned());
                }
                let [record] = records else { return Err(format!("{} records", records.len())) };
                let process = &self.processes[owner];
                let zone =
                    process.handles.get(&id).and_then(|handle| handle.instance().zone().map(str::to_owned));
                let stands = record.lease != 0
                    && record.draining == (state == "drained")
                    && record.record["state"] == state
                    && record.record["incarnation"] == process.incarnation
                    && record.record["zone"].as_str() == zone.as_deref();
                stands.then_some(()).ok_or_else(|| "another record".to_owned())
            }
        }
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the end of the history of HISTORY_SEED={}, which plays it again ---", self.seed);
            for (at, line) in &self.log[self.log.len().saturating_sub(self.plan.judged_every + 40)..] {
                println!("{:>10.3} s  {line}", at.as_secs_f64());
            }
        }
    }
}

fn wish(draw: usize) -> Option<Then> {
    Some([Then::Stay, Then::Exit, Then::Remove][draw % 3])
}

fn key(id: usize, draining: bool) -> String {
    format!("/services{}/greeter/i-{id}", if draining { "-draining" } else { "" })
}

fn parse(kv: &KeyValue) -> Option<(usize, Standing)> {
    let key = kv.key_str().ok()?;
    let (draining, id) = match key.strip_prefix("/services/greeter/i-") {
        Some(id) => (false, id),
        None => (true, key.strip_prefix("/services-draining/greeter/i-")?),
    };
    Some((id.parse().ok()?, Standing { draining, lease: kv.lease(), record: value(kv) }))
}
