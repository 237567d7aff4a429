//! The registrar's laws, each on the model.

use std::time::Duration;

use super::model::{DRAINING, INTENT, INTENT_FOR_ALL, SERVING, SET, TTL, World};
use crate::drain::Phase;
use crate::intent::{DrainIntent, Then};
use crate::keys::Root;
use crate::name::{Epoch, Incarnation, LeaseId};
use crate::registrar::instance::Instance;

const SECOND: Duration = Duration::from_secs(1);

fn registered() -> World {
    let mut world = World::new();
    world.register(0, 1);
    assert_eq!(world.status(0, 1), "registered");
    world
}

fn intent(then: Then) -> Vec<u8> {
    DrainIntent::new("test", "test").then(then).encode()
}

fn serving() -> Vec<(Root, String)> {
    vec![(Root::Serving, "serving".into())]
}

fn drained() -> Vec<(Root, String)> {
    vec![(Root::Draining, "drained".into())]
}

#[test]
fn law_1_a_lease_is_renewed_three_times_a_ttl_and_kept() {
    let mut world = registered();
    world.pass(TTL * 100);
    assert_eq!(world.status(0, 1), "registered");
    assert_eq!(world.etcd.grants, 1);
    let renewals = world.nodes[0].renewals;
    assert!((297..=303).contains(&renewals), "{renewals} renewals in 100 TTLs");
}

#[test]
fn law_1_local_expiry_is_suspect_and_the_same_lease_is_taken_up_again() {
    let mut world = registered();
    let before = world.etcd.keys[SERVING].clone();
    world.etcd.up = false;
    world.pass(TTL * 5);
    assert_eq!(world.status(0, 1), "suspect");
    world.etcd.back(world.now);
    world.pass(TTL / 3 + SECOND);
    assert_eq!(world.status(0, 1), "registered");
    assert_eq!(world.etcd.keys[SERVING], before, "data kept: not even a write");
    assert_eq!(world.etcd.grants, 1, "no second lease");
}

#[test]
fn law_2_a_lost_lease_is_replaced_and_every_record_put_again() {
    let mut world = registered();
    let lease = world.etcd.keys[SERVING].lease;
    world.etcd.revoke(lease);
    world.pass(SECOND);
    assert_eq!(world.status(0, 1), "registered");
    assert_ne!(world.etcd.keys[SERVING].lease, lease, "a fresh lease, never a retry on the dead one");
}

#[test]
fn a_transaction_that_was_sent_twice_counts_once() {
    let mut world = World::new();
    world.nodes[0].sends_twice = true;
    world.register(0, 1);
    assert_eq!(world.status(0, 1), "registered");
    let epoch = |world: &World| world.etcd.record(SERVING).and_then(|record| record.epoch);
    assert_eq!((world.etcd.writes, epoch(&world)), (1, Some(Epoch(1000))), "what it met is its own");
    world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
    world.pass(SECOND * 5);
    assert_eq!(world.standing(), drained());
    world.etcd.delete(INTENT);
    world.pass(SECOND);
    assert_eq!(world.standing(), serving());
    world.nodes[0].table.deregister(1, world.now + SECOND, world.now);
    world.pass(TTL);
    assert_eq!(world.standing(), []);
}

#[test]
fn law_2_a_wipe_is_healed_although_revisions_start_anew() {
    let mut world = registered();
    for _ in 0..50 {
        world.etcd.put("/other", b"", LeaseId::NONE);
    }
    world.settle();
    world.etcd.wipe();
    world.pass(TTL / 3 + SECOND);
    assert_eq!(world.status(0, 1), "registered");
    assert_eq!(world.standing(), serving());
    // And its watch goes on from the new history.
    world.etcd.delete(SERVING);
    world.pass(SECOND);
    assert_eq!(world.standing(), serving());
}

#[test]
fn law_3_a_foreign_put_or_delete_is_put_right_within_a_second() {
    let mut world = registered();
    let ours = world.etcd.keys[SERVING].clone();
    world.etcd.put(SERVING, b"10.9.9.9:1", LeaseId::NONE);
    world.pass(SECOND);
    let after = &world.etcd.keys[SERVING];
    assert_eq!((&after.value, after.lease), (&ours.value, ours.lease), "value and lease");
    world.etcd.delete(SERVING);
    world.pass(SECOND);
    assert_eq!(world.etcd.keys[SERVING].lease, ours.lease, "put again on the same lease");
    world.etcd.put(DRAINING, &ours.value, LeaseId::NONE);
    world.pass(SECOND);
    assert_eq!(world.standing(), serving(), "at most one record");
}

#[test]
fn law_3_a_foreign_writer_in_a_loop_is_answered_ten_times_a_second_at_most() {
    let mut world = registered();
    let before = world.etcd.writes;
    for _ in 0..1000 {
        world.etcd.put(SERVING, b"10.9.9.9:1", LeaseId::NONE);
        world.pass(Duration::from_millis(1));
    }
    let writes = world.etcd.writes - before;
    assert!((5..=12).contains(&writes), "{writes} writes in a second");
}

#[test]
fn law_3_the_newer_of_two_processes_wins_and_the_older_ends() {
    let mut world = registered();
    let newer = world.start(2000);
    world.register(newer, 1);
    world.pass(SECOND);
    assert_eq!((world.status(0, 1), world.status(newer, 1)), ("superseded", "registered"));
    let record = world.etcd.record(SERVING).expect("the newer one's");
    assert_eq!(record.incarnation, Some(Incarnation(2)));
    let writes = world.etcd.writes;
    world.pass(TTL * 3);
    assert_eq!(world.etcd.writes, writes, "nobody fights");
}

#[test]
fn law_3_a_frozen_owner_that_wakes_yields_to_the_one_that_took_over() {
    for wiped in [false, true] {
        let mut world = registered();
        world.nodes[0].stopped = true;
        world.pass(TTL + SECOND);
        assert_eq!(world.standing(), [], "the lease has run out");
        let newer = world.start(2000);
        world.register(newer, 1);
        if wiped {
            world.etcd.wipe();
            world.pass(TTL / 3 + SECOND);
        }
        world.nodes[0].stopped = false;
        world.pass(TTL);
        assert_eq!(
            (world.status(0, 1), world.status(newer, 1)),
            ("superseded", "registered"),
            "wiped: {wiped}"
        );
    }
}

#[test]
fn law_3_a_restart_takes_over_even_if_the_clock_went_back() {
    let mut world = registered();
    world.nodes[0].stopped = true;
    let restarted = world.start(10);
    world.register(restarted, 1);
    let record = world.etcd.record(SERVING).expect("taken over");
    assert_eq!((record.incarnation, record.epoch), (Some(Incarnation(2)), Some(Epoch(1001))));
}

#[test]
fn law_3_a_restart_while_etcd_is_away_takes_over_even_if_the_clock_went_back() {
    let mut world = registered();
    world.nodes[0].stopped = true;
    world.etcd.up = false;
    let restarted = world.start(10);
    world.register(restarted, 1);
    world.pass(SECOND);
    world.etcd.back(world.now);
    world.pass(SECOND);
    assert_eq!(world.status(restarted, 1), "registered", "nothing of it was in etcd before: it is the newer");
    let record = world.etcd.record(SERVING).expect("taken over");
    assert_eq!((record.incarnation, record.epoch), (Some(Incarnation(2)), Some(Epoch(1001))));
}

#[test]
fn law_4_a_late_goodbye_leaves_the_successor_alone() {
    let mut world = registered();
    let newer = world.start(2000);
    // The old process has not heard of its successor when it says goodbye.
    world.nodes[0].stopped = true;
    world.register(newer, 1);
    world.nodes[0].stopped = false;
    let deadline = world.now + SECOND;
    let now = world.now;
    world.nodes[0].table.deregister(1, deadline, now);
    world.pass(SECOND);
    assert_eq!(world.nodes[0].left[&1], Ok(()));
    assert_eq!(world.etcd.record(SERVING).and_then(|record| record.incarnation), Some(Incarnation(2)));
}

#[test]
fn law_4_the_last_goodbye_deletes_the_record_and_revokes_the_lease() {
    let mut world = registered();
    world.register(0, 2);
    let now = world.now;
    world.nodes[0].table.deregister(1, now + SECOND, now);
    world.settle();
    assert_eq!(world.nodes[0].left[&1], Ok(()));
    assert!(!world.etcd.keys.contains_key(SERVING));
    assert_eq!(world.etcd.leases.len(), 1, "the other instance lives on it");
    world.nodes[0].table.deregister(2, now + SECOND, now);
    world.settle();
    assert!(world.etcd.leases.is_empty() && world.etcd.keys.is_empty());
    assert!(world.nodes[0].table.is_empty());
}

#[test]
fn law_5_a_put_that_lands_after_the_goodbye_is_deleted() {
    let mut world = World::new();
    world.register(0, 2); // keeps the lease alive
    world.nodes[0].hold_commits = true;
    world.register(0, 1);
    assert_eq!(world.nodes[0].held.len(), 1, "a first put, on the wire");
    world.nodes[0].hold_commits = false;
    let now = world.now;
    world.nodes[0].table.deregister(1, now + SECOND, now);
    world.settle();
    assert_eq!(world.nodes[0].left[&1], Ok(()));
    let writes = world.etcd.writes;
    world.arrive(0);
    assert!(world.etcd.writes > writes, "it has landed");
    world.pass(SECOND);
    assert!(!world.etcd.keys.contains_key(SERVING), "and is gone");
    world.pass(TTL * 2);
    assert_eq!(world.status(0, 1), "deregistered");
}

#[test]
fn law_5_with_etcd_down_a_goodbye_ends_at_its_deadline_and_is_said_later() {
    let mut world = registered();
    world.register(0, 2);
    world.etcd.up = false;
    let now = world.now;
    world.nodes[0].table.deregister(1, now + SECOND, now);
    world.pass(SECOND);
    assert!(world.nodes[0].left[&1].is_err());
    world.etcd.back(world.now);
    world.pass(TTL);
    assert!(!world.etcd.keys.contains_key(SERVING), "the other instance kept its lease alive");
}

#[test]
fn law_5_an_id_that_is_registered_and_left_again_while_etcd_is_down_leaves_nothing() {
    let mut world = registered();
    world.register(0, 2);
    world.etcd.up = false;
    for (old, new) in [(1, 3), (3, 4)] {
        let now = world.now;
        world.nodes[0].table.deregister(old, now, now);
        let instance = Instance::new("greeter", "i-1", "10.0.0.1:50051").unwrap();
        world.nodes[0].table.register(new, instance, now);
        world.pass(SECOND / 10);
    }
    let now = world.now;
    world.nodes[0].table.deregister(4, now, now);
    world.pass(SECOND);
    assert!(world.etcd.keys.contains_key(SERVING), "nobody could tell etcd");
    world.etcd.back(world.now);
    world.pass(TTL);
    assert!(!world.etcd.keys.contains_key(SERVING), "the other instance kept its lease alive");
}

#[test]
fn law_5_a_goodbye_that_cannot_be_said_for_long_costs_no_work() {
    let mut world = registered();
    world.register(0, 2);
    world.etcd.up = false;
    let now = world.now;
    world.nodes[0].table.deregister(1, now + SECOND, now);
    // The model panics when something is due again and again without end.
    world.pass(TTL * 4);
    world.etcd.back(world.now);
    world.pass(TTL);
    assert!(!world.etcd.keys.contains_key(SERVING));
    assert_eq!(world.status(0, 2), "registered");
}

#[test]
fn a_stop_before_the_first_registration_shows_clients_nothing() {
    let mut world = World::new();
    world.etcd.up = false;
    world.register(0, 1);
    let now = world.now;
    world.nodes[0].table.stop(1, now);
    world.settle();
    assert_eq!(world.phase(0), Phase::Drained, "there is nothing to wait for");
    world.etcd.back(now);
    world.pass(SECOND);
    assert_eq!(world.standing(), drained(), "never under the first root");
}

#[test]
fn a_stop_while_the_first_registration_is_under_way_gives_clients_notice() {
    let mut world = World::new();
    world.nodes[0].hold_commits = true;
    world.register(0, 1);
    let now = world.now;
    world.nodes[0].table.stop(1, now);
    world.settle();
    assert_ne!(world.phase(0), Phase::Drained, "it may be on its way");
    world.nodes[0].hold_commits = false;
    world.arrive(0);
    let now = world.now;
    world.nodes[0].table.inflight(1, 0, now);
    world.pass(SECOND / 2);
    assert_eq!(world.phase(0), Phase::Draining, "clients take note");
    world.pass(SECOND * 2);
    assert_eq!((world.standing(), world.phase(0)), (drained(), Phase::Drained));
}

#[test]
fn law_7_an_intent_is_obeyed_and_its_end_too() {
    let mut world = registered();
    let now = world.now;
    world.nodes[0].table.inflight(1, 3, now);
    world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
    world.pass(SECOND * 2);
    assert_eq!(world.standing(), [(Root::Draining, "draining".into())]);
    assert_eq!(world.phase(0), Phase::Draining);
    let now = world.now;
    world.nodes[0].table.inflight(1, 0, now);
    world.pass(SECOND);
    assert_eq!(world.standing(), drained());
    world.etcd.delete(INTENT);
    world.pass(SECOND);
    assert_eq!((world.standing(), world.phase(0)), (serving(), Phase::Serving));
}

#[test]
fn law_6_a_serving_record_waits_for_the_servers_health() {
    let mut world = World::new();
    world.etcd.up = false;
    world.register(0, 1);
    world.nodes[0].table.shown(1, false, world.now);
    world.pass(SECOND * 20);
    assert_eq!(world.phase(0), Phase::Starting, "nobody knows whether it may serve");
    world.etcd.back(world.now);
    world.pass(SECOND * 20);
    assert_eq!((world.phase(0), world.standing()), (Phase::Serving, vec![]), "health first");
    world.nodes[0].table.shown(1, true, world.now);
    world.pass(SECOND);
    assert_eq!(world.standing(), serving());
    // It is so at each return, and nothing but serving waits for it.
    world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
    world.pass(SECOND * 5);
    world.nodes[0].table.shown(1, false, world.now);
    assert_eq!((world.phase(0), world.standing()), (Phase::Drained, drained()));
    world.etcd.delete(INTENT);
    world.pass(SECOND * 5);
    assert_eq!((world.phase(0), world.standing()), (Phase::Serving, drained()));
    world.nodes[0].table.shown(1, true, world.now);
    world.pass(SECOND);
    assert_eq!(world.standing(), serving());
}

#[test]
fn law_7_an_intent_that_comes_while_the_first_answer_is_lost_finds_a_record_to_drain() {
    let mut world = World::new();
    world.nodes[0].hold_commits = true;
    world.register(0, 1);
    // It lands, and its answer is lost: clients have seen it.
    world.nodes[0].held[0].given_up = true;
    world.arrive(0);
    world.nodes[0].hold_commits = false;
    world.etcd.put(INTENT, &intent(Then::Exit), LeaseId::NONE);
    let now = world.now;
    world.nodes[0].table.committed(1, None, Err(super::model::trouble(crate::etcd::Failure::TimedOut)), now);
    world.nodes[0].table.inflight(1, 1, now);
    world.pass(SECOND * 5);
    assert_eq!(world.standing(), vec![(Root::Draining, "draining".into())], "its call is waited for");
    world.nodes[0].table.inflight(1, 0, world.now);
    world.pass(SECOND);
    assert_eq!(world.phase(0), Phase::Exit, "it was not found at the start");
}

#[test]
fn law_7_an_instance_that_starts_under_an_intent_never_serves() {
    for key in [INTENT, INTENT_FOR_ALL] {
        let mut world = World::new();
        world.etcd.put(key, &intent(Then::Exit), LeaseId::NONE);
        world.register(0, 1);
        assert_eq!((world.standing(), world.phase(0)), (drained(), Phase::Drained), "exit counts as stay");
        world.etcd.delete(key);
        world.pass(SECOND);
        assert_eq!((world.standing(), world.phase(0)), (serving(), Phase::Serving));
    }
}

#[test]
fn law_7_an_intent_put_between_read_and_write_is_not_overlooked() {
    let mut world = World::new();
    world.nodes[0].hold_commits = true;
    world.register(0, 1);
    world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
    world.nodes[0].hold_commits = false;
    world.arrive(0);
    assert_eq!(world.standing(), drained());
}

#[test]
fn law_7_intents_survive_wipes_of_the_lease_and_outlive_the_instance() {
    let mut world = registered();
    world.etcd.put(INTENT_FOR_ALL, &intent(Then::Stay), LeaseId::NONE);
    world.pass(SECOND * 3);
    let lease = world.etcd.keys[DRAINING].lease;
    world.etcd.revoke(lease);
    world.pass(SECOND);
    assert_eq!(world.standing(), drained(), "re-registered where the intent says");
    world.nodes[0].stopped = true;
    let restarted = world.start(3000);
    world.register(restarted, 1);
    assert_eq!(world.standing(), drained(), "CLI-4: a drained instance that restarts is still drained");
}

#[test]
fn law_7_remove_takes_the_record_away_until_the_intent_is_gone() {
    let mut world = registered();
    world.etcd.put(INTENT, &intent(Then::Remove), LeaseId::NONE);
    world.pass(SECOND * 3);
    assert_eq!((world.standing(), world.status(0, 1)), (Vec::new(), "removed"));
    world.pass(TTL * 2);
    assert_eq!(world.standing(), []);
    world.etcd.delete(INTENT);
    world.pass(SECOND);
    assert_eq!((world.standing(), world.status(0, 1)), (serving(), "registered"));
}

#[test]
fn law_7_an_intent_put_while_a_removal_is_under_way_is_not_overlooked() {
    for told_at_once in [true, false] {
        let mut world = registered();
        world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
        world.pass(SECOND * 10);
        assert_eq!(world.standing(), drained());
        world.nodes[0].hold_commits = true;
        world.etcd.put(INTENT, &intent(Then::Remove), LeaseId::NONE);
        world.pass(SECOND);
        assert_eq!(world.nodes[0].held.len(), 1, "the removal is on the wire");
        world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
        if told_at_once {
            world.settle();
        }
        world.nodes[0].hold_commits = false;
        world.arrive(0);
        world.pass(SECOND);
        assert_eq!(world.standing(), drained(), "told at once: {told_at_once}");
    }
}

#[test]
fn law_7_an_override_is_obeyed_within_a_second_and_its_end_too() {
    let mut world = registered();
    let weight = |world: &World| world.etcd.record(SERVING).map(|record| record.weight.get());
    let own = world.etcd.keys[SERVING].value.clone();
    world.etcd.put(SET, br#"{"weight":7,"zone":"b"}"#, LeaseId::NONE);
    world.pass(SECOND);
    assert_eq!(weight(&world), Some(7));
    // It holds for what is registered anew, and for a successor.
    let lease = world.etcd.keys[SERVING].lease;
    world.etcd.revoke(lease);
    world.pass(SECOND);
    assert_eq!(weight(&world), Some(7), "after a lost lease");
    let writes = world.etcd.writes;
    world.pass(TTL * 3);
    assert_eq!(world.etcd.writes, writes, "no writes in steady state");
    world.etcd.delete(SET);
    world.pass(SECOND);
    assert_eq!(world.etcd.keys[SERVING].value, own, "as it was");
}

#[test]
fn law_7_an_override_put_between_read_and_write_is_not_overlooked() {
    let mut world = World::new();
    world.nodes[0].hold_commits = true;
    world.register(0, 1);
    world.etcd.put(SET, br#"{"weight":7}"#, LeaseId::NONE);
    world.nodes[0].hold_commits = false;
    world.arrive(0);
    let record = world.etcd.record(SERVING).expect("registered");
    assert_eq!(record.weight.get(), 7);
}

#[test]
fn law_7_an_override_too_large_for_a_record_keeps_no_instance_away() {
    let mut world = World::new();
    let huge = format!(r#"{{"weight":7,"tags":{{"a":"{}"}}}}"#, "x".repeat(crate::record::MAX_VALUE));
    world.etcd.put(SET, huge.as_bytes(), LeaseId::NONE);
    world.register(0, 1);
    assert_eq!(world.status(0, 1), "registered");
}

/// An operator's slip of the pen took a service out: what lies in etcd has to be read by every client.
#[test]
fn law_7_an_override_that_nobody_could_read_overrides_nothing() {
    let mut world = registered();
    for (set, weight) in
        [(r#"{"tags":{"note":"multi\nline","a\tb":"c"}}"#, 100), (r#"{"weight":7,"zone":"\u001b[31m"}"#, 7)]
    {
        world.etcd.put(SET, set.as_bytes(), LeaseId::NONE);
        world.pass(SECOND * 2);
        let record = world.etcd.record(SERVING).expect("it can be read");
        assert_eq!((record.weight.get(), record.tags.len(), record.zone), (weight, 0, None), "{set}");
    }
}

#[test]
fn an_instance_that_nobody_could_read_is_not_put_and_says_why() {
    let mut world = World::new();
    let now = world.now;
    let instance = || Instance::new("greeter", "i-1", "10.0.0.1:50051").unwrap();
    world.nodes[0].table.register(1, instance().with_zone("a\tb"), now);
    world.pass(SECOND);
    assert_eq!(world.standing(), []);
    let why = format!("{:?}", world.nodes[0].statuses[&1]);
    assert!(why.contains("field zone: ") && why.contains("control characters"), "{why}");
    let now = world.now;
    world.nodes[0].table.update(1, instance(), now);
    world.pass(SECOND);
    assert_eq!((world.standing(), world.status(0, 1)), (serving(), "registered"));
}

#[test]
fn who_is_not_ready_is_out_and_stays_so_through_losses_until_it_is_ready() {
    let mut world = registered();
    let now = world.now;
    world.nodes[0].table.ready(1, Err("away".into()), now);
    world.pass(SECOND * 3);
    let draining = vec![(Root::Draining, "draining".to_owned())];
    assert_eq!((world.standing(), world.phase(0)), (draining.clone(), Phase::Draining));
    let reason = |world: &World| world.etcd.record(DRAINING).and_then(|record| record.reason);
    assert_eq!(reason(&world).as_deref(), Some("away"));
    let lease = world.etcd.keys[DRAINING].lease;
    world.etcd.revoke(lease);
    world.pass(SECOND);
    assert_eq!((world.standing(), reason(&world).as_deref()), (draining, Some("away")));
    let writes = world.etcd.writes;
    world.pass(TTL * 3);
    assert_eq!(world.etcd.writes, writes, "law 9: no writes in steady state");
    let now = world.now;
    world.nodes[0].table.ready(1, Ok(()), now);
    world.pass(SECOND);
    assert_eq!((world.standing(), world.phase(0)), (serving(), Phase::Serving));
}

#[test]
fn law_7_what_the_operator_wants_wins_over_the_instances_own_readiness() {
    let mut world = registered();
    let ready = |world: &mut World, ready: Result<(), &str>| {
        let now = world.now;
        world.nodes[0].table.ready(1, ready.map_err(Into::into), now);
        world.pass(SECOND * 3);
    };
    world.etcd.put(INTENT, &intent(Then::Stay), LeaseId::NONE);
    ready(&mut world, Err("away"));
    assert_eq!(world.standing(), drained());
    ready(&mut world, Ok(()));
    assert_eq!(world.standing(), drained(), "a passing check undrains nobody");
    ready(&mut world, Err("away"));
    world.etcd.delete(INTENT);
    world.pass(SECOND);
    assert_eq!(world.standing(), [(Root::Draining, "draining".into())], "an undrain mends nothing");
    ready(&mut world, Ok(()));
    assert_eq!(world.standing(), serving());
}

#[test]
fn a_reason_too_large_for_a_record_keeps_no_instance_in() {
    let mut world = World::new();
    let instance = Instance::new("greeter", "i-1", "10.0.0.1:50051").unwrap();
    let now = world.now;
    let room = crate::record::MAX_VALUE - 500;
    world.nodes[0].table.register(1, instance.with_tag("a", "x".repeat(room)), now);
    world.settle();
    world.nodes[0].table.ready(1, Err("y".repeat(200).into()), now);
    world.pass(SECOND * 3);
    assert_eq!(world.standing(), [(Root::Draining, "draining".into())]);
    assert_eq!(world.etcd.record(DRAINING).and_then(|record| record.reason), None);
}

#[test]
fn law_9_nothing_is_written_in_steady_state_and_updates_are_coalesced() {
    let mut world = registered();
    let writes = world.etcd.writes;
    world.pass(TTL * 20);
    assert_eq!(world.etcd.writes, writes);
    for zone in 0..1000 {
        let instance =
            Instance::new("greeter", "i-1", "10.0.0.1:50051").unwrap().with_zone(format!("z{zone}"));
        let now = world.now;
        world.nodes[0].table.update(1, instance, now);
        world.pass(Duration::from_millis(1));
    }
    world.pass(SECOND);
    let writes = world.etcd.writes - writes;
    assert!((5..=12).contains(&writes), "{writes} writes for 1000 updates in a second");
    assert_eq!(world.etcd.record(SERVING).and_then(|record| record.zone).as_deref(), Some("z999"));
}

#[test]
fn a_hundred_keys_share_a_lease() {
    let mut world = World::new();
    for id in 1..=250 {
        world.register(0, id);
    }
    assert_eq!((world.etcd.leases.len(), world.etcd.keys.len()), (3, 250));
}

#[test]
fn registering_an_id_again_in_one_process_takes_it_over() {
    let mut world = registered();
    let created = world.etcd.keys[SERVING].create;
    let instance = Instance::new("greeter", "i-1", "10.0.0.2:50051").unwrap();
    let now = world.now;
    world.nodes[0].table.register(2, instance, now);
    world.pass(TTL * 2);
    assert_eq!(world.etcd.keys[SERVING].create, created, "clients never saw it leave");
    assert_eq!(world.etcd.grants, 1, "the lease is kept");
    assert_eq!((world.status(0, 1), world.status(0, 2)), ("superseded", "registered"));
    let record = world.etcd.record(SERVING).expect("one record");
    assert_eq!(record.address.to_string(), "10.0.0.2:50051");
}
