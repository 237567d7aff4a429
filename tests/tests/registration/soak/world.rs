//! The processes, the links and the members, and what happens to them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::{Client, GetOptions};
use svc_tests::etcd::Cluster;
use svc_tests::process::Process;

use super::Plan;
use super::report::AtRest;
use crate::support::LIMIT;

/// Seconds.
const TTL: u64 = 3;
/// How long the test's own requests to etcd may take while things happen; they are none of the laws.
const OWN: Duration = Duration::from_secs(3);
/// How long all may take to be well again, on a busy machine.
const WELL: Duration = Duration::from_secs(120);

/// A process with its own links to the members.
struct Service {
    number: usize,
    links: Vec<Proxy>,
    process: Option<Process>,
    frozen: bool,
}

impl Service {
    /// Starts its process, without waiting for it.
    fn start(&mut self, each: usize) {
        let endpoints: Vec<String> = self.links.iter().map(|link| link.address().to_string()).collect();
        let arguments =
            [&endpoints.join(","), &format!("p{}", self.number), &each.to_string(), &TTL.to_string()];
        let arguments = arguments.map(String::as_str);
        let program = Path::new(env!("CARGO_BIN_EXE_instances"));
        self.process = Some(Process::spawn_unheard(program, &arguments));
    }

    fn keys(&self, each: usize) -> impl Iterator<Item = String> + '_ {
        (0..each).map(|at| format!("/services/greeter/p{}-{at}", self.number))
    }

    fn set(&self, mode: Mode) {
        self.links.iter().for_each(|link| link.set(mode));
    }
}

/// What is wrong with the one member with which something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Killed,
    Frozen,
    Isolated,
}

pub(super) struct World {
    plan: Plan,
    cluster: Cluster,
    services: Vec<Service>,
    wrong: Option<(usize, Wrong)>,
    random: fastrand::Rng,
}

impl World {
    pub(super) async fn new(cluster: Cluster, plan: Plan) -> World {
        let mut services = Vec::new();
        for number in 0..plan.processes {
            let mut links = Vec::new();
            for member in 0..Cluster::SIZE {
                links.push(Proxy::start(cluster.address(member)).await.expect("a free port"));
            }
            let mut service = Service { number, links, process: None, frozen: false };
            service.start(plan.each);
            services.push(service);
        }
        let random = fastrand::Rng::with_seed(plan.seed);
        let mut world = World { plan, cluster, services, wrong: None, random };
        // Those that are asked how they are have to have said that they are up.
        for service in &mut world.services[..plan.witnesses] {
            service.process.as_mut().expect("just started").hear();
        }
        world.settles().await;
        world
    }

    /// One thing that happens, by what it is called.
    pub(super) async fn step(&mut self) -> &'static str {
        let what = match self.random.u8(..16) {
            0 => self.kill(),
            1 => self.stop().await,
            2..=4 => self.start(),
            5 => self.freeze(),
            6 | 7 => self.break_links(),
            8 => {
                self.services.iter().for_each(|service| service.set(Mode::Pass));
                "links healed"
            }
            9 => self.foreign_write().await,
            10 => self.revoke().await,
            11 => self.compact().await,
            12 => self.move_leader().await,
            13 | 14 => self.member(),
            _ => self.all_members().await,
        };
        tokio::time::sleep(Duration::from_millis(self.random.u64(20..400))).await;
        what
    }

    /// One of those to whom anything may happen.
    fn anyone(&mut self) -> &mut Service {
        let number = self.random.usize(self.plan.witnesses..self.services.len());
        &mut self.services[number]
    }

    fn kill(&mut self) -> &'static str {
        let service = self.anyone();
        let Some(mut process) = service.process.take() else { return NOTHING };
        process.kill();
        service.frozen = false;
        "process killed"
    }

    async fn stop(&mut self) -> &'static str {
        let service = self.anyone();
        if service.frozen {
            return NOTHING;
        }
        let Some(mut process) = service.process.take() else { return NOTHING };
        process.terminate();
        // Whatever became of its goodbyes: with etcd away they may fail, not hang.
        process.ended_within(LIMIT * 6).await;
        "process stopped"
    }

    fn start(&mut self) -> &'static str {
        let each = self.plan.each;
        match self.services.iter_mut().find(|service| service.process.is_none()) {
            Some(service) => {
                service.start(each);
                "process started"
            }
            None => NOTHING,
        }
    }

    fn freeze(&mut self) -> &'static str {
        let service = self.anyone();
        let Some(process) = &service.process else { return NOTHING };
        service.frozen = !service.frozen;
        if service.frozen {
            process.freeze();
            "process frozen"
        } else {
            process.thaw();
            "process thawed"
        }
    }

    /// Between one process, be it a witness, and one member or all.
    fn break_links(&mut self) -> &'static str {
        let service = &self.services[self.random.usize(..self.services.len())];
        let modes = [Mode::Blackhole, Mode::Reset, Mode::Latency(Duration::from_millis(300))];
        let mode = modes[self.random.usize(..modes.len())];
        if self.random.bool() {
            service.set(mode);
            "all links of a process broken"
        } else {
            service.links[self.random.usize(..service.links.len())].set(mode);
            "one link of a process broken"
        }
    }

    async fn foreign_write(&mut self) -> &'static str {
        let (number, at) = (self.random.usize(..self.services.len()), self.random.usize(..self.plan.each));
        let (key, deletes) = (format!("/services/greeter/p{number}-{at}"), self.random.bool());
        let asked = self.ask(async move |mut client| {
            if deletes {
                client.delete(key, None).await?;
            } else if !client.get(key.as_str(), None).await?.kvs().is_empty() {
                // Only over a record: a plain one of nobody would stay for ever.
                client.put(key, "10.9.9.9:1", None).await?;
            }
            Ok(())
        });
        done(asked.await, "record deleted or overwritten")
    }

    async fn revoke(&mut self) -> &'static str {
        let which = self.random.usize(..self.services.len());
        let asked = self.ask(async move |mut client| {
            let leases = client.leases().await?;
            if let Some(lease) = leases.leases().get(which) {
                client.lease_revoke(lease.id()).await?;
            }
            Ok(())
        });
        done(asked.await, "lease revoked")
    }

    async fn compact(&mut self) -> &'static str {
        let asked = self.ask(async |mut client| {
            let found = client.get("any", None).await?;
            let revision = found.header().map_or(0, etcd_client::ResponseHeader::revision);
            client.compact(revision, None).await.map(drop)
        });
        done(asked.await, "compacted")
    }

    async fn move_leader(&mut self) -> &'static str {
        if self.wrong.is_some() {
            return NOTHING;
        }
        let to = self.random.usize(..Cluster::SIZE);
        let moved = tokio::time::timeout(OWN, self.cluster.try_move_leader(to)).await;
        if moved == Ok(true) { "leader moved" } else { NOTHING }
    }

    /// Something goes wrong with a member, or that is over: with one at a time, so that the others have a quorum.
    fn member(&mut self) -> &'static str {
        if self.wrong.is_some() {
            return self.right();
        }
        let member = self.random.usize(..Cluster::SIZE);
        let wrong = [Wrong::Killed, Wrong::Frozen, Wrong::Isolated][self.random.usize(..3)];
        self.wrong = Some((member, wrong));
        match wrong {
            Wrong::Killed => {
                self.cluster.kill(member);
                "member killed"
            }
            Wrong::Frozen => {
                self.cluster.freeze(member);
                "member frozen"
            }
            Wrong::Isolated => {
                self.cluster.isolate(member);
                "member cut off from its peers"
            }
        }
    }

    fn right(&mut self) -> &'static str {
        let Some((member, wrong)) = self.wrong.take() else { return NOTHING };
        match wrong {
            Wrong::Killed => {
                self.cluster.start_again(member);
                "member restarted"
            }
            Wrong::Frozen => {
                self.cluster.thaw(member);
                "member thawed"
            }
            Wrong::Isolated => {
                self.cluster.heal();
                "member back among its peers"
            }
        }
    }

    /// Seldom: the whole cluster is away for a while, and perhaps has lost its data.
    async fn all_members(&mut self) -> &'static str {
        if self.random.u8(..4) != 0 {
            return NOTHING;
        }
        self.right();
        let wiped = self.random.bool();
        if wiped {
            self.cluster.wipe();
        } else {
            (0..Cluster::SIZE).for_each(|member| self.cluster.kill(member));
        }
        tokio::time::sleep(Duration::from_millis(self.random.u64(..2_000))).await;
        (0..Cluster::SIZE).for_each(|member| self.cluster.start_again(member));
        self.cluster.leader().await;
        if wiped { "all members wiped" } else { "all members restarted" }
    }

    /// Asks a member with which nothing is wrong. `None`: it did not answer, or refused.
    async fn ask<T>(&self, what: impl AsyncFnOnce(Client) -> Result<T, etcd_client::Error>) -> Option<T> {
        let ill = self.wrong.map(|(member, _)| member);
        let member = (0..Cluster::SIZE).find(|member| Some(*member) != ill)?;
        let client = self.cluster.client_of(member).await;
        tokio::time::timeout(OWN, what(client)).await.ok()?.ok()
    }

    /// All links, processes and members go on.
    pub(super) async fn heal(&mut self) {
        self.right();
        for service in &mut self.services {
            service.set(Mode::Pass);
            if std::mem::take(&mut service.frozen)
                && let Some(process) = &service.process
            {
                process.thaw();
            }
        }
        self.cluster.leader().await;
    }

    fn alive(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.process.is_some())
    }

    /// Waits until the set in etcd, its leases and its watches are those of the processes alive.
    pub(super) async fn settles(&mut self) -> Duration {
        let begin = Instant::now();
        for service in &mut self.services {
            let ended = service.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "process {} has ended by itself: {ended:?}", service.number);
        }
        let expected: BTreeSet<String> =
            self.alive().flat_map(|service| service.keys(self.plan.each)).collect();
        let processes = self.alive().count();
        let watches = (processes * watches_of_a_process(self.plan.each)) as f64;
        loop {
            // A member that found its port taken has to be started again.
            for member in 0..Cluster::SIZE {
                self.cluster.revive(member);
            }
            let asked = self.ask(async |mut client| {
                let all = GetOptions::new().with_prefix();
                Ok((client.get("/services", Some(all)).await?, client.leases().await?.leases().len()))
            });
            let (found, leases) = match asked.await {
                Some((found, leases)) => {
                    // What was written over the record of a process that died then has no owner, and stays.
                    let ours = |(key, lease): &(String, i64)| *lease != 0 || expected.contains(key);
                    let named =
                        |kv: &etcd_client::KeyValue| (kv.key_str().unwrap_or("?").to_owned(), kv.lease());
                    let found = found.kvs().iter().map(named).filter(ours).map(|(key, _)| key);
                    (found.collect(), leases)
                }
                None => (BTreeSet::new(), 0),
            };
            let watched = self.cluster.counted("etcd_debugging_mvcc_watcher_total").await;
            if found == expected && leases == processes && watched == watches {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < WELL,
                "{leases} leases for {processes} processes, {watched} watches of {watches}; missing {:?}, too many {:?}",
                expected.difference(&found).collect::<Vec<_>>(),
                found.difference(&expected).collect::<Vec<_>>(),
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The figures of now.
    pub(super) async fn at_rest(&mut self, settled: Duration) -> AtRest {
        let (processes, each) = (self.alive().count() as f64, self.plan.each as f64);
        let leases = self.ask(async |mut client| Ok(client.leases().await?.leases().len())).await;
        let mut rest = AtRest {
            processes,
            keys: processes * each,
            leases: leases.map_or(f64::NAN, |leases| leases as f64),
            watches: self.cluster.counted("etcd_debugging_mvcc_watcher_total").await,
            settled_ms: settled.as_millis() as f64,
            ..AtRest::default()
        };
        let witnesses = &mut self.services[..self.plan.witnesses];
        for service in witnesses.iter_mut() {
            let answer = service.process.as_mut().expect("a witness lives").ask("stats");
            let mut numbers = answer.split(' ').map(|number| number.parse::<f64>().expect("a number"));
            let mut next = || numbers.next().expect("three numbers") / self.plan.witnesses as f64;
            rest.tasks += next();
            rest.kib += next();
            rest.files += next();
        }
        rest
    }
}

const NOTHING: &str = "nothing";

fn done(asked: Option<()>, what: &'static str) -> &'static str {
    if asked.is_some() { what } else { "etcd did not answer the test" }
}

/// Two keys of each instance, and the intents.
const fn watches_of_a_process(each: usize) -> usize {
    2 * each + 1
}
