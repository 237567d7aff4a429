use super::*;
use crate::catalog::range::{Kv, Range, Scope};
use crate::keys::Prefix;
use crate::name::{LeaseId, Revision};

fn greeter() -> Scope {
    Scope::Service(ServiceName::new("greeter").unwrap())
}

fn put(range: &Range, name: &str, value: &str, modified: i64) -> (Key, Option<Seen>) {
    let key: Key = [range.prefix(&Prefix::default()).as_bytes(), name.as_bytes()].concat().into();
    let modified = Revision(modified);
    let kv = Kv { key: key.clone(), value: value.into(), lease: LeaseId(1), created: Revision(1), modified };
    (key, Some(Seen { item: range.item(&Prefix::default(), &kv), held_until: None }))
}

fn serving(state: &str, modified: i64) -> (Key, Option<Seen>) {
    put(&Range::Records(greeter()), "i", &format!(r#"{{"state":"{state}","address":"h:1"}}"#), modified)
}

fn draining(state: &str, modified: i64) -> (Key, Option<Seen>) {
    put(&Range::Draining(greeter()), "i", &format!(r#"{{"state":"{state}","address":"h:1"}}"#), modified)
}

fn gone((key, _): (Key, Option<Seen>)) -> (Key, Option<Seen>) {
    (key, None)
}

/// `+` added, `*` modified, `-` removed, `~` held, each with the state.
fn shown(changes: &[Change]) -> Vec<String> {
    let mark = |sign: &str, entry: &Entry| format!("{sign}{}", entry.record.state);
    changes
        .iter()
        .map(|change| match change {
            Change::Added(e) => mark("+", e),
            Change::Modified(e) => mark("*", e),
            Change::Removed(e) => mark("-", e),
            Change::Held(e, _) => mark("~", e),
            Change::Intent(i) => format!("drain {}", i.target.service),
            Change::IntentGone(i) => format!("undrain {}", i.target.service),
            Change::Policy(p) => format!("policy {}", p.service),
            Change::PolicyGone(p) => format!("no policy {}", p.service),
            Change::Bad(b) => format!("bad {}", b.key),
            Change::BadGone(b) => format!("good {}", b.key),
        })
        .collect()
}

struct Both(Join, Instant);

impl Both {
    fn step<const N: usize>(&mut self, changed: [(Key, Option<Seen>); N]) -> Vec<String> {
        shown(&self.0.apply(HashMap::from(changed), self.1))
    }

    fn wait(&mut self, time: Duration) -> Vec<String> {
        self.1 += time;
        shown(&self.0.expire(self.1))
    }
}

fn both() -> Both {
    let mut both = Both(Join::new(true), Instant::now());
    assert_eq!(both.step([serving("serving", 1)]), ["+serving"]);
    assert_eq!(both.step([serving("draining", 2)]), ["*draining"]);
    both
}

#[test]
fn a_move_is_one_change_whichever_half_comes_first() {
    let mut deleted_first = both();
    assert!(deleted_first.step([gone(serving("", 0))]).is_empty(), "the other half may be under way");
    assert_eq!(deleted_first.step([draining("draining", 3)]), ["*draining"]);
    assert!(deleted_first.wait(OTHER_HALF).is_empty());
    let mut put_first = both();
    assert_eq!(put_first.step([draining("draining", 3)]), ["*draining"]);
    assert!(put_first.step([gone(serving("", 0))]).is_empty());
    assert_eq!(put_first.0.snapshot().instances.len(), 1, "one entry per id");
}

#[test]
fn an_undrain_is_one_change_whichever_half_comes_first() {
    let drained = || {
        let mut both = Both(Join::new(true), Instant::now());
        assert_eq!(both.step([draining("drained", 1)]), ["+drained"]);
        both
    };
    let mut deleted_first = drained();
    assert!(deleted_first.step([gone(draining("", 0))]).is_empty());
    assert_eq!(deleted_first.step([serving("serving", 2)]), ["*serving"]);
    let mut put_first = drained();
    assert_eq!(put_first.step([serving("serving", 2)]), ["*serving"]);
    assert!(put_first.step([gone(draining("", 0))]).is_empty());
}

#[test]
fn a_drained_instance_that_left_is_removed_after_a_moment() {
    let mut both = both();
    assert!(both.step([gone(serving("", 0))]).is_empty());
    assert!(both.wait(OTHER_HALF / 2).is_empty());
    assert_eq!(both.0.next_expiry(), Some(both.1 + OTHER_HALF / 2));
    assert_eq!(both.wait(OTHER_HALF / 2), ["-draining"]);
    assert!(both.0.snapshot().instances.is_empty() && both.0.next_expiry().is_none());
}

#[test]
fn a_client_need_not_wait_for_another_half() {
    let mut client = Both(Join::new(false), Instant::now());
    client.step([serving("draining", 1)]);
    assert_eq!(client.step([gone(serving("", 0))]), ["-draining"]);
}

#[test]
fn a_serving_instance_that_vanishes_is_removed_at_once() {
    let mut both = Both(Join::new(true), Instant::now());
    both.step([serving("serving", 1)]);
    assert_eq!(both.step([gone(serving("", 0))]), ["-serving"]);
}

#[test]
fn a_held_instance_is_not_present_and_comes_back_as_added() {
    let mut client = Both(Join::new(false), Instant::now());
    client.step([serving("serving", 1)]);
    let (key, seen) = serving("serving", 1);
    let until = client.1 + OTHER_HALF;
    let held = seen.map(|seen| Seen { held_until: Some(until), ..seen });
    assert_eq!(client.step([(key, held)]), ["~serving"]);
    let snapshot = client.0.snapshot();
    assert_eq!((snapshot.instances.len(), snapshot.held.len()), (0, 1));
    assert_eq!(client.step([serving("serving", 2)]), ["+serving"]);
}

#[test]
fn a_value_that_turns_bad_and_good_again_is_shown_as_both() {
    let mut client = Both(Join::new(false), Instant::now());
    client.step([serving("serving", 1)]);
    let bad = put(&Range::Records(greeter()), "i", "null", 2);
    assert_eq!(client.step([bad]), ["bad /services/greeter/i", "-serving"]);
    assert_eq!(client.step([serving("serving", 3)]), ["good /services/greeter/i", "+serving"]);
}

#[test]
fn intents_come_and_go() {
    let mut tool = Both(Join::new(true), Instant::now());
    let intent = || put(&Range::Intents, "greeter/*", r#"{"reason":"r"}"#, 1);
    assert_eq!(tool.step([intent()]), ["drain greeter"]);
    assert_eq!(tool.0.snapshot().intents.len(), 1);
    assert_eq!(tool.step([gone(intent())]), ["undrain greeter"]);
}

/// Prints what a change costs; the assertion is loose, since a busy machine measures badly.
#[test]
fn a_change_costs_the_same_among_ten_and_among_ten_thousand() {
    let of = |n: u32, modified: i64| {
        let value = format!(r#"{{"state":"serving","address":"h:1","weight":{modified}}}"#);
        put(&Range::Records(greeter()), &format!("i-{n}"), &value, modified)
    };
    let cost = |count: u32| {
        let mut join = Join::new(false);
        join.apply((0..count).map(|n| of(n, 1)).collect(), Instant::now());
        let changes: Vec<_> = (0..2000).map(|step| of(step % count, i64::from(step / count) + 2)).collect();
        let start = std::time::Instant::now();
        for change in changes {
            assert_eq!(join.apply(HashMap::from([change]), Instant::now()).len(), 1);
        }
        start.elapsed() / 2000
    };
    let (few, many) = (cost(10), cost(10_000));
    println!("one change among 10: {few:?}, among 10,000: {many:?}");
    assert!(many < few * 20 + Duration::from_micros(50), "among 10: {few:?}, among 10,000: {many:?}");
}
