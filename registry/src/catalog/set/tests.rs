use std::time::Duration;

use super::*;
use crate::catalog::range::{Kv, Range, Scope};
use crate::keys::Prefix;
use crate::name::{LeaseId, ServiceName};

const PORT: u16 = 4000;

fn greeter() -> Range {
    Range::Records(Scope::Service(ServiceName::new("greeter").unwrap()))
}

/// Instance `n` at an address of its own.
fn record(n: u16, state: &str, modified: i64) -> (Key, Option<Stored>) {
    at_port(n, PORT + n, state, modified)
}

fn at_port(n: u16, port: u16, state: &str, modified: i64) -> (Key, Option<Stored>) {
    let value =
        format!(r#"{{"state":"{state}","address":"10.0.0.1:{port}","incarnation":"00000000000000ff"}}"#);
    value_of(n, &value, modified)
}

fn value_of(n: u16, value: &str, modified: i64) -> (Key, Option<Stored>) {
    let modified = Revision(modified);
    let kv = Kv { key: key(n), value: value.into(), lease: LeaseId(1), created: Revision(1), modified };
    let item = greeter().item(&Prefix::default(), &kv);
    (kv.key, Some(Stored { item, lease: LeaseId(1), created: Revision(1), modified }))
}

fn key(n: u16) -> Key {
    format!("/services/greeter/i-{n}").into_bytes().into()
}

fn deleted(n: u16) -> (Key, Option<Stored>) {
    (key(n), None)
}

fn present(entries: impl IntoIterator<Item = (Key, Option<Stored>)>) -> Vec<(Key, Stored)> {
    entries.into_iter().filter_map(|(key, stored)| Some((key, stored?))).collect()
}

fn serving(count: u16, now: Instant) -> RangeSet {
    let mut set = RangeSet::new(true);
    set.replace(present((0..count).map(|n| record(n, "serving", 1))), &HashSet::new(), false, now);
    set
}

/// (key, `+` present, `~` held, `-` gone), sorted.
fn shown(deltas: &[Delta]) -> Vec<String> {
    let mut shown: Vec<String> = deltas
        .iter()
        .map(|d| {
            let sign = match &d.now {
                None => '-',
                Some(Seen { held_until: Some(_), .. }) => '~',
                Some(_) => '+',
            };
            format!("{sign}{}", String::from_utf8_lossy(&d.key).trim_start_matches("/services/greeter/"))
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn a_put_of_an_unchanged_value_is_no_difference() {
    let now = Instant::now();
    let mut set = serving(2, now);
    assert!(set.apply([record(0, "serving", 9)], now).is_empty());
    assert_eq!(
        set.anchor(),
        Anchor::Newest { key: key(0), lease: LeaseId(1), created: Revision(1), modified: Revision(9) }
    );
    assert_eq!(shown(&set.apply([record(0, "draining", 10)], now)), ["+i-0"]);
}

#[test]
fn a_key_that_comes_and_goes_within_a_step_nets_out() {
    let now = Instant::now();
    let mut set = serving(3, now);
    assert!(set.apply([deleted(0), record(0, "serving", 5)], now).is_empty());
    let deltas = set.apply([record(7, "serving", 6), deleted(7)], now);
    assert!(!deltas[0].was_seen && deltas[1].now.is_none(), "the mailbox drops the two");
}

#[test]
fn a_list_gives_only_the_difference() {
    let now = Instant::now();
    let mut set = serving(3, now);
    let listed = present([record(0, "serving", 1), record(1, "draining", 7), record(3, "serving", 8)]);
    assert_eq!(shown(&set.replace(listed, &HashSet::new(), false, now)), ["+i-1", "+i-3", "-i-2"]);
}

#[test]
fn a_bad_value_takes_only_its_own_instance_away() {
    let now = Instant::now();
    let mut set = serving(2, now);
    let deltas = set.apply([value_of(0, "null", 5)], now);
    assert!(matches!(deltas[..], [Delta { now: Some(Seen { item: Item::Bad(_), .. }), .. }]));
    assert_eq!(set.seen().count(), 2);
}

#[test]
fn after_a_wipe_what_vanished_is_held_and_then_let_go() {
    let now = Instant::now();
    let mut set = serving(3, now);
    assert_eq!(shown(&set.replace(vec![], &HashSet::new(), true, now)), ["~i-0", "~i-1", "~i-2"]);
    assert_eq!(set.anchor(), Anchor::Empty, "the held are not in etcd");
    assert!(set.expire(now + HOLD - Duration::from_millis(1)).is_empty());
    assert_eq!(shown(&set.expire(now + HOLD)), ["-i-0", "-i-1", "-i-2"]);
    assert_eq!(set.seen().count(), 0);
}

#[test]
fn deletes_that_leave_fewer_than_half_are_held() {
    let now = Instant::now();
    let mut set = serving(3, now);
    assert_eq!(shown(&set.apply([deleted(0)], now)), ["-i-0"], "an ordinary departure");
    let soon = now + Duration::from_secs(4);
    assert_eq!(shown(&set.apply([deleted(1), deleted(2)], soon)), ["~i-1", "~i-2"]);
}

#[test]
fn deletes_that_leave_half_or_come_slowly_are_not_held() {
    let now = Instant::now();
    let mut set = serving(4, now);
    assert_eq!(shown(&set.apply([deleted(0), deleted(1)], now)), ["-i-0", "-i-1"]);
    let mut set = serving(3, now);
    for n in 0..3 {
        let at = now + Duration::from_secs(6) * u32::from(n);
        assert_eq!(shown(&set.apply([deleted(n)], at)), [format!("-i-{n}")]);
    }
}

#[test]
fn a_replaced_set_is_not_held() {
    let now = Instant::now();
    let mut set = serving(3, now);
    let events = (0..3).flat_map(|n| [deleted(n), record(n + 10, "serving", 9)]);
    let deltas = set.apply(events, now);
    assert!(!shown(&deltas).iter().any(|d| d.starts_with('~')), "{:?}", shown(&deltas));
}

#[test]
fn who_was_seen_draining_is_not_lost() {
    let now = Instant::now();
    let mut set = serving(3, now);
    set.apply((0..3).map(|n| record(n, "draining", 5)), now);
    assert_eq!(shown(&set.apply((0..3).map(deleted), now)), ["-i-0", "-i-1", "-i-2"]);
    let mut set = serving(2, now);
    let drained = HashSet::from([InstanceId::new("i-0").unwrap()]);
    assert_eq!(
        shown(&set.replace(vec![], &drained, true, now)),
        ["-i-0", "~i-1"],
        "found under the other root"
    );
}

#[test]
fn a_held_instance_is_let_go_when_its_key_returns() {
    let now = Instant::now();
    let mut set = serving(2, now);
    set.replace(vec![], &HashSet::new(), true, now);
    assert_eq!(
        shown(&set.apply([record(0, "serving", 9)], now)),
        ["+i-0"],
        "told although its value is the same"
    );
    assert_eq!(shown(&set.expire(now + HOLD)), ["-i-1"]);
}

#[test]
fn a_held_instance_is_let_go_when_another_has_its_address() {
    let now = Instant::now();
    let mut set = serving(2, now);
    set.replace(vec![], &HashSet::new(), true, now);
    assert_eq!(shown(&set.apply([at_port(9, PORT, "serving", 9)], now)), ["+i-9", "-i-0"]);
    let mut set = serving(2, now);
    let listed = present([at_port(9, PORT, "serving", 9)]);
    assert_eq!(shown(&set.replace(listed, &HashSet::new(), true, now)), ["+i-9", "-i-0", "~i-1"]);
}

#[test]
fn a_held_instance_is_let_go_when_its_connection_ended() {
    let now = Instant::now();
    let mut set = serving(2, now);
    set.replace(vec![], &HashSet::new(), true, now);
    assert!(set.release(&key(0)).is_some_and(|d| d.now.is_none()));
    assert!(set.release(&key(0)).is_none());
    assert_eq!(shown(&set.expire(now + HOLD)), ["-i-1"]);
}

#[test]
fn foreign_records_and_tools_hold_nothing() {
    let now = Instant::now();
    let mut set = RangeSet::new(true);
    set.replace(
        present((0..3).map(|n| value_of(n, &format!("10.0.0.1:{}", PORT + n), 1))),
        &HashSet::new(),
        false,
        now,
    );
    assert_eq!(shown(&set.replace(vec![], &HashSet::new(), true, now)), ["-i-0", "-i-1", "-i-2"]);
    let mut set = RangeSet::new(false);
    set.replace(present((0..3).map(|n| record(n, "serving", 1))), &HashSet::new(), false, now);
    assert_eq!(shown(&set.replace(vec![], &HashSet::new(), true, now)), ["-i-0", "-i-1", "-i-2"]);
}

/// Prints what a change costs; the assertion is loose, since a busy machine measures badly.
#[test]
fn a_change_costs_the_same_among_ten_and_among_ten_thousand() {
    let now = Instant::now();
    let cost = |count: u16| {
        let mut set = serving(count, now);
        // Decoding is outside: it does not depend on the set.
        let changes: Vec<_> = (0..2000)
            .map(|step| {
                record(step % count, if (step / count).is_multiple_of(2) { "draining" } else { "serving" }, 9)
            })
            .collect();
        let best = (0..5)
            .map(|_| {
                let changes = changes.clone();
                let start = std::time::Instant::now();
                for change in changes {
                    assert!(set.apply([change], now).len() <= 1);
                }
                start.elapsed()
            })
            .min();
        best.unwrap() / 2000
    };
    let (few, many) = (cost(10), cost(10_000));
    println!("one change among 10: {few:?}, among 10,000: {many:?}");
    assert!(many < few * 20 + Duration::from_micros(20), "among 10: {few:?}, among 10,000: {many:?}");
}
