use std::collections::BTreeMap;
use std::time::Duration;

use svc_registry::catalog::IntentEntry;
use svc_registry::intent::DrainIntent;
use svc_registry::keys::{DrainTarget, Root};
use svc_registry::{LeaseId, Record, Revision, ServiceName};

use super::*;

fn greeter() -> ServiceName {
    ServiceName::new("greeter").unwrap()
}

fn id(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn entry(name: &str, port: u16, created: i64, edit: impl FnOnce(&mut Record)) -> Arc<Entry> {
    let mut record = Record::new(greeter(), id(name), format!("h:{port}").parse().unwrap());
    edit(&mut record);
    let (created, modified) = (Revision(created), Revision(created));
    Arc::new(Entry { root: Root::Serving, record, lease: LeaseId(1), created, modified })
}

fn plain(name: &str, port: u16, created: i64) -> Arc<Entry> {
    entry(name, port, created, |_| {})
}

fn intent(of: Option<&str>) -> Arc<IntentEntry> {
    let target = DrainTarget { service: greeter(), id: of.map(id) };
    Arc::new(IntentEntry { target, intent: DrainIntent::new("why", "who"), modified: Revision(1) })
}

/// `+` used, `~` used while held, `-` dropped.
fn shown(differences: &[Difference]) -> Vec<String> {
    let show = |difference: &Difference| match difference {
        Difference::Use(r) if r.held_until.is_some() => format!("~{}", r.key),
        Difference::Use(r) => format!("+{}", r.key),
        Difference::Drop(key) => format!("-{key}"),
    };
    differences.iter().map(show).collect()
}

fn following(instances: Vec<Arc<Entry>>) -> Filter {
    let mut filter = Filter::default();
    filter.start(Snapshot { instances, ..Snapshot::default() });
    filter
}

fn why(filter: &Filter, name: &str) -> Option<Excluded> {
    filter.explain().into_iter().find(|(entry, _)| entry.record.id.as_str() == name).and_then(|(_, why)| why)
}

#[test]
fn only_who_serves_is_used() {
    let mut filter = following(vec![plain("a", 1, 1), entry("b", 2, 1, |r| r.state = State::Drained)]);
    assert_eq!(why(&filter, "b"), Some(Excluded::State(State::Drained)));
    let draining = entry("a", 1, 1, |r| r.state = State::Draining);
    assert_eq!(shown(&filter.apply([Change::Modified(draining)])), ["-a"]);
    assert_eq!(shown(&filter.apply([Change::Modified(plain("b", 2, 1))])), ["+b"]);
    assert_eq!(shown(&filter.apply([Change::Removed(plain("b", 2, 1))])), ["-b"]);
    assert!(filter.apply([Change::Removed(plain("a", 1, 1))]).is_empty(), "it was not used");
}

#[test]
fn an_intent_drains_whoever_its_owner_is() {
    let mut filter = following(vec![plain("a", 1, 1), plain("b", 2, 1)]);
    assert_eq!(shown(&filter.apply([Change::Intent(intent(Some("a")))])), ["-a"]);
    assert_eq!(why(&filter, "a"), Some(Excluded::Intent));
    assert_eq!(shown(&filter.apply([Change::Intent(intent(None))])), ["-b"]);
    assert!(filter.apply([Change::Added(plain("c", 3, 2))]).is_empty(), "future instances too");
    assert_eq!(shown(&filter.apply([Change::IntentGone(intent(None))])), ["+b", "+c"]);
    assert_eq!(shown(&filter.apply([Change::IntentGone(intent(Some("a")))])), ["+a"]);
}

#[test]
fn an_intent_may_come_before_its_instance() {
    let mut filter = Filter::default();
    let snapshot = Snapshot {
        intents: vec![intent(Some("a"))],
        instances: vec![plain("a", 1, 1)],
        ..Snapshot::default()
    };
    assert!(filter.start(snapshot).is_empty());
}

#[test]
fn a_selector_asks_for_version_and_tags() {
    let tags = BTreeMap::from([("team".to_owned(), "x".to_owned()), ("zone".to_owned(), "z".to_owned())]);
    let mut filter = Filter::new(Wanted { version: Some("v2".into()), tags });
    let of = |version: &'static str, team: &'static str| {
        entry("a", 1, 1, |record| {
            record.version = Some(version.into());
            record.zone = Some("z".into());
            record.tags.insert("team".into(), team.into());
        })
    };
    assert!(filter.apply([Change::Added(of("v1", "x"))]).is_empty());
    assert_eq!(why(&filter, "a"), Some(Excluded::Selector));
    assert_eq!(shown(&filter.apply([Change::Modified(of("v2", "x"))])), ["+a"]);
    assert_eq!(shown(&filter.apply([Change::Modified(of("v2", "y"))])), ["-a"]);
}

#[test]
fn one_address_under_two_ids_counts_once_and_the_newer_wins() {
    let mut filter = following(vec![plain("old", 1, 5)]);
    assert_eq!(shown(&filter.apply([Change::Added(plain("new", 1, 9))])), ["+new", "-old"]);
    assert_eq!(why(&filter, "old"), Some(Excluded::SameAddress));
    assert!(filter.apply([Change::Added(plain("older", 1, 2))]).is_empty());
    assert_eq!(shown(&filter.apply([Change::Removed(plain("new", 1, 9))])), ["+old", "-new"]);
    let draining = entry("old", 1, 5, |r| r.state = State::Draining);
    assert_eq!(shown(&filter.apply([Change::Modified(draining)])), ["+older", "-old"]);
}

#[test]
fn what_is_held_is_used_until_it_is_dropped_or_its_address_is_anothers() {
    let until = Instant::now() + Duration::from_secs(30);
    let mut filter = following(vec![plain("a", 1, 1)]);
    assert_eq!(shown(&filter.apply([Change::Held(plain("a", 1, 1), until)])), ["~a"]);
    assert_eq!(shown(&filter.apply([Change::Added(plain("a", 1, 9))])), ["+a"]);
    filter.apply([Change::Held(plain("a", 1, 9), until)]);
    assert_eq!(shown(&filter.apply([Change::Added(plain("b", 1, 3))])), ["+b", "-a"], "present before held");
    assert!(filter.apply([Change::Removed(plain("a", 1, 9))]).is_empty());
}

#[test]
fn inserts_come_before_removals() {
    let mut filter = following(vec![plain("a", 1, 1)]);
    let step = [Change::Removed(plain("a", 1, 1)), Change::Added(plain("b", 2, 2))];
    assert_eq!(shown(&filter.apply(step)), ["+b", "-a"]);
}

#[test]
fn what_a_client_does_not_read_is_no_difference() {
    let mut filter = following(vec![plain("a", 1, 1)]);
    let same = entry("a", 1, 1, |record| record.inflight = Some(4));
    assert!(filter.apply([Change::Modified(same)]).is_empty());
}

/// Prints what a change costs; the assertion is loose, since a busy machine measures badly.
#[test]
fn a_change_costs_the_same_among_ten_and_among_ten_thousand() {
    let cost = |count: u16| {
        let mut filter = following((0..count).map(|n| plain(&format!("i-{n}"), n + 1, 1)).collect());
        let of = |step: u16| {
            entry(&format!("i-{}", step % count), step % count + 1, 1, |record| {
                record.weight = svc_registry::Weight::new(u32::from(step / count) + 1).unwrap();
            })
        };
        let changes: Vec<_> = (0..2000).map(|step| Change::Modified(of(step))).collect();
        let start = std::time::Instant::now();
        for change in changes {
            assert_eq!(filter.apply([change]).len(), 1);
        }
        start.elapsed() / 2000
    };
    let (few, many) = (cost(10), cost(10_000));
    println!("one change among 10: {few:?}, among 10,000: {many:?}");
    assert!(many < few * 20 + Duration::from_micros(50), "among 10: {few:?}, among 10,000: {many:?}");
}
