//! A real cluster of three: members that are dead, frozen, cut off or without a leader cost no failed read, and neither a
//! registration nor a watcher is lost with them.

use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchStream};
use futures_util::StreamExt;
use svc_registry::catalog::{Catalog, CatalogEvent, Selector, Subscription};
use svc_registry::{
    Etcd, EtcdConfig, Registrar, RegistrarConfig, Registration, RegistrationStatus, ServiceName, Weight,
};
use svc_tests::etcd::{Cluster, Kind, run_cluster};

use crate::support::{KEY, LIMIT, LONG, Look, registered, report, until_status, value};

const TTL: u64 = 3;

fn connect(cluster: &Cluster) -> Etcd {
    Etcd::new(EtcdConfig::new(cluster.endpoints()).expect("addresses")).expect("inside a runtime")
}

/// The same, for reads that are to find another member long before their time is over, on a busy machine too: a new
/// leader takes as long as it takes.
fn connect_patiently(cluster: &Cluster) -> Etcd {
    let config = EtcdConfig::new(cluster.endpoints()).expect("addresses");
    Etcd::new(config.with_command_timeout(LONG).expect("a time in bounds")).expect("inside a runtime")
}

async fn register(etcd: &Etcd) -> Registration {
    let config = RegistrarConfig { ttl: Duration::from_secs(TTL), ..RegistrarConfig::default() };
    registered(&Registrar::with_config(etcd, config).expect("a valid configuration"), "i-1").await
}

fn other_than(member: usize) -> usize {
    (member + 1) % Cluster::SIZE
}

/// Reads and writes in turn, each of which has to succeed; the slowest read.
async fn calls_succeed(etcd: &Etcd, writes: bool) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 0..30 {
        let begin = Instant::now();
        etcd.kv().get(KEY, None).await.unwrap_or_else(|error| panic!("read {n}: {error}"));
        slowest = slowest.max(begin.elapsed());
        if writes {
            let put = etcd.kv().put(format!("/elsewhere/{n}"), "x", None).await;
            put.unwrap_or_else(|error| panic!("write {n}: {error}"));
        }
    }
    slowest
}

async fn a_member_that_is_dead_from_the_start(cluster: Cluster) {
    cluster.kill(0);
    cluster.leader().await;
    let etcd = connect(&cluster);
    etcd.ready(LONG).await.expect("two of three answer");
    report("the slowest read with a dead member", calls_succeed(&etcd, true).await);
    let registration = register(&etcd).await;
    assert!(registration.status().borrow().is_registered());
}

async fn reads_move_away_from_a_frozen_member(cluster: Cluster) {
    let etcd = connect_patiently(&cluster);
    etcd.ready(LONG).await.expect("it is up");
    calls_succeed(&etcd, true).await;
    let frozen = other_than(cluster.leader().await);
    cluster.freeze(frozen);
    let slowest = calls_succeed(&etcd, false).await;
    report("the slowest read with a frozen follower", slowest);
    assert!(slowest < etcd.config().command_timeout(), "not the command timeout: {slowest:?}");
    cluster.thaw(frozen);
    let leader = cluster.leader().await;
    cluster.freeze(leader);
    report("the slowest read with a frozen leader", calls_succeed(&etcd, false).await);
    cluster.thaw(leader);
}

/// What must not be done twice fails where it was sent to a frozen member: the first such write tells, and those after it
/// go elsewhere.
async fn one_plain_write_is_late_when_a_member_freezes(cluster: Cluster) {
    let etcd = connect(&cluster);
    etcd.ready(LONG).await.expect("it is up");
    calls_succeed(&etcd, true).await;
    let frozen = other_than(cluster.leader().await);
    cluster.freeze(frozen);
    let begin = Instant::now();
    let mut late = Vec::new();
    for n in 0..30 {
        if let Err(error) = etcd.kv().put(format!("/elsewhere/{n}"), "x", None).await {
            late.push(etcd.error("writing", error).to_string());
        }
    }
    report("thirty plain writes with a frozen follower", begin.elapsed());
    assert!(late.len() <= 1, "{late:#?}");
    cluster.thaw(frozen);
}

/// What a registration writes is guarded, and goes to another member too where the first is silent.
async fn a_registration_writes_on_while_a_member_is_frozen(cluster: Cluster) {
    let etcd = connect_patiently(&cluster);
    let registration = register(&etcd).await;
    let leader = cluster.leader().await;
    let frozen = other_than(leader);
    let mut look = Look { client: cluster.client_of(leader).await };
    cluster.freeze(frozen);
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    for weight in 1..=12 {
        registration.update(|instance| instance.set_weight(Weight::new(weight).expect("in range")));
        let wanted = |kv: Option<&etcd_client::KeyValue>| kv.is_some_and(|kv| value(kv)["weight"] == weight);
        slowest = slowest.max(look.until(LONG, "an update goes on", KEY, wanted).await);
    }
    report("twelve updates with a frozen follower", begin.elapsed());
    report("the slowest of them", slowest);
    assert!(slowest < etcd.config().command_timeout(), "not the command timeout: {slowest:?}");
    // Others come: a lease, a read, a transaction, each to one of the members.
    let begin = Instant::now();
    for n in 0..6 {
        let config = RegistrarConfig { ttl: Duration::from_secs(TTL), ..RegistrarConfig::default() };
        let one = Instant::now();
        registered(&Registrar::with_config(&etcd, config).expect("a valid configuration"), &format!("j-{n}"))
            .await;
        slowest = slowest.max(one.elapsed());
    }
    report("six registrations with a frozen follower", begin.elapsed());
    assert!(slowest < etcd.config().command_timeout(), "not the command timeout: {slowest:?}");
    cluster.thaw(frozen);
}

async fn reads_move_away_from_a_member_behind_a_silent_link(cluster: Cluster) {
    let etcd = connect_patiently(&cluster);
    etcd.ready(LONG).await.expect("it is up");
    calls_succeed(&etcd, true).await;
    cluster.door(1).set(embedded_etcd::proxy::Mode::Blackhole);
    let slowest = calls_succeed(&etcd, false).await;
    report("the slowest read with a silent link", slowest);
    assert!(slowest < etcd.config().command_timeout(), "not the command timeout: {slowest:?}");
}

async fn no_quorum_for_a_while(cluster: Cluster) {
    let etcd = connect(&cluster);
    let registration = register(&etcd).await;
    cluster.kill(0);
    cluster.kill(1);
    until_status("suspect", &registration, |status| matches!(status, RegistrationStatus::Suspect { .. }))
        .await;
    let begin = Instant::now();
    let error = etcd.kv().get(KEY, None).await.expect_err("no quorum");
    assert!(begin.elapsed() < etcd.config().command_timeout() + LIMIT, "bounded: {:?}", begin.elapsed());
    let error = etcd.error("reading", error);
    assert!(error.is_unreachable(), "{error}");
    cluster.start_again(0);
    cluster.start_again(1);
    cluster.leader().await;
    let begin = Instant::now();
    until_status("registered", &registration, RegistrationStatus::is_registered).await;
    let mut look = Look { client: cluster.client_of(2).await };
    look.until_there(LONG, KEY).await;
    report("after the quorum is back the registration is", begin.elapsed());
    calls_succeed(&etcd, true).await;
}

/// What becomes of the key while something happens to the leader: how often it is deleted, and how long it is gone.
struct Key {
    events: WatchStream,
}

impl Key {
    async fn at(cluster: &Cluster, member: usize) -> Key {
        Key { events: cluster.client_of(member).await.watch(KEY, None).await.expect("it is up") }
    }

    /// Looks for as long as two leases live.
    async fn has_one_gap_at_most(&mut self) {
        let until = tokio::time::Instant::now() + Duration::from_secs(2 * TTL);
        let (mut gaps, mut gone) = (0, None);
        while let Ok(message) = tokio::time::timeout_at(until, self.events.message()).await {
            for event in message.expect("the member is up").expect("the stream goes on").events() {
                match event.event_type() {
                    EventType::Delete => {
                        gaps += 1;
                        gone = Some(Instant::now());
                    }
                    EventType::Put => {
                        if let Some(since) = gone.take() {
                            report("the key was gone for", since.elapsed());
                            assert!(since.elapsed() < LIMIT, "back within a second on an idle machine");
                        }
                    }
                }
            }
        }
        assert!(gone.is_none(), "the key is back");
        assert!(gaps <= 1, "{gaps} gaps");
    }
}

async fn still_registered(cluster: &Cluster, registration: &Registration, member: usize, weight: u32) {
    until_status("registered", registration, RegistrationStatus::is_registered).await;
    registration.update(|instance| instance.set_weight(Weight::new(weight).expect("in range")));
    let mut look = Look { client: cluster.client_of(member).await };
    let wanted = |kv: Option<&etcd_client::KeyValue>| kv.is_some_and(|kv| value(kv)["weight"] == weight);
    let took = look.until(LONG, "an update goes on", KEY, wanted).await;
    report("an update", took);
    assert_eq!(look.leases().await, 1, "one lease");
}

async fn the_leader_moves(cluster: Cluster) {
    let registration = register(&connect(&cluster)).await;
    let leader = cluster.leader().await;
    let mut key = Key::at(&cluster, leader).await;
    cluster.move_leader(other_than(leader)).await;
    key.has_one_gap_at_most().await;
    still_registered(&cluster, &registration, leader, 7).await;
}

async fn the_leader_is_killed(cluster: Cluster) {
    let registration = register(&connect(&cluster)).await;
    let leader = cluster.leader().await;
    let mut key = Key::at(&cluster, other_than(leader)).await;
    cluster.kill(leader);
    key.has_one_gap_at_most().await;
    still_registered(&cluster, &registration, other_than(leader), 7).await;
}

async fn the_leader_is_stopped_for_a_while(cluster: Cluster) {
    let registration = register(&connect(&cluster)).await;
    let leader = cluster.leader().await;
    let mut key = Key::at(&cluster, other_than(leader)).await;
    cluster.freeze(leader);
    // The fault itself is time.
    tokio::time::sleep(Duration::from_secs(12)).await;
    cluster.thaw(leader);
    key.has_one_gap_at_most().await;
    still_registered(&cluster, &registration, other_than(leader), 7).await;
}

async fn until_seen(events: &mut Subscription, id: &str) {
    let follow = async {
        loop {
            let event = events.next().await.expect("a subscription never ends");
            let seen = match &event {
                CatalogEvent::Snapshot(snapshot) => format!("{:?}", snapshot.instances),
                event => format!("{event:?}"),
            };
            if seen.contains(&format!("\"{id}\"")) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(LONG, follow).await.is_ok(), "{id} is not seen");
}

async fn each_member_is_isolated_in_turn(cluster: Cluster) {
    let etcd = connect(&cluster);
    let catalog = Catalog::new(&etcd);
    let mut events = catalog.watch(Selector::service(ServiceName::new("greeter").expect("a name")));
    // What a leader that is cut off was sent is lost, and waited for by etcd for 7 s: it is put again, by who may.
    let put = async |member: usize, id: &str| {
        let begin = Instant::now();
        let mut client = cluster.client_of(member).await;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let record = r#"{"state":"serving","address":"10.0.0.9:1"}"#;
            let put = client.put(format!("/services/greeter/{id}"), record, None);
            if matches!(tokio::time::timeout(Duration::from_millis(500), put).await, Ok(Ok(_))) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < LONG, "no leader");
        }
    };
    put(0, "first").await;
    until_seen(&mut events, "first").await;
    // The watcher is on one of them.
    for member in 0..Cluster::SIZE {
        cluster.isolate(member);
        let begin = Instant::now();
        let (id, other) = (format!("while-{member}"), other_than(member));
        report("the others have a leader", put(other, &id).await);
        until_seen(&mut events, &id).await;
        report(&format!("the watcher saw a change with member {member} isolated"), begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(30), "five times the bound of 6 s");
        cluster.heal();
        put(member, &format!("after-{member}")).await;
        until_seen(&mut events, &format!("after-{member}")).await;
    }
}

#[test]
fn a_member_that_is_dead_from_the_start_costs_no_call_etcd_3_4() {
    run_cluster(Kind::Etcd34, a_member_that_is_dead_from_the_start);
}

#[test]
fn a_member_that_is_dead_from_the_start_costs_no_call_etcd_3_5() {
    run_cluster(Kind::Etcd35, a_member_that_is_dead_from_the_start);
}

#[test]
fn reads_move_away_from_a_frozen_member_etcd_3_5() {
    run_cluster(Kind::Etcd35, reads_move_away_from_a_frozen_member);
}

#[test]
fn one_plain_write_is_late_when_a_member_freezes_etcd_3_4() {
    run_cluster(Kind::Etcd34, one_plain_write_is_late_when_a_member_freezes);
}

#[test]
fn a_registration_writes_on_while_a_member_is_frozen_etcd_3_4() {
    run_cluster(Kind::Etcd34, a_registration_writes_on_while_a_member_is_frozen);
}

#[test]
fn a_registration_writes_on_while_a_member_is_frozen_etcd_3_5() {
    run_cluster(Kind::Etcd35, a_registration_writes_on_while_a_member_is_frozen);
}

#[test]
fn reads_move_away_from_a_member_behind_a_silent_link_etcd_3_4() {
    run_cluster(Kind::Etcd34, reads_move_away_from_a_member_behind_a_silent_link);
}

#[test]
fn no_quorum_for_a_while_is_survived_etcd_3_5() {
    run_cluster(Kind::Etcd35, no_quorum_for_a_while);
}

#[test]
fn reg_10_the_leader_moves_and_the_registration_stays_etcd_3_4() {
    run_cluster(Kind::Etcd34, the_leader_moves);
}

#[test]
fn reg_10_the_leader_moves_and_the_registration_stays_etcd_3_5() {
    run_cluster(Kind::Etcd35, the_leader_moves);
}

#[test]
fn reg_10_the_leader_is_killed_and_the_registration_stays_etcd_3_4() {
    run_cluster(Kind::Etcd34, the_leader_is_killed);
}

#[test]
fn reg_10_the_leader_is_killed_and_the_registration_stays_etcd_3_5() {
    run_cluster(Kind::Etcd35, the_leader_is_killed);
}

#[test]
fn reg_10_the_leader_is_stopped_for_twelve_seconds_and_the_registration_stays_etcd_3_4() {
    run_cluster(Kind::Etcd34, the_leader_is_stopped_for_a_while);
}

#[test]
fn reg_10_the_leader_is_stopped_for_twelve_seconds_and_the_registration_stays_etcd_3_5() {
    run_cluster(Kind::Etcd35, the_leader_is_stopped_for_a_while);
}

#[test]
fn watch_6_a_watcher_leaves_a_member_that_is_cut_off_from_its_peers_etcd_3_4() {
    run_cluster(Kind::Etcd34, each_member_is_isolated_in_turn);
}

#[test]
fn watch_6_a_watcher_leaves_a_member_that_is_cut_off_from_its_peers_etcd_3_5() {
    run_cluster(Kind::Etcd35, each_member_is_isolated_in_turn);
}
