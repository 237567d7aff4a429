//! `make soak MINUTES=n`: 200 instances in ten processes through everything that can happen to them. At the end the set
//! in etcd is the set alive, and nothing has grown.
//!
//! `SOAK_SEED` plays the same order of events again, as far as real processes and times allow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::{CompactionOptions, GetOptions, PutOptions};
use svc_tests::etcd::{Kind, TestEtcd};
use svc_tests::process::Process;

use crate::support::{LIMIT, LONG, Look};

const PROCESSES: usize = 10;
const EACH: usize = 20;
/// Seconds.
const TTL: u64 = 3;

/// A process that is never killed: what it holds at the end is compared with what it held at the beginning.
const WITNESSES: usize = 2;

/// What the resident memory of a witness may grow by, in KiB: reconnects leave their buffers, once.
const SLACK: u64 = 2_048;

struct Member {
    number: usize,
    proxy: Proxy,
    process: Option<Process>,
    frozen: bool,
}

impl Member {
    /// Starts its process. `heard`: waits until its instances are registered, and it can be asked.
    fn start(&mut self, heard: bool) {
        let arguments =
            [&self.proxy.url(), &format!("p{}", self.number), &EACH.to_string(), &TTL.to_string()];
        let arguments = arguments.map(String::as_str);
        let program = Path::new(env!("CARGO_BIN_EXE_instances"));
        self.process = Some(match heard {
            true => Process::spawn(program, &arguments),
            false => Process::spawn_unheard(program, &arguments),
        });
    }

    fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (0..EACH).map(|at| format!("/services/greeter/p{}-{at}", self.number))
    }
}

/// Tasks and KiB.
fn stats(process: &mut Process) -> (u64, u64) {
    let answer = process.ask("stats");
    let mut numbers = answer.split(' ').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("tasks"), numbers.next().expect("memory"))
}

struct Soak {
    etcd: TestEtcd,
    look: Look,
    members: Vec<Member>,
    random: fastrand::Rng,
    events: BTreeMap<&'static str, usize>,
}

impl Soak {
    /// One thing that happens to one process, or to etcd.
    async fn step(&mut self) {
        let number = self.random.usize(WITNESSES..PROCESSES);
        let anybody = self.random.usize(..PROCESSES);
        let what = match self.random.u8(..13) {
            0 => match &mut self.members[number].process {
                Some(process) => {
                    process.kill();
                    self.members[number].process = None;
                    self.members[number].frozen = false;
                    "killed"
                }
                None => "nothing",
            },
            1 => match self.members[number].process.take() {
                Some(mut process) if !self.members[number].frozen => {
                    self.members[number].proxy.set(Mode::Pass);
                    process.terminate();
                    // Whatever became of its goodbyes: with etcd away it may fail, not hang.
                    process.ended_within(LIMIT * 6).await;
                    "stopped"
                }
                other => {
                    self.members[number].process = other;
                    "nothing"
                }
            },
            2..=4 => match self.members.iter_mut().find(|member| member.process.is_none()) {
                Some(member) => {
                    member.start(false);
                    "started"
                }
                None => "nothing",
            },
            5 => match &self.members[number].process {
                Some(process) => {
                    let frozen = !self.members[number].frozen;
                    if frozen {
                        process.freeze();
                    } else {
                        process.thaw();
                    }
                    self.members[number].frozen = frozen;
                    if frozen { "frozen" } else { "thawed" }
                }
                None => "nothing",
            },
            6 => {
                let modes = [Mode::Blackhole, Mode::Reset, Mode::Latency(Duration::from_millis(300))];
                self.members[anybody].proxy.set(modes[self.random.usize(..modes.len())]);
                "link broken"
            }
            7 | 8 => {
                self.members.iter().for_each(|member| member.proxy.set(Mode::Pass));
                "links healed"
            }
            9 => {
                let at = self.random.usize(..EACH);
                let key = format!("/services/greeter/p{anybody}-{at}");
                let result = match self.random.bool() {
                    true => self.look.client.delete(key, None).await.err(),
                    // Only over a record: a plain one of nobody would stay for ever.
                    false => match self.look.get(&key).await {
                        Some(_) => {
                            self.look.client.put(key, "10.9.9.9:1", Some(PutOptions::new())).await.err()
                        }
                        None => None,
                    },
                };
                if result.is_none() { "foreign write" } else { "nothing" }
            }
            10 => {
                let leases =
                    self.look.client.leases().await.map(|found| found.leases().to_vec()).unwrap_or_default();
                match leases.get(self.random.usize(..leases.len().max(1))) {
                    Some(lease) => {
                        let _ = self.look.client.lease_revoke(lease.id()).await;
                        "lease revoked"
                    }
                    None => "nothing",
                }
            }
            11 => {
                let revision = self.look.client.get("any", None).await.ok();
                let revision = revision.and_then(|found| found.header().map(|header| header.revision()));
                let options = CompactionOptions::new();
                if let Some(revision) = revision {
                    let _ = self.look.client.compact(revision, Some(options)).await;
                }
                "compacted"
            }
            _ => {
                if self.random.u8(..4) == 0 {
                    self.etcd.kill().await;
                    let wiped = self.random.bool();
                    if wiped {
                        self.etcd.wipe().await;
                    }
                    tokio::time::sleep(Duration::from_millis(self.random.u64(..2_000))).await;
                    self.etcd.start().await;
                    if wiped { "etcd wiped" } else { "etcd restarted" }
                } else {
                    "nothing"
                }
            }
        };
        *self.events.entry(what).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(self.random.u64(20..400))).await;
    }

    /// All links and processes go on.
    fn heal(&mut self) {
        for member in &mut self.members {
            member.proxy.set(Mode::Pass);
            if std::mem::take(&mut member.frozen)
                && let Some(process) = &member.process
            {
                process.thaw();
            }
        }
    }

    /// Waits until the set in etcd, and its leases, are those of the processes alive.
    async fn settles(&mut self) -> Duration {
        let begin = Instant::now();
        let alive = || self.members.iter().filter(|member| member.process.is_some());
        let expected: BTreeSet<String> = alive().flat_map(Member::keys).collect();
        let leases = alive().count();
        loop {
            let all = GetOptions::new().with_prefix();
            let found = self.look.client.get("/services", Some(all)).await;
            // What was written over the record of a process that died then has no owner, and stays.
            let ours = |(key, lease): &(String, i64)| *lease != 0 || expected.contains(key);
            let named = |kv: &etcd_client::KeyValue| (kv.key_str().unwrap_or("?").to_owned(), kv.lease());
            let found: BTreeSet<String> = found
                .map(|found| found.kvs().iter().map(named).filter(ours).map(|(key, _)| key).collect())
                .unwrap_or_default();
            let there = self.look.client.leases().await.map_or(0, |found| found.leases().len());
            if found == expected && there == leases {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < LONG,
                "{there} leases for {leases} processes; missing {:?}, too many {:?}",
                expected.difference(&found).collect::<Vec<_>>(),
                found.difference(&expected).collect::<Vec<_>>(),
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn minutes() -> f64 {
    std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make soak MINUTES=n"]
async fn soak() {
    let seed = std::env::var("SOAK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("soak: SOAK_SEED={seed}, {} min", minutes());
    let Some(etcd) = TestEtcd::start_kind(Kind::Etcd35).await else {
        return svc_tests::tools::missing("no etcd 3.5 here: run `make tools`, or name one in ETCD_BINS");
    };
    let look = Look::at(&etcd).await;
    let mut members = Vec::new();
    for number in 0..PROCESSES {
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let mut member = Member { number, proxy, process: None, frozen: false };
        member.start(true);
        members.push(member);
    }
    let random = fastrand::Rng::with_seed(seed);
    let mut soak = Soak { etcd, look, members, random, events: BTreeMap::new() };
    soak.settles().await;
    // What is allocated once is no growth: the first tenth of the time is for that.
    let (begin, time) = (Instant::now(), Duration::from_secs_f64(minutes() * 60.0));
    let (mut before, mut settled, mut next) = (Vec::new(), Duration::ZERO, time / 10);
    while begin.elapsed() < time {
        soak.step().await;
        if begin.elapsed() >= next {
            soak.heal();
            settled = settled.max(soak.settles().await);
            if before.is_empty() {
                before = soak.members[..WITNESSES]
                    .iter_mut()
                    .filter_map(|member| member.process.as_mut().map(stats))
                    .collect();
            }
            next = begin.elapsed() + time / 10;
        }
    }
    soak.heal();
    settled = settled.max(soak.settles().await);
    let after: Vec<_> = soak.members[..WITNESSES]
        .iter_mut()
        .filter_map(|member| member.process.as_mut().map(stats))
        .collect();
    println!("soak: {:?}", soak.events);
    println!("soak: the set in etcd was the set alive at most {} ms after all was well", settled.as_millis());
    for ((tasks, kib), (tasks_after, kib_after)) in before.iter().zip(&after) {
        println!(
            "soak: a process that lived throughout: {tasks} to {tasks_after} tasks, {kib} to {kib_after} KiB"
        );
        assert!(*tasks_after <= tasks + 5, "{tasks_after} tasks, {tasks} before");
        assert!(*kib_after <= kib + SLACK, "{kib_after} KiB, {kib} before");
    }
    assert_eq!((before.len(), after.len()), (WITNESSES, WITNESSES));
}
