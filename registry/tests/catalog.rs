//! The catalog on the embedded etcd, in memory and under a paused clock: who follows what, and what time does.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{Client, GetOptions};
use futures_util::{FutureExt, StreamExt};
use svc_channel::{BoxIo, connector_fn};
use svc_registry::catalog::{Catalog, CatalogEvent, Change, Freshness, Selector, Snapshot, Subscription};
use svc_registry::{Etcd, EtcdConfig, InstanceId, Revision, ServiceName};
use tokio::time::Instant;

struct Bed {
    server: EmbeddedEtcd,
    etcd: Etcd,
    catalog: Catalog,
    client: Client,
}

impl Bed {
    async fn new() -> Self {
        let server = EmbeddedEtcd::start().await;
        let dialer = server.dialer();
        let connector = connector_fn(move |_| {
            let dialer = dialer.clone();
            async move { Ok(Box::new(dialer.dial().await?) as BoxIo) }
        });
        let etcd = Etcd::new(EtcdConfig::default().with_connector(connector)).unwrap();
        let (catalog, client) = (Catalog::new(&etcd), server.client().await.unwrap());
        Self { server, etcd, catalog, client }
    }

    async fn put(&mut self, service: &str, n: usize, version: &str) {
        let value = format!(
            r#"{{"state":"serving","address":"10.0.0.1:{}","version":"{version}","incarnation":"{n:016x}"}}"#,
            1000 + n
        );
        self.client.put(format!("/services/{service}/i-{n}"), value, None).await.unwrap();
    }

    async fn follow(&self, selector: Selector) -> (Subscription, Snapshot) {
        let mut events = self.catalog.watch(selector);
        match events.next().await {
            Some(CatalogEvent::Snapshot(snapshot)) => (events, snapshot),
            other => panic!("a snapshot comes first, not {other:?}"),
        }
    }

    /// Goes on when as many watches are open as expected.
    async fn until_watches(&self, count: usize) {
        while self.server.hooks().watch_count() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn greeter() -> Selector {
    Selector::service(service("greeter"))
}

/// The next step's changes: `+` added, `*` modified, `-` removed, `~` held, with the id.
async fn step(events: &mut Subscription) -> Vec<String> {
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(600), events.next()).await.expect("something happens");
        match event.expect("it never ends") {
            CatalogEvent::Changes(step) => {
                let mut shown: Vec<_> = step.changes.iter().map(show).collect();
                shown.sort();
                return shown;
            }
            CatalogEvent::Snapshot(_) => panic!("a second snapshot"),
            CatalogEvent::Freshness(_) => {}
        }
    }
}

fn show(change: &Change) -> String {
    match change {
        Change::Added(entry) => format!("+{}", entry.record.id),
        Change::Modified(entry) => format!("*{}", entry.record.id),
        Change::Removed(entry) => format!("-{}", entry.record.id),
        Change::Held(entry, _) => format!("~{}", entry.record.id),
        Change::Intent(intent) => format!("drain {:?}", intent.target.id),
        Change::IntentGone(intent) => format!("undrain {:?}", intent.target.id),
        Change::Policy(policy) => format!("policy {}", policy.service),
        Change::PolicyGone(policy) => format!("no policy {}", policy.service),
        Change::Bad(bad) => format!("bad {}", bad.key),
        Change::BadGone(bad) => format!("good {}", bad.key),
    }
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_who_follow_a_service_and_ends_with_the_last() {
    let bed = Bed::new().await;
    assert_eq!(bed.server.hooks().watch_count(), 0, "nobody follows anything");
    let mut followers = Vec::new();
    for _ in 0..10 {
        followers.push(bed.follow(greeter()).await.0);
    }
    bed.until_watches(1).await;
    let other = bed.follow(Selector::service(service("other")).with_intents()).await;
    bed.until_watches(3).await;
    drop(other);
    bed.until_watches(1).await;
    followers.truncate(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.server.hooks().watch_count(), 1, "one is left");
    drop(followers);
    bed.until_watches(0).await;
    let again = bed.follow(greeter()).await;
    bed.until_watches(1).await;
    drop((bed.catalog, again));
    while bed.server.hooks().watch_count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_finds_one_step_and_what_came_and_went_is_not_in_it() {
    let mut bed = Bed::new().await;
    let (mut slow, snapshot) = bed.follow(greeter()).await;
    assert!(snapshot.instances.is_empty(), "a snapshot also of nothing");
    let (mut fast, _) = bed.follow(greeter()).await;
    for n in 0..300 {
        bed.put("greeter", n, "a").await;
        if n >= 3 {
            bed.client.delete(format!("/services/greeter/i-{n}"), None).await.unwrap();
        }
    }
    bed.put("greeter", 999, "last").await;
    while !step(&mut fast).await.contains(&"+i-999".to_owned()) {}
    assert_eq!(step(&mut slow).await, ["+i-0", "+i-1", "+i-2", "+i-999"]);
    assert!(slow.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn after_a_wipe_instances_are_held_for_thirty_seconds_and_late_followers_see_that() {
    let mut bed = Bed::new().await;

    for n in 0..3 {
        bed.put("greeter", n, "a").await;
    }
    let (mut events, snapshot) = bed.follow(greeter()).await;
    assert_eq!(snapshot.instances.len(), 3);
    let (mut tool, _) = bed.follow(Selector::all()).await;
    bed.server.wipe().await;
    bed.server.restart().await.unwrap();
    assert_eq!(step(&mut events).await, ["~i-0", "~i-1", "~i-2"]);
    let held = Instant::now();
    assert_eq!(step(&mut tool).await, ["-i-0", "-i-1", "-i-2"], "a tool sees what is in etcd");
    let (_late, snapshot) = bed.follow(greeter()).await;
    assert_eq!((snapshot.instances.len(), snapshot.held.len()), (0, 3));

    bed.put("greeter", 0, "a").await;
    assert_eq!(step(&mut events).await, ["+i-0"]);
    bed.catalog.release(&service("greeter"), &InstanceId::new("i-1").unwrap());
    assert_eq!(step(&mut events).await, ["-i-1"], "its connection ended");
    assert_eq!(step(&mut events).await, ["-i-2"]);
    assert!((29..=31).contains(&held.elapsed().as_secs()), "{:?}", held.elapsed());
    assert_eq!(bed.catalog.list(greeter()).await.unwrap().instances.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_move_between_the_roots_is_one_change_for_tools() {
    let mut bed = Bed::new().await;
    bed.put("greeter", 1, "a").await;
    let (mut tool, _) = bed.follow(greeter().with_draining()).await;
    let (mut client, _) = bed.follow(greeter()).await;
    let value = r#"{"state":"draining","address":"10.0.0.1:1001","incarnation":"0000000000000001"}"#;
    let move_it =
        etcd_client::Txn::new().and_then([etcd_client::TxnOp::put("/services/greeter/i-1", value, None)]);
    bed.client.txn(move_it).await.unwrap();
    assert_eq!(step(&mut tool).await, ["*i-1"]);
    assert_eq!(step(&mut client).await, ["*i-1"]);
    let move_it = etcd_client::Txn::new().and_then([
        etcd_client::TxnOp::delete("/services/greeter/i-1", None),
        etcd_client::TxnOp::put("/services-draining/greeter/i-1", value, None),
    ]);
    bed.client.txn(move_it).await.unwrap();
    assert_eq!(step(&mut tool).await, ["*i-1"]);
    assert_eq!(step(&mut client).await, ["-i-1"], "who follows only those that serve sees it leave");
    bed.client.delete("/services-draining/greeter/i-1", None).await.unwrap();
    assert_eq!(step(&mut tool).await, ["-i-1"]);
}

#[tokio::test(start_paused = true)]
async fn lists_are_of_one_revision_of_now_or_of_the_past() {
    let mut bed = Bed::new().await;
    bed.put("greeter", 1, "a").await;
    bed.client.put("/services-control/drain/greeter/*", "{}", None).await.unwrap();
    let then = Revision(bed.server.hooks().revision());
    bed.put("greeter", 1, "b").await;
    bed.put("other", 2, "b").await;
    let now = bed.catalog.list(Selector::all().with_draining().with_intents()).await.unwrap();
    assert_eq!((now.instances.len(), now.intents.len()), (2, 1));
    assert_eq!(now.revision, Revision(bed.server.hooks().revision()));
    let past = bed.catalog.instances_at(greeter(), then).await.unwrap();
    assert_eq!((past.revision, past.instances[0].record.version.as_deref()), (then, Some("a")));
    let one = bed.catalog.get(&service("greeter"), &InstanceId::new("i-1").unwrap()).await.unwrap().unwrap();
    assert_eq!(one.record.version.as_deref(), Some("b"));
    assert_eq!(bed.catalog.get(&service("greeter"), &InstanceId::new("no").unwrap()).await.unwrap(), None);

    bed.server.hooks().compact_now();
    let error = bed.catalog.instances_at(greeter(), then).await.unwrap_err();
    assert!(error.is_compacted() && error.to_string().contains("/services/greeter/"), "{error}");
    bed.client.put("/services/greeter/bad", "null", None).await.unwrap();
    let error = bed.catalog.get(&service("greeter"), &InstanceId::new("bad").unwrap()).await.unwrap_err();
    assert!(
        error.to_string().contains("/services/greeter/bad: null") || error.to_string().contains("null"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn watch_5_a_frozen_member_is_found_and_said_to_be_stale() {
    let mut bed = Bed::new().await;
    bed.put("greeter", 1, "a").await;
    let (mut events, _) = bed.follow(greeter()).await;
    bed.until_watches(1).await;
    bed.server.hooks().freeze();
    let frozen = Instant::now();
    let stale = events.next().await;
    assert!(matches!(stale, Some(CatalogEvent::Freshness(Freshness::Stale { .. }))), "{stale:?}");
    println!("found after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < Duration::from_secs(30), "{:?}", frozen.elapsed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    bed.server.hooks().thaw();
    bed.put("greeter", 2, "a").await;
    assert_eq!(step(&mut events).await, ["+i-2"]);
}

#[tokio::test(start_paused = true)]
async fn watch_7_replayed_events_are_dropped_by_revision() {
    let mut bed = Bed::new().await;
    let (mut events, _) = bed.follow(greeter()).await;
    bed.until_watches(1).await;
    bed.put("greeter", 1, "a").await;
    bed.put("greeter", 1, "b").await;
    bed.client.delete("/services/greeter/i-1", None).await.unwrap();
    bed.put("greeter", 2, "a").await;
    while !step(&mut events).await.contains(&"+i-2".to_owned()) {}
    bed.server.hooks().replay_events(1);
    bed.put("greeter", 3, "a").await;
    assert_eq!(step(&mut events).await, ["+i-3"], "nothing of the past came again");
}

#[tokio::test(start_paused = true)]
async fn watch_10_puts_of_an_unchanged_value_are_no_updates() {
    let mut bed = Bed::new().await;
    let (mut events, _) = bed.follow(greeter()).await;
    bed.put("greeter", 1, "a").await;
    assert_eq!(step(&mut events).await, ["+i-1"]);
    for _ in 0..2_000 {
        bed.put("greeter", 1, "a").await;
    }
    bed.put("greeter", 2, "a").await;
    assert_eq!(step(&mut events).await, ["+i-2"]);
}

#[tokio::test(start_paused = true)]
async fn watch_12_one_refused_watch_leaves_its_siblings_and_is_asked_for_again() {
    let mut bed = Bed::new().await;
    let (mut greeters, _) = bed.follow(greeter()).await;
    bed.until_watches(1).await;
    bed.server.hooks().refuse_watches(1, "etcdserver: permission denied");
    let (mut others, _) = bed.follow(Selector::service(service("other"))).await;
    let refused = others.next().await;
    assert!(
        matches!(refused, Some(CatalogEvent::Freshness(Freshness::Stale { denied: true, .. }))),
        "{refused:?}"
    );
    bed.put("greeter", 1, "a").await;
    assert_eq!(step(&mut greeters).await, ["+i-1"]);
    bed.put("other", 2, "a").await;
    assert_eq!(step(&mut others).await, ["+i-2"]);
    assert_eq!(others.freshness(), Some(&Freshness::Live));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written() {
    let mut bed = Bed::new().await;
    bed.put("greeter", 1, "a").await;
    let before = bed.server.hooks().revision();
    let (_events, _) = bed.follow(greeter().with_draining().with_intents()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(bed.server.hooks().revision(), before);
    let keys = bed.etcd.kv().get("/", Some(GetOptions::new().with_prefix().with_count_only())).await.unwrap();
    assert_eq!(keys.count(), 1);
}
