//! The registrar on an embedded etcd without sockets, under a paused clock: the whole path from handle to key.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::GetOptions;
use svc_channel::{BoxIo, connector_fn};
use svc_registry::intent::{DrainIntent, Then};
use svc_registry::{
    Etcd, EtcdConfig, Instance, Phase, Readiness, ReadinessConfig, Registrar, RegistrarConfig,
    RegistrationStatus,
};
use tokio::sync::watch;

const SERVING: &str = "/services/greeter/i-1";
const DRAINING: &str = "/services-draining/greeter/i-1";
const INTENT: &str = "/services-control/drain/greeter/i-1";

/// Any wait of these tests; the clock is paused, so it costs nothing.
const LONG: Duration = Duration::from_secs(120);

async fn started() -> (EmbeddedEtcd, Etcd) {
    let server = EmbeddedEtcd::start().await;
    let etcd = handle_on(&server);
    (server, etcd)
}

fn handle_on(server: &EmbeddedEtcd) -> Etcd {
    let dialer = server.dialer();
    let connector = connector_fn(move |_| {
        let dialer = dialer.clone();
        async move { Ok(Box::new(dialer.dial().await?) as BoxIo) }
    });
    Etcd::new(EtcdConfig::default().with_connector(connector)).expect("a valid configuration")
}

fn instance() -> Instance {
    Instance::new("greeter", "i-1", "10.0.0.1:50051").expect("valid")
}

async fn until(
    status: &mut watch::Receiver<RegistrationStatus>,
    wanted: impl FnMut(&RegistrationStatus) -> bool,
) {
    tokio::time::timeout(LONG, status.wait_for(wanted)).await.expect("in time").expect("the task lives");
}

async fn registered(etcd: &Etcd) -> (svc_registry::Registration, watch::Receiver<RegistrationStatus>) {
    let registration = Registrar::new(etcd).register(instance());
    let mut status = registration.status();
    until(&mut status, RegistrationStatus::is_registered).await;
    (registration, status)
}

async fn value(etcd: &Etcd, key: &str) -> Option<serde_json::Value> {
    let found = etcd.kv().get(key, None).await.expect("etcd answers");
    found.kvs().first().map(|kv| serde_json::from_slice(kv.value()).expect("JSON"))
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_in_etcd_until_it_says_goodbye() {
    let (server, etcd) = started().await;
    let (registration, mut status) = registered(&etcd).await;
    let record = value(&etcd, SERVING).await.expect("a record");
    assert_eq!(record["state"], "serving");
    assert_eq!(record["ttl_s"], 15);
    tokio::time::sleep(LONG).await;
    assert_eq!(value(&etcd, SERVING).await, Some(record), "kept alive, unchanged");

    registration.deregister(Duration::from_secs(5)).await.expect("etcd is up");
    assert_eq!(value(&etcd, SERVING).await, None);
    assert_eq!(server.hooks().lease_count(), 0, "the lease is revoked");
    until(&mut status, RegistrationStatus::is_final).await;
}

/// The stream is open, PINGs are answered, and nothing is said: only asking tells.
#[tokio::test(start_paused = true)]
async fn law_3_a_watch_of_its_own_key_that_has_fallen_silent_is_found() {
    let (server, etcd) = started().await;
    let (_registration, _status) = registered(&etcd).await;
    for round in 0..3 {
        // It answers for a while, and then no more.
        tokio::time::sleep(Duration::from_secs(25)).await;
        server.hooks().mute_watches();
        etcd.kv().delete(SERVING, None).await.expect("etcd answers");
        let begin = tokio::time::Instant::now();
        while value(&etcd, SERVING).await.is_none() {
            assert!(begin.elapsed() < LONG, "round {round}: it is back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Quiet for 10 s, then asked, and given 5 s.
        assert!(begin.elapsed() < Duration::from_secs(17), "round {round}: {:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_replaced() {
    let (server, etcd) = started().await;
    let (_registration, mut status) = registered(&etcd).await;
    server.hooks().expire_leases();
    until(&mut status, |status| matches!(status, RegistrationStatus::Lost { .. })).await;
    until(&mut status, RegistrationStatus::is_registered).await;
    assert!(value(&etcd, SERVING).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_registration_outlives_its_handles_and_a_wipe() {
    let (server, etcd) = started().await;
    let (registration, mut status) = registered(&etcd).await;
    drop(registration);
    server.wipe().await;
    server.restart().await.expect("it starts again");
    until(&mut status, |status| !status.is_registered()).await;
    until(&mut status, RegistrationStatus::is_registered).await;
    assert!(value(&etcd, SERVING).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_no_client_could_read_changes_nothing_and_holds_up_no_drain() {
    let (_server, etcd) = started().await;
    let (registration, _status) = registered(&etcd).await;
    let before = value(&etcd, SERVING).await;
    registration.update(|instance| instance.set_zone(Some("a\tb")));
    registration.update(|instance| _ = instance.tags_mut().insert("much".into(), "x".repeat(100_000).into()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(value(&etcd, SERVING).await, before);
    assert!(registration.instance().zone().is_none() && registration.instance().tags().is_empty());
    registration.inflight(0);
    etcd.kv().put(INTENT, DrainIntent::new("test", "test").encode(), None).await.expect("etcd answers");
    let mut phase = registration.phase();
    let drained = async {
        phase.wait_for(|phase| *phase == Phase::Draining).await.expect("the task lives");
        registration.inflight(0);
        phase.wait_for(|phase| *phase == Phase::Drained).await.map(drop)
    };
    tokio::time::timeout(LONG, drained).await.expect("in time").expect("the task lives");
}

/// Its answers come after a third of the TTL, and each renews the lease: a stream that was given up and opened again for each
/// left the lease Suspect for ever.
#[tokio::test(start_paused = true)]
async fn law_1_an_etcd_that_answers_late_keeps_its_leases_registered() {
    let (server, etcd) = started().await;
    let ttl = Duration::from_secs(12);
    let registrar = Registrar::with_config(&etcd, RegistrarConfig { ttl, ..RegistrarConfig::default() })
        .expect("a valid configuration");
    let mut status = registrar.register(instance()).status();
    until(&mut status, RegistrationStatus::is_registered).await;
    tokio::time::sleep(ttl).await;
    let mut seen = status.clone();
    seen.mark_unchanged();
    server.hooks().delay(Duration::from_millis(4_500));
    let other = tokio::time::timeout(ttl * 20, seen.changed()).await;
    assert!(other.is_err(), "{:?}", status.borrow().clone());
    server.hooks().delay(Duration::ZERO);
    // And is asked elsewhere in time once it says nothing.
    server.hooks().freeze();
    until(&mut status, |status| matches!(status, RegistrationStatus::Suspect { .. })).await;
    server.hooks().thaw();
    until(&mut status, RegistrationStatus::is_registered).await;
}

/// A watch that etcd grants at a revision before ours is of no use, and was left behind for as long as its stream lived.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_doubted_because_etcd_is_behind_is_cancelled() {
    let (server, etcd) = started().await;
    for n in 0..10 {
        etcd.kv().put(format!("/elsewhere/{n}"), "x", None).await.expect("etcd is up");
    }
    let (_registration, mut status) = registered(&etcd).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let watches = server.hooks().watch_count();
    server.wipe().await;
    server.restart().await.expect("it starts again");
    until(&mut status, |status| !status.is_registered()).await;
    until(&mut status, RegistrationStatus::is_registered).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(server.hooks().watch_count(), watches);
}

#[tokio::test(start_paused = true)]
async fn a_drain_moves_the_record_and_its_end_moves_it_back() {
    let (_server, etcd) = started().await;
    let (registration, _) = registered(&etcd).await;
    let mut phase = registration.phase();
    registration.inflight(2);
    let intent = DrainIntent::new("test", "test").then(Then::Stay);
    etcd.kv().put(INTENT, intent.encode(), None).await.expect("etcd is up");
    phase.wait_for(|phase| *phase == Phase::Draining).await.expect("the task lives");
    assert_eq!(value(&etcd, SERVING).await, None);
    let moved = value(&etcd, DRAINING).await.expect("moved");
    assert!(moved["inflight"].is_null(), "what was told before the drain is no longer believed: {moved}");
    registration.inflight(2);
    while value(&etcd, DRAINING).await.expect("it waits")["inflight"] != 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    registration.inflight(0);
    phase.wait_for(|phase| *phase == Phase::Drained).await.expect("the task lives");
    etcd.kv().delete(INTENT, None).await.expect("etcd is up");
    phase.wait_for(|phase| *phase == Phase::Serving).await.expect("the task lives");
    registration.update(|instance| instance.set_zone(Some("b")));
    while value(&etcd, SERVING).await.is_none_or(|record| record["zone"] != "b") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(value(&etcd, DRAINING).await, None);
}

/// Waits until the record under a key is as wanted; gives it.
async fn until_record(
    etcd: &Etcd,
    key: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let found = async {
        loop {
            match value(etcd, key).await {
                Some(record) if wanted(&record) => return record,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(LONG, found).await.expect("in time")
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_ready_is_out_with_its_reason_until_it_is_again() {
    let (_server, etcd) = started().await;
    let (registration, status) = registered(&etcd).await;
    let written = async || etcd.kv().get("/", None).await.expect("etcd is up").header().map(|h| h.revision());
    registration.unready("disk\u{1b}full");
    let record = until_record(&etcd, DRAINING, |_| true).await;
    assert_eq!((&record["state"], &record["reason"]), (&"draining".into(), &"disk full".into()));
    assert_eq!(value(&etcd, SERVING).await, None);
    registration.phase().wait_for(|phase| *phase == Phase::Draining).await.expect("the task lives");
    let before = written().await;
    registration.unready("another reason");
    tokio::time::sleep(LONG).await;
    assert_eq!(written().await, before, "no writes in steady state, and never drained");
    assert!(status.borrow().is_registered());
    registration.ready();
    let record = until_record(&etcd, SERVING, |record| record["state"] == "serving").await;
    assert_eq!(record.get("reason"), None);
    assert_eq!(value(&etcd, DRAINING).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_readiness_check_takes_a_registration_out_and_back() {
    let (_server, etcd) = started().await;
    let (registration, _) = registered(&etcd).await;
    let begin = tokio::time::Instant::now();
    let check = move || async move {
        let second = begin.elapsed().as_secs();
        if (20..60).contains(&second) { Err(format!("away at {second}")) } else { Ok(()) }
    };
    let mut readiness = Readiness::new(check, ReadinessConfig::default()).expect("valid");
    let follow = async {
        loop {
            match readiness.changed().await {
                Ok(()) => registration.ready(),
                Err(reason) => registration.unready(&reason),
            }
        }
    };
    let look = async {
        let record = until_record(&etcd, DRAINING, |_| true).await;
        assert_eq!(record["reason"], "away at 30", "the third check in a row that fails");
        until_record(&etcd, SERVING, |_| true).await;
        begin.elapsed().as_secs()
    };
    let back = tokio::select! {
        back = look => back,
        () = follow => unreachable!("it has no end"),
    };
    assert!((60..62).contains(&back), "back after {back} s, with the first check that passes");
}

#[tokio::test(start_paused = true)]
async fn the_watch_on_own_keys_survives_compaction_and_lost_streams() {
    let (server, etcd) = started().await;
    let (_registration, _) = registered(&etcd).await;
    for round in 0..10 {
        server.hooks().drop_streams();
        server.hooks().compact_now();
        etcd.kv().delete(SERVING, None).await.expect("etcd is up");
        server.hooks().compact_now();
        let back = async {
            while value(&etcd, SERVING).await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), back).await.unwrap_or_else(|_| panic!("round {round}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_instances_share_ten_leases() {
    let (server, etcd) = started().await;
    let registrar = Registrar::new(&etcd);
    all_registered(&many(&registrar, 1_000)).await;
    assert_eq!(server.hooks().lease_count(), 10);
}

/// Lets tasks that have been told to end do so.
/// Registers `count` instances.
fn many(registrar: &Registrar, count: usize) -> Vec<svc_registry::Registration> {
    let instance = |n| Instance::new("greeter", &format!("i-{n}"), "10.0.0.1:50051").expect("valid");
    (0..count).map(|n| registrar.register(instance(n))).collect()
}

async fn all_registered(registrations: &[svc_registry::Registration]) {
    for registration in registrations {
        until(&mut registration.status(), RegistrationStatus::is_registered).await;
    }
}

#[tokio::test(start_paused = true)]
async fn instances_that_register_at_once_share_transactions() {
    let (server, etcd) = started().await;
    let registrar = Registrar::new(&etcd);
    all_registered(&many(&registrar, 1_000)).await;
    // Each transaction that writes is a revision.
    let revision = server.hooks().revision();
    assert!(revision < 200, "{revision} revisions for 1,000 instances");
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_takes_fewer_operations_gets_them_one_by_one() {
    let server = EmbeddedEtcd::builder().max_txn_ops(5).start().await;
    let etcd = handle_on(&server);
    let registrar = Registrar::new(&etcd);
    let registrations = many(&registrar, 100);
    all_registered(&registrations).await;
    for registration in registrations {
        registration.deregister(LONG).await.expect("etcd is up");
    }
    let all = GetOptions::new().with_prefix().with_count_only();
    let left = etcd.kv().get("/services", Some(all)).await.expect("etcd answers");
    assert_eq!(left.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_holds_up_none_of_those_it_shares_a_transaction_with() {
    let (server, etcd) = started().await;
    let registrar = Registrar::new(&etcd);
    let probe = registrar.register(instance());
    until(&mut probe.status(), RegistrationStatus::is_registered).await;
    server.hooks().freeze();
    let mut registrations = many(&registrar, 50);
    tokio::time::sleep(Duration::from_millis(100)).await; // their reads are under way
    let leaver = registrations.remove(7);
    let left = tokio::spawn(leaver.deregister(LONG));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.hooks().thaw();
    left.await.expect("it ends").expect("etcd is back");
    all_registered(&registrations).await;
    assert_eq!(value(&etcd, "/services/greeter/i-7").await, None);
}

async fn settled_tasks() -> usize {
    tokio::time::sleep(LONG).await;
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn leak_1_a_thousand_registrations_that_came_and_went_leave_nothing() {
    let (server, etcd) = started().await;
    let registrar = Registrar::new(&etcd);
    let cycle = async |count: usize| {
        for _ in 0..count {
            let registration = registrar.register(instance());
            until(&mut registration.status(), RegistrationStatus::is_registered).await;
            registration.deregister(Duration::from_secs(5)).await.expect("etcd is up");
        }
    };
    cycle(10).await;
    let (tasks, watches) = (settled_tasks().await, server.hooks().watch_count());
    cycle(1000).await;
    assert_eq!(settled_tasks().await, tasks, "tasks");
    assert_eq!(server.hooks().watch_count(), watches, "watches");
    assert_eq!(server.hooks().lease_count(), 0, "leases");
}

#[tokio::test(start_paused = true)]
async fn leak_1_a_registrar_that_is_dropped_ends_its_tasks_and_its_connections() {
    let (server, etcd) = started().await;
    let before = settled_tasks().await;
    for _ in 0..100 {
        let etcd = Etcd::new(etcd.config().clone()).expect("valid");
        let registrar = Registrar::new(&etcd);
        let registration = registrar.register(instance());
        until(&mut registration.status(), RegistrationStatus::is_registered).await;
        registration.deregister(Duration::from_secs(5)).await.expect("etcd is up");
    }
    assert_eq!(settled_tasks().await, before);
    assert_eq!(server.hooks().watch_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_watch_is_asked_for_again() {
    let (server, etcd) = started().await;
    // Both keys' watches and the one on the intents.
    server.hooks().refuse_watches(3, "etcdserver: permission denied");
    let (_registration, _) = registered(&etcd).await;
    let watching = async {
        while server.hooks().watch_count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, watching).await.expect("all three watches run");
    etcd.kv().delete(SERVING, None).await.expect("etcd is up");
    let back = async {
        while value(&etcd, SERVING).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), back).await.expect("back within a second");
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_means_for_ever_and_overflows_no_clock() {
    let (server, etcd) = started().await;
    etcd.ready(Duration::MAX).await.expect("etcd answers");
    let config = RegistrarConfig { ttl: Duration::from_secs(24 * 3600), notice: Duration::MAX };
    let registration =
        Registrar::with_config(&etcd, config).expect("a valid configuration").register(instance());
    let mut status = registration.status();
    until(&mut status, RegistrationStatus::is_registered).await;
    registration.deregister(Duration::MAX).await.expect("etcd answers");
    assert_eq!(server.hooks().lease_count(), 0);
}

/// dubbo-go#3146: keepalives stopped when nobody took the events out of their queue.
#[tokio::test(start_paused = true)]
async fn reg_8_keepalives_go_on_when_nobody_reads_the_status() {
    let (server, etcd) = started().await;
    let (registration, _status) = registered(&etcd).await;
    let (_unread, _phase) = (registration.status(), registration.phase());
    for _ in 0..50 {
        // Each of these is a change of state that nobody looks at.
        server.hooks().expire_leases();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(value(&etcd, SERVING).await.is_some());
    }
    assert_eq!(server.hooks().lease_count(), 1);
}
