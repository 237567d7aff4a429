//! The laws of the catalog, on the session alone: events and times in, actions out.

mod fake;
mod histories;

use std::time::Duration;

use self::fake::{Fake, Sim, range};
use super::*;
use crate::etcd::Failure;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn law_1_a_list_is_pinned_to_one_revision_and_the_watch_starts_behind_it() {
    let mut sim = Sim::new();
    sim.etcd.page = 2;
    (0..5).for_each(|n| sim.etcd.put(n, "a"));
    sim.subscribe(range(0));
    sim.read_one();
    sim.etcd.put(9, "late");
    sim.settle();
    assert_eq!(sim.lists, [None, Some(5), Some(5)], "all pages are of the first one's revision");
    assert_eq!(sim.creates[0].start, Revision(6));
    sim.assert_exact();
}

#[test]
fn law_1_a_compaction_between_pages_lists_again_and_the_second_time_without_a_limit() {
    let mut sim = Sim::new();
    sim.etcd.page = 2;
    (0..5).for_each(|n| sim.etcd.put(n, "a"));
    sim.subscribe(range(0));
    sim.read_one();
    sim.etcd.put(0, "b");
    sim.etcd.compact();
    sim.settle();
    assert_eq!(sim.lists, [None, Some(5), None]);
    assert_eq!(sim.limits.last(), Some(&0));
    sim.assert_exact();
}

#[test]
fn law_1_all_events_of_one_revision_apply_together() {
    let mut sim = Sim::following();
    (0..100).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    let steps = sim.published;
    sim.etcd.fragment = 7;
    sim.etcd.delete_all();
    sim.settle();
    assert_eq!(
        sim.published,
        steps + 1,
        "a revoke of 100 keys is one step, in however many fragments it comes"
    );
    sim.assert_exact();
}

#[test]
fn law_1_an_event_at_or_below_the_applied_revision_is_dropped() {
    let mut sim = Sim::following();
    sim.etcd.put(1, "a");
    sim.etcd.put(1, "b");
    sim.settle();
    let steps = sim.published;
    sim.replay(1);
    assert_eq!(sim.published, steps);
    sim.assert_exact();
}

#[test]
fn law_1_events_of_a_stream_that_ended_in_mid_revision_come_again() {
    let mut sim = Sim::following();
    (0..10).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    sim.etcd.fragment = 3;
    sim.etcd.delete_all();
    sim.hear_one();
    sim.cut();
    sim.settle();
    sim.assert_exact();
}

#[test]
fn law_2_a_stream_that_ends_is_resumed_from_the_applied_revision() {
    let mut sim = Sim::following();
    sim.etcd.put(1, "a");
    sim.settle();
    let lists = sim.lists.len();
    sim.cut();
    sim.etcd.put(2, "b");
    sim.settle();
    assert_eq!(sim.lists.len(), lists, "nothing is listed again");
    assert_eq!(sim.creates.last().unwrap().start, Revision(2));
    sim.assert_exact();
}

#[test]
fn law_2_compacted_lists_again_and_gives_only_the_difference() {
    let mut sim = Sim::following();
    (0..50).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    sim.cut();
    (0..3).for_each(|n| sim.etcd.put(n, "b"));
    sim.etcd.delete(49);
    sim.etcd.compact();
    let before = sim.differences;
    sim.settle();
    assert_eq!(sim.differences - before, 4);
    sim.assert_exact();
}

#[test]
fn law_2_an_answer_too_large_to_decode_never_makes_a_loop() {
    let mut sim = Sim::new();
    (30..50).for_each(|n| sim.etcd.put(n, "a"));
    sim.etcd.largest = 10;
    sim.subscribe(range(0));
    sim.settle();
    assert_eq!(sim.limits[..4], [10_000, 1_000, 100, 10], "pages shrink until they fit");
    sim.assert_exact();
    let lists = sim.lists.len();
    sim.end_stream(Failure::TooLarge);
    sim.settle();
    assert!(sim.lists.len() > lists, "what cannot be watched is listed");
}

#[test]
fn law_3_watch_ids_are_never_0_and_never_reused() {
    let mut sim = Sim::new();
    for n in 0..3 {
        sim.subscribe(range(n));
    }
    for _ in 0..20 {
        sim.settle();
        sim.cut();
    }
    let mut ids: Vec<i64> = sim.creates.iter().map(|c| c.id).collect();
    assert!(ids.len() >= 60 && ids.iter().all(|id| *id > 0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), sim.creates.len());
}

#[test]
fn law_3_a_refusal_never_touches_its_siblings() {
    let mut sim = Sim::new();
    sim.subscribe(range(0));
    sim.subscribe(range(1));
    sim.settle();
    let creates = sim.creates.len();
    sim.refuse(&range(1), "etcdserver: permission denied");
    sim.etcd.put(0, "a");
    sim.hear();
    assert_eq!(sim.creates.len(), creates, "the other watch was not touched");
    sim.assert_exact();
    assert!(matches!(sim.session.freshness(&range(1)), Some(Freshness::Stale { denied: true, .. })));
    sim.settle();
    assert_eq!(sim.session.freshness(&range(1)), Some(Freshness::Live), "it is asked for again");
}

#[test]
fn law_3_a_refusal_under_another_id_means_the_oldest_watch_that_waits() {
    for id in [-1, 0] {
        let mut sim = Sim::following();
        sim.subscribe(range(2));
        sim.refuse_next_as(id, "etcdserver: permission denied");
        assert!(
            matches!(sim.session.freshness(&range(2)), Some(Freshness::Stale { denied: true, .. })),
            "as {id}"
        );
        assert_eq!(sim.session.freshness(&range(0)), Some(Freshness::Live), "its sibling lives");
        sim.settle();
        sim.assert_exact();
    }
}

#[test]
fn law_4_a_revision_that_fell_is_a_restore() {
    let mut sim = Sim::following();
    (0..4).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    sim.etcd = Fake::default();
    sim.etcd.put(7, "new");
    sim.cut();
    sim.settle();
    sim.assert_exact();
}

#[test]
fn law_4_a_wipe_that_grew_past_our_revision_is_found_by_the_anchor() {
    for empty_before in [false, true] {
        let mut sim = Sim::following();
        if !empty_before {
            sim.etcd.put(1, "a");
        }
        sim.settle();
        sim.etcd = Fake::default();
        (0..50).for_each(|n| sim.etcd.put(n, "other"));
        sim.cut();
        sim.settle();
        sim.assert_exact();
    }
}

#[test]
fn law_4_a_wipe_after_which_all_came_back_in_the_same_order_is_found_by_the_lease() {
    let fill = |etcd: &mut Fake, value: &str| (0..5).for_each(|n| etcd.put(n, value));
    let mut sim = Sim::following();
    fill(&mut sim.etcd, "a");
    sim.settle();
    sim.wipe(2);
    fill(&mut sim.etcd, "b");
    sim.etcd.put(7, "more");
    sim.settle();
    sim.assert_exact();
}

#[test]
fn law_4_another_cluster_or_a_lower_term_lists_again() {
    for change in [|etcd: &mut Fake| etcd.cluster += 1, |etcd: &mut Fake| etcd.term -= 1] {
        let mut sim = Sim::following();
        sim.etcd.put(1, "a");
        sim.settle();
        let lists = sim.lists.len();
        change(&mut sim.etcd);
        sim.cut();
        sim.settle();
        assert!(sim.lists.len() > lists);
        sim.assert_exact();
    }
}

#[test]
fn law_4_a_compacted_anchor_alone_is_no_sign_of_a_wipe() {
    let mut sim = Sim::new();
    sim.subscribe(range(2));
    (20..24).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    sim.cut();
    sim.etcd.put(20, "b");
    sim.etcd.delete(21);
    sim.etcd.compact();
    sim.settle();
    assert_eq!(sim.held, 0, "what was deleted meanwhile is gone");
    sim.assert_exact();
}

#[test]
fn law_4_answers_that_overtake_each_other_are_no_sign_of_a_wipe() {
    let mut sim = Sim::following();
    sim.etcd.put(1, "a");
    sim.settle();
    let lists = sim.lists.len();
    sim.cut();
    sim.open_without_reading();
    let old = sim.etcd.header();
    (0..9).for_each(|n| sim.etcd.put(n, "b"));
    sim.hear();
    sim.answer_verify(old);
    sim.settle();
    assert_eq!(sim.lists.len(), lists);
}

#[test]
fn law_5_a_silent_stream_is_asked_and_replaced() {
    let mut sim = Sim::following();
    sim.wait(seconds(6));
    assert_eq!(sim.progress_asked, 1, "after ten seconds of silence");
    sim.answer_progress();
    let opened = sim.opened;
    sim.wait(seconds(60));
    assert!(sim.opened > opened, "asked again, it did not answer");
    sim.assert_exact();
}

#[test]
fn law_5_a_stream_that_never_answers_is_not_replaced_twice_for_silence() {
    let mut sim = Sim::following();
    sim.wait(seconds(600));
    assert_eq!(sim.opened, 2, "replaced once, since it may have been dead");
    sim.etcd.put(1, "a");
    sim.settle();
    sim.assert_exact();
}

#[test]
fn law_5_a_watch_that_is_never_answered_is_not_believed_to_run() {
    let mut sim = Sim::following();
    sim.subscribe(range(2));
    sim.mute_next();
    sim.etcd.put(20, "a");
    sim.wait(seconds(5));
    assert_eq!(sim.opened, 1);
    sim.wait(seconds(15));
    assert_eq!(sim.opened, 2, "another stream");
    sim.assert_exact();
}

#[test]
fn law_6_etcd_unreachable_is_not_empty_and_its_age_is_observable() {
    let mut sim = Sim::following();
    sim.etcd.put(1, "a");
    sim.settle();
    let (steps, since) = (sim.published, sim.now);
    sim.etcd.away = true;
    sim.cut();
    sim.wait(seconds(60));
    assert_eq!(sim.published, steps, "the last known set stays");
    let Some(Freshness::Stale { since: told, .. }) = sim.session.freshness(&range(0)) else {
        panic!("it is said to be stale")
    };
    assert!(told - since < seconds(1));
    sim.etcd.away = false;
    sim.wait(seconds(3));
    assert_eq!(sim.session.freshness(&range(0)), Some(Freshness::Live));
    sim.assert_exact();
}

#[test]
fn law_6_a_wiped_etcd_does_not_take_the_instances_away_at_once() {
    let mut sim = Sim::new();
    sim.subscribe(range(2));
    (20..23).for_each(|n| sim.etcd.put(n, "a"));
    sim.settle();
    sim.etcd = Fake::default();
    sim.cut();
    sim.settle();
    assert_eq!(sim.held, 3);
    sim.etcd.put(20, "a");
    sim.settle();
    assert_eq!(sim.held, 2, "the one that registered again is no longer held");
    sim.wait(seconds(31));
    assert_eq!(sim.held, 0);
    sim.assert_exact();
}

#[test]
fn law_8_work_and_logs_are_bounded_while_etcd_is_away() {
    let mut sim = Sim::new();
    for n in 0..3 {
        sim.subscribe(range(n));
    }
    sim.settle();
    let actions = sim.actions;
    sim.etcd.away = true;
    sim.cut();
    sim.wait(seconds(60));
    assert_eq!(sim.logs, 1, "one line for the outage");
    assert!(sim.actions - actions < 300, "{} actions in a minute", sim.actions - actions);
    assert!(sim.session.timers.len() < 100, "{} timers", sim.session.timers.len());
}

#[test]
fn without_subscribers_there_is_neither_watch_nor_stream() {
    let mut sim = Sim::following();
    sim.subscribe(range(1));
    sim.settle();
    sim.unsubscribe(range(0));
    sim.settle();
    assert_eq!(sim.watching(), [range(1)]);
    sim.unsubscribe(range(1));
    sim.settle();
    assert!(sim.watching().is_empty());
    assert!(matches!(sim.session.stream, Stream::Idle) && sim.session.ids.is_empty());
    sim.subscribe(range(0));
    sim.settle();
    sim.assert_exact();
}
