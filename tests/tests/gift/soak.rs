//! Gifts at a rate, over real `serve` and resolvers, while balances and gift services are killed and started again: at
//! the end every sending has ended, no coin is lost or made, and nothing was delivered twice.
//!
//! `RATE` a second for `SECONDS`, or as many as the machine can; the run of the other tests is a short one. `make gift-soak` plays a long one.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use demo_services::balance::ledger::MAX;
use demo_services::config::GrpcClients;
use svc_proto::balance::v1::balance_client::BalanceClient;
use svc_proto::balance::v1::{AddUserCoinOperation, BatchAddUserCoinRequest};
use svc_proto::gift::v1::gift_client::GiftClient;
use svc_proto::gift::v1::{
    GetSendingRequest, ListGiftsRequest, ReceiptState, SendGiftRequest, Sending, SendingState,
    WatchGiftsRequest,
};
use svc_registry::{Etcd, EtcdConfig};
use svc_resolver::{Channel, Resolver};
use svc_tests::etcd::{Kind, TestEtcd};
use svc_tests::ports::free_port;
use svc_tests::process::Process;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::{Code, Request, Status};

use crate::binaries::folder;
use crate::support::{Database, LIMIT, PRICE, ROSE, delivered};

/// How callers of ours call: as gift calls balance too. All that they call may be repeated.
const CLIENTS: &str = r#"[{"name": "balance", "retry": {"max": 3, "timeout": "5s"}},
    {"name": "gift", "retry": {"max": 3, "timeout": "10s"}}]"#;

/// Senders, one of whom has nothing.
const SENDERS: i64 = 50;
const POOR: i64 = 9;
/// The first of the receivers; the one before has a full account.
const RECEIVERS: Range<i64> = 1001..1200;
const FULL: i64 = 1000;

/// Sendings of ours that have not ended; where the machine cannot keep the rate, it drops.
const AT_ONCE: usize = 200;

/// The pause before the first kill, and those between two, in milliseconds: long enough for what one has left behind to be
/// taken over before the heir is killed too, or some would be handed on for ever.
const FIRST: Range<u64> = 500..1500;
const PAUSES: Range<u64> = 1500..4500;

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// A service as a process that registers.
struct Service {
    name: &'static str,
    process: Process,
    arguments: Vec<String>,
}

impl Service {
    fn start(name: &'static str, n: usize, etcd: &str, database: &Database) -> Service {
        let clients = r#"[{"name": "balance", "retry": {"max": 3, "timeout": "5s"}}]"#;
        let mut arguments = [
            ["--id", &format!("{name}-{n}")],
            ["--listen", &format!("127.0.0.1:{}", free_port())],
            ["--database", &database.address()],
            ["--endpoints", etcd],
            ["--ttl", "2s"],
            ["--log-level", "error"],
        ]
        .concat()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect::<Vec<String>>();
        if name == "gift" {
            arguments.extend(["--grpc-clients", clients, "--claim-limit", "2s"].map(ToOwned::to_owned));
        }
        Service { name, process: spawn(name, &arguments), arguments }
    }

    fn kill_and_start_again(&mut self) {
        self.process.kill();
        self.process = spawn(self.name, &self.arguments);
    }
}

fn spawn(name: &str, arguments: &[String]) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::spawn_unheard(&folder().join(name), &arguments)
}

/// What the callers saw.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that failed, by their code, and were made again.
    repeated: BTreeMap<String, u64>,
    /// The longest that one sending took to its end.
    longest: Duration,
    ends: BTreeMap<&'static str, i64>,
}

/// The n-th sending: mostly one rose, sometimes several; now and then from one who has nothing or to one whose account is
/// full.
fn nth(n: u64) -> SendGiftRequest {
    let n = i64::try_from(n).expect("a number");
    let count = RECEIVERS.end - RECEIVERS.start;
    let receivers = if n % 10 == 0 { 3 } else { 1 };
    let mut to_uids: Vec<i64> = (0..receivers).map(|k| RECEIVERS.start + (n * 7 + k) % count).collect();
    if n % 20 == 7 {
        to_uids.push(FULL);
    }
    SendGiftRequest {
        gift_id: ROSE,
        from_uid: 1 + n % SENDERS,
        to_uids,
        biz_id: format!("soak-{n}"),
        scene_id: 0,
    }
}

/// Calls until there is an answer; all of these calls may be made again.
async fn until_answered<T, F: Future<Output = Result<T, Status>>>(
    seen: &mut Seen,
    call: impl Fn() -> F,
) -> Result<T, Status> {
    loop {
        match call().await {
            Err(status)
                if [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::ResourceExhausted]
                    .contains(&status.code()) =>
            {
                *seen.repeated.entry(format!("{:?}", status.code())).or_default() += 1;
                sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

/// Sends the n-th, and follows it to its end.
async fn send(gift: GiftClient<Channel>, n: u64) -> Seen {
    let (mut seen, begun) = (Seen::default(), Instant::now());
    let request = nth(n);
    let call = || {
        let (mut gift, request) = (gift.clone(), request.clone());
        async move { gift.send_gift(request).await }
    };
    let mut sending = match until_answered(&mut seen, call).await {
        Ok(sent) => sent.into_inner().sending.expect("there is one"),
        Err(status) if status.code() == Code::FailedPrecondition => get(&gift, &mut seen, n).await,
        Err(status) => panic!("{n}: {status}"),
    };
    while sending.state() != SendingState::Ended {
        sleep(Duration::from_millis(50)).await;
        sending = get(&gift, &mut seen, n).await;
    }
    seen.longest = begun.elapsed();
    for receipt in sending.receipts {
        let end = match receipt.state() {
            ReceiptState::Received => "received",
            ReceiptState::Refunded => "refunded",
            ReceiptState::Refused => "refused",
            other => panic!("{n} has ended as {other:?}"),
        };
        *seen.ends.entry(end).or_default() += 1;
    }
    seen
}

async fn get(gift: &GiftClient<Channel>, seen: &mut Seen, n: u64) -> Sending {
    let call = || {
        let (mut gift, biz_id) = (gift.clone(), format!("soak-{n}"));
        async move { gift.get_sending(GetSendingRequest { biz_id }).await }
    };
    let found = until_answered(seen, call).await.expect("it is known");
    found.into_inner().sending.expect("there is one")
}

/// Gives senders their coins, and fills the full account.
async fn issue(balance: BalanceClient<Channel>, coins: i64) {
    let operation = |to_uid, coin| AddUserCoinOperation {
        to_uid,
        coin,
        biz_type: 0,
        biz_id: format!("in/{to_uid}"),
        scene_id: 0,
    };
    let rich = (1..=SENDERS).filter(|&uid| uid != POOR);
    let mut operations: Vec<_> = rich.map(|uid| operation(uid, coins)).collect();
    operations.push(operation(FULL, MAX));
    let request = BatchAddUserCoinRequest { operations };
    let call = || {
        let (mut balance, request) = (balance.clone(), request.clone());
        async move { balance.batch_add_user_coin(request).await }
    };
    until_answered(&mut Seen::default(), call).await.expect("they are issued");
}

/// Each gift of one receiver's inbox, once and in order.
async fn inbox_is_in_order(mut gift: GiftClient<Channel>, gifts: &Database, uid: i64) {
    let lies = format!("SELECT COUNT(*) FROM received WHERE taken_back = 0 AND uid = {uid}");
    let lies = gifts.count(&lies).await;
    let request = Request::new(WatchGiftsRequest { uid, after: Some(0) });
    let mut watch = gift.watch_gifts(request).await.expect("it begins").into_inner();
    let (mut last, mut sendings) = (0, HashSet::new());
    for _ in 0..lies {
        let next = timeout(LIMIT, watch.message()).await.expect("it is there").expect("it goes on");
        let next = next.expect("it has no end");
        assert!(next.position > last && sendings.insert(next.biz_id), "in order, and none twice");
        last = next.position;
    }
}

async fn soak(ledger: Database, gifts: Database) {
    let (seconds, rate) = (number("SECONDS", 5), number("RATE", 25));
    let seed = fastrand::u64(..);
    eprintln!("gift soak: {rate}/s for {seconds} s, kills drawn by {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let etcd = TestEtcd::start_kind(Kind::Embedded).await.expect("it is in the process");
    let start = |name, n, database| Service::start(name, n, &etcd.url(), database);
    let mut services = [
        start("balance", 1, &ledger),
        start("balance", 2, &ledger),
        start("gift", 1, &gifts),
        start("gift", 2, &gifts),
    ];

    let resolver =
        Resolver::new(&Etcd::new(EtcdConfig::new([etcd.url()]).expect("valid")).expect("a runtime"));
    let clients: GrpcClients = CLIENTS.parse().expect("clients");
    let channel = |name: &str| {
        let builder = clients.of(name).apply(Channel::builder()).expect("valid");
        resolver.channel_with(name, builder).expect("a target")
    };
    let (balance, gift) = (BalanceClient::new(channel("balance")), GiftClient::new(channel("gift")));
    issue(balance, i64::try_from(4 * PRICE.unsigned_abs() * rate * seconds).expect("a number")).await;
    let serves = || {
        let mut gift = gift.clone();
        async move { gift.list_gifts(ListGiftsRequest {}).await }
    };
    until_answered(&mut Seen::default(), serves).await.expect("it serves");
    let before = ledger.is_sound().await;

    let begun = Instant::now();
    let (mut calls, mut total, mut kills) = (JoinSet::new(), Seen::default(), BTreeMap::new());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
    // What a moment without a free place has missed is sent behind it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut kill_at = begun + Duration::from_millis(rng.u64(FIRST));
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        let n = count;
        count += 1;
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let gift = gift.clone();
        calls.spawn(async move {
            let _place = place;
            send(gift, n).await
        });
        if Instant::now() >= kill_at {
            let victim = rng.usize(0..services.len());
            services[victim].kill_and_start_again();
            *kills.entry(services[victim].name).or_insert(0u64) += 1;
            kill_at = Instant::now() + Duration::from_millis(rng.u64(PAUSES));
        }
    }
    let sent = begun.elapsed();
    while let Some(seen) = calls.join_next().await {
        let seen = seen.expect("no caller panics");
        total.longest = total.longest.max(seen.longest);
        seen.repeated.into_iter().for_each(|(code, count)| *total.repeated.entry(code).or_default() += count);
        seen.ends.into_iter().for_each(|(end, count)| *total.ends.entry(end).or_default() += count);
    }
    let of = |end| total.ends.get(end).copied().unwrap_or(0);
    let after = ledger.is_sound().await;
    eprintln!(
        "gift soak: {} sendings in {sent:.1?} ({:.0}/s): {} received, {} refunded, {} refused",
        count,
        count as f64 / sent.as_secs_f64(),
        of("received"),
        of("refunded"),
        of("refused")
    );
    eprintln!(
        "gift soak: killed {kills:?}; calls that failed and were repeated: {:?}; the longest sending took {:.1?}",
        total.repeated, total.longest
    );
    eprintln!("gift soak: coins {} -> {}, {} frozen", before.coins, after.coins, after.frozen);

    assert_eq!(
        gifts.count("SELECT COUNT(*) FROM sendings WHERE under_way > 0").await,
        0,
        "every sending has ended"
    );
    assert_eq!(
        (after.coins, after.issued, after.frozen),
        (before.coins, before.issued, 0),
        "no coin lost or made"
    );
    assert_eq!(after.house, i128::from(of("received") * 3), "what was received was paid, and nothing else");
    assert_eq!(
        delivered(&gifts).await.0,
        of("received"),
        "what was received lies in an inbox, and nothing else"
    );
    let twice =
        "SELECT COUNT(*) FROM (SELECT 1 FROM received GROUP BY sending, uid HAVING COUNT(*) > 1) AS twice";
    assert_eq!(gifts.count(twice).await, 0, "nothing is delivered twice");
    assert!(of("refused") > 0 && of("refunded") > 0, "of each end there is one");
    inbox_is_in_order(gift, &gifts, RECEIVERS.start).await;
}

/// Longer than the run, whatever the machine makes of it.
fn limit() -> Duration {
    Duration::from_secs(180 + 2 * number("SECONDS", 5))
}

#[test]
fn sqlite() {
    folder();
    svc_tests::database::run_within(false, limit(), async |gifts| soak(Database::sqlite(), gifts).await);
}

#[test]
fn postgres() {
    folder();
    svc_tests::database::run_within(true, limit(), async |gifts| {
        let Some(ledger) = svc_tests::postgres::Postgres::start().await else { return };
        soak(Database::Postgres(Box::new(ledger)), gifts).await;
    });
}
