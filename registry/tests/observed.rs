//! What the registrar and the catalog measure, on the embedded etcd under a paused clock. Each test has a recorder of its
//! own, which its thread, the only one, uses.

use std::collections::BTreeMap;
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use futures_util::StreamExt;
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use svc_channel::{BoxIo, connector_fn};
use svc_registry::catalog::{Catalog, CatalogEvent, Freshness, Selector, Subscription};
use svc_registry::{Etcd, EtcdConfig, Instance, Registrar, Registration, RegistrationStatus, ServiceName};

/// Any wait of these tests; the clock is paused, so it costs nothing.
const LONG: Duration = Duration::from_secs(120);

/// Everything that was recorded from the beginning, by name and labels.
struct Seen {
    snapshotter: Snapshotter,
    /// Of counters and gauges the sum.
    sums: BTreeMap<String, f64>,
    samples: BTreeMap<String, Vec<f64>>,
    _guard: LocalRecorderGuard<'static>,
}

impl Seen {
    fn begin() -> Self {
        // Lives as long as the process: the guard borrows it.
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        let (snapshotter, guard) = (recorder.snapshotter(), metrics::set_default_local_recorder(recorder));
        Self { snapshotter, sums: BTreeMap::new(), samples: BTreeMap::new(), _guard: guard }
    }

    /// Takes what is new: a snapshot begins again from zero.
    fn look(&mut self) {
        for (key, _, description, value) in self.snapshotter.snapshot().into_vec() {
            let (_, key) = key.into_parts();
            let ours = key.name().starts_with("svc_");
            assert!(!ours || description.is_some(), "{} is described", key.name());
            let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            match value {
                DebugValue::Counter(count) => *self.sums.entry(name).or_default() += count as f64,
                DebugValue::Gauge(value) => *self.sums.entry(name).or_default() += *value,
                DebugValue::Histogram(new) => {
                    self.samples.entry(name).or_default().extend(new.iter().map(|value| **value));
                }
            }
        }
    }

    fn sum(&mut self, name: &str) -> f64 {
        self.look();
        self.sums.get(name).copied().unwrap_or_default()
    }

    fn samples(&mut self, name: &str) -> Vec<f64> {
        self.look();
        self.samples.get(name).cloned().unwrap_or_default()
    }

    /// Asserts how many registrations stand where; everywhere else there are none.
    fn assert_standing(&mut self, expected: &[(&str, f64)]) {
        self.assert_gauge("svc_registry_registrations{status=", expected);
    }

    fn assert_gauge(&mut self, name: &str, expected: &[(&str, f64)]) {
        self.look();
        let found = self.sums.iter().filter(|(key, value)| key.starts_with(name) && **value != 0.0);
        let found: BTreeMap<&str, f64> =
            found.map(|(key, value)| (key[name.len()..].trim_end_matches('}'), *value)).collect();
        assert_eq!(found, expected.iter().copied().collect(), "{name}");
    }
}

async fn started() -> (EmbeddedEtcd, Etcd) {
    let server = EmbeddedEtcd::start().await;
    let dialer = server.dialer();
    let connector = connector_fn(move |_| {
        let dialer = dialer.clone();
        async move { Ok(Box::new(dialer.dial().await?) as BoxIo) }
    });
    let etcd = Etcd::new(EtcdConfig::default().with_connector(connector)).expect("a valid configuration");
    (server, etcd)
}

fn register(registrar: &Registrar, id: &str) -> Registration {
    registrar.register(Instance::new("greeter", id, "10.0.0.1:50051").expect("valid"))
}

async fn until(registration: &Registration, wanted: impl FnMut(&RegistrationStatus) -> bool) {
    let mut status = registration.status();
    tokio::time::timeout(LONG, status.wait_for(wanted)).await.expect("in time").expect("the task lives");
}

#[tokio::test(start_paused = true)]
async fn registrations_are_counted_where_they_stand_and_how_long_they_were_away() {
    let mut seen = Seen::begin();
    let (server, etcd) = started().await;
    let registrar = Registrar::new(&etcd);
    let (one, two) = (register(&registrar, "i-1"), register(&registrar, "i-2"));
    until(&one, RegistrationStatus::is_registered).await;
    until(&two, RegistrationStatus::is_registered).await;
    seen.assert_standing(&[("registered", 2.0)]);
    assert_eq!(seen.samples("svc_registry_registered_after_seconds{}").len(), 2);
    assert!(seen.samples("svc_registry_away_seconds{}").is_empty());

    // Both are on one lease.
    server.hooks().expire_leases();
    until(&one, |status| !status.is_registered()).await;
    until(&one, RegistrationStatus::is_registered).await;
    until(&two, RegistrationStatus::is_registered).await;
    assert_eq!(seen.sum("svc_registry_leases_lost_total{}"), 1.0);
    assert_eq!(seen.sum("svc_registry_transitions_total{to=lost}"), 2.0);
    assert_eq!(seen.samples("svc_registry_away_seconds{}").len(), 2);
    assert_eq!(seen.samples("svc_registry_registered_after_seconds{}").len(), 2, "only of the first time");

    // An outage: suspect after a TTL without an answer.
    server.hooks().freeze();
    until(&one, |status| matches!(status, RegistrationStatus::Suspect { .. })).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    seen.assert_standing(&[("suspect", 2.0)]);
    server.hooks().thaw();
    until(&one, RegistrationStatus::is_registered).await;
    until(&two, RegistrationStatus::is_registered).await;
    let away = seen.samples("svc_registry_away_seconds{}");
    assert!(away[2..].iter().all(|seconds| *seconds >= 60.0), "from the first to the last moment: {away:?}");

    one.deregister(Duration::from_secs(5)).await.expect("etcd is up");
    tokio::time::sleep(LONG).await;
    seen.assert_standing(&[("registered", 1.0)]);
    two.deregister(Duration::from_secs(5)).await.expect("etcd is up");
    tokio::time::sleep(LONG).await;
    seen.assert_standing(&[]);
    assert!(seen.sum("svc_registry_keepalives_total{}") > 0.0);
    assert!(
        seen.sum("svc_registry_writes_total{result=applied}") >= 6.0,
        "two each of put, put again, delete"
    );
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_counted_where_it_is_won_and_where_it_is_lost() {
    let mut seen = Seen::begin();
    let (_server, etcd) = started().await;
    let old = Registrar::new(&etcd);
    let loser = register(&old, "i-1");
    until(&loser, RegistrationStatus::is_registered).await;
    assert_eq!(seen.sum("svc_registry_takeovers_total{}"), 0.0, "there was nothing to take over");
    let winner = register(&Registrar::new(&etcd), "i-1");
    until(&winner, RegistrationStatus::is_registered).await;
    until(&loser, RegistrationStatus::is_final).await;
    assert_eq!(seen.sum("svc_registry_takeovers_total{}"), 1.0);
    assert_eq!(seen.sum("svc_registry_transitions_total{to=superseded}"), 1.0);
}

async fn until_freshness(events: &mut Subscription, wanted: impl Fn(&Freshness) -> bool) {
    let found = async {
        while let Some(event) = events.next().await {
            if matches!(&event, CatalogEvent::Freshness(freshness) if wanted(freshness)) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, found).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn a_catalog_shows_what_it_knows_and_whether_etcd_speaks() {
    let mut seen = Seen::begin();
    let (server, etcd) = started().await;
    let mut client = server.client().await.expect("it answers");
    for n in 0..3 {
        let value = format!(r#"{{"state":"serving","address":"10.0.0.{n}:1000","incarnation":"{n:016x}"}}"#);
        client.put(format!("/services/greeter/i-{n}"), value, None).await.expect("etcd is up");
    }
    let drains = r#"{"state":"draining","address":"10.0.0.9:1000","incarnation":"0000000000000009"}"#;
    client.put("/services-draining/greeter/i-9", drains, None).await.expect("etcd is up");
    client.put("/services/greeter/what", "{", None).await.expect("etcd is up");

    let catalog = Catalog::new(&etcd);
    let greeter = || Selector::service(ServiceName::new("greeter").expect("valid"));
    let mut events = catalog.watch(greeter().with_draining());
    let first = events.next().await;
    assert!(matches!(first, Some(CatalogEvent::Snapshot(_))), "{first:?}");
    const GREETER: &str = "svc_catalog_instances{service=greeter,state=";
    seen.assert_gauge(GREETER, &[("serving", 3.0), ("draining", 1.0), ("bad", 1.0)]);
    assert!(seen.sum("svc_catalog_heard_timestamp_seconds{}") > 1.7e9, "seconds since 1970");
    assert_eq!(seen.sum("svc_catalog_lists_total{list=first}"), 2.0, "one for each root");

    client.delete("/services/greeter/i-0", None).await.expect("etcd is up");
    tokio::time::sleep(LONG).await;
    seen.assert_gauge(GREETER, &[("serving", 2.0), ("draining", 1.0), ("bad", 1.0)]);

    server.hooks().freeze();
    until_freshness(&mut events, |freshness| matches!(freshness, Freshness::Stale { .. })).await;
    assert!(seen.sum("svc_catalog_stale{service=greeter}") >= 1.0);
    server.hooks().thaw();
    tokio::time::sleep(LONG).await;
    seen.assert_gauge("svc_catalog_stale{service=", &[]);

    // Another store, and empty: listed again, and what vanished is held for a while.
    server.wipe_to_another_cluster().await;
    server.restart().await.expect("it starts again");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(seen.sum("svc_catalog_lists_total{list=again}") >= 2.0);
    seen.assert_gauge(GREETER, &[("held", 2.0)]);

    drop(events);
    tokio::time::sleep(LONG).await;
    seen.assert_gauge(GREETER, &[]);
}
