use super::*;
use crate::health::outlier::FailurePercentage;
use crate::owner::snapshot::Verdict;
use crate::resolution::Resolution;

struct Bench {
    set: EndpointSet,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(true, 64)
    }

    fn with(connects_all: bool, max_dials: usize) -> Self {
        let outliers = OutlierDetection::default();
        let rng = fastrand::Rng::with_seed(1);
        let connections = Connections { set: 1, most: 3 };
        let set =
            EndpointSet::new(Duration::from_secs(120), outliers, connections, connects_all, max_dials, rng);
        Self { set, now: Instant::now() }
    }

    fn insert(&mut self, id: u64, address: &str) -> Vec<Action> {
        self.set.insert(EndpointId(id), Endpoint::new(address).expect("an address"), self.now);
        self.set.take().0
    }

    fn report(&mut self, connection: ConnectionId, report: Report) -> Vec<Action> {
        self.set.report(connection, report, self.now);
        self.set.take().0
    }

    /// Inserts endpoints 0 to `count` and lets them connect.
    fn ready(count: u64) -> Self {
        let mut bench = Self::new();
        for id in 0..count {
            let dialled = dials(&bench.insert(id, &format!("10.0.0.1:{}", id + 1)));
            bench.report(dialled[0], Report::Ready);
        }
        assert_eq!(bench.serving().len(), count as usize);
        bench
    }

    fn serving(&self) -> Vec<(EndpointId, ConnectionId)> {
        self.set.ready().into_iter().filter_map(|(id, e)| Some((id, e.life.link()?))).collect()
    }

    fn verdict(&self, resolution: &Resolution, waited: bool) -> Verdict {
        self.set.verdict("greeter", resolution, waited, self.now)
    }

    fn pass(&mut self) -> Vec<Action> {
        self.now = self.set.next_alarm().expect("an alarm");
        self.set.alarm(self.now);
        self.set.take().0
    }
}

fn dials(actions: &[Action]) -> Vec<ConnectionId> {
    actions.iter().filter_map(|a| if let Action::Dial { id, .. } = a { Some(*id) } else { None }).collect()
}

fn lost(served: bool) -> Report {
    Report::Lost { reason: "reset".into(), served }
}

const LIVE: Resolution = Resolution::Live { known: 1 };

#[test]
fn no_more_than_the_set_number_dial_at_once() {
    let mut bench = Bench::with(true, 2);
    let dialled: Vec<_> =
        (0..5).flat_map(|id| dials(&bench.insert(id, &format!("10.0.0.1:{}", id + 1)))).collect();
    assert_eq!(dialled.len(), 2);
    assert_eq!(dials(&bench.report(dialled[0], Report::Ready)).len(), 1, "a turn is free");
    bench.set.remove(EndpointId(1), bench.now);
    assert_eq!(dials(&bench.set.take().0).len(), 1, "a removed endpoint gives its turn up");
}

#[test]
fn a_call_waits_while_the_first_answer_is_pending_and_while_endpoints_connect_for_the_first_time() {
    let mut bench = Bench::new();
    assert!(matches!(bench.verdict(&Resolution::Pending, false), Verdict::Wait(_)));
    assert!(
        matches!(bench.verdict(&Resolution::Pending, true), Verdict::Fail(_)),
        "not longer than its time"
    );
    assert!(matches!(bench.verdict(&LIVE, false), Verdict::Fail(_)), "confirmed empty");
    let dialled = dials(&bench.insert(0, "h:1"));
    assert!(matches!(bench.verdict(&LIVE, true), Verdict::Wait(_)));
    bench.report(dialled[0], Report::DialFailed("refused".into()));
    assert!(matches!(bench.verdict(&LIVE, true), Verdict::Fail(_)));
    let again = dials(&bench.pass());
    assert_eq!(again.len(), 1);
    assert!(matches!(bench.verdict(&LIVE, true), Verdict::Fail(_)), "failed until it is Ready again");
}

#[test]
fn a_call_that_fails_is_told_what_is_known_and_the_last_error() {
    let mut bench = Bench::new();
    let dialled = dials(&bench.insert(0, "h:1"));
    bench.report(dialled[0], Report::DialFailed("connection refused".into()));
    let verdict = bench.verdict(&Resolution::Stale { since: bench.now, reason: "etcd is away".into() }, true);
    insta::assert_snapshot!(verdict.reason(), @"greeter: no endpoint is ready: 1 known, 0 connecting, 1 failed, 0 ejected; discovery is stale for 0ns: etcd is away; last error: instance h:1: connection refused");
    insta::assert_snapshot!(Bench::new().verdict(&Resolution::Live { known: 0 }, true).reason(), @"greeter: no endpoint is ready: none is known; discovery is live and knows 0");
}

#[test]
fn a_changed_weight_does_not_reconnect() {
    let mut bench = Bench::ready(1);
    let before = bench.serving();
    bench.set.insert(EndpointId(0), Endpoint::new("10.0.0.1:1").expect("an address").weight(7), bench.now);
    let (actions, changed) = bench.set.take();
    assert_eq!((actions, changed), (vec![], Some(false)));
    assert_eq!(bench.serving(), before);
}

#[test]
fn an_insert_that_changes_nothing_publishes_nothing() {
    let mut bench = Bench::ready(1);
    bench.insert(0, "10.0.0.1:1");
    bench.set.insert(EndpointId(0), Endpoint::new("10.0.0.1:1").expect("an address"), bench.now);
    assert_eq!(bench.set.take(), (vec![], None));
}

#[test]
fn a_removed_endpoint_takes_no_calls_and_its_connection_drains() {
    let mut bench = Bench::ready(2);
    let (_, link) = bench.serving()[0];
    bench.set.remove(EndpointId(0), bench.now);
    assert_eq!(bench.set.take(), (vec![Action::Close(link)], Some(true)));
    assert_eq!(bench.serving().len(), 1);
    assert_eq!(bench.report(link, lost(true)), [], "its end is no news");
}

#[test]
fn a_connection_that_is_ready_too_late_is_closed() {
    let mut bench = Bench::new();
    let dialled = dials(&bench.insert(0, "h:1"));
    bench.set.remove(EndpointId(0), bench.now);
    bench.set.take();
    assert_eq!(bench.report(dialled[0], Report::Ready), [Action::Close(dialled[0])]);
}

#[test]
fn at_goaway_the_connection_leaves_and_its_replacement_is_dialled() {
    let mut bench = Bench::ready(2);
    let (_, link) = bench.serving()[0];
    let dialled = dials(&bench.report(link, Report::GoAway { served: true }));
    assert_eq!((dialled.len(), bench.serving().len()), (1, 1));
    bench.report(dialled[0], Report::Ready);
    assert_eq!(bench.report(link, lost(true)), [], "the old one ends without a word");
    assert_eq!(bench.serving().len(), 2);
}

#[test]
fn the_last_ready_endpoint_is_never_ejected() {
    let mut bench = Bench::ready(2);
    let (first, second) = (bench.serving()[0].1, bench.serving()[1].1);
    bench.report(first, Report::Suspect(Cause::BlackHole));
    assert_eq!(bench.serving(), [(EndpointId(1), second)]);
    bench.report(second, Report::Suspect(Cause::BlackHole));
    assert_eq!(bench.serving(), [(EndpointId(1), second)]);
}

#[test]
fn where_all_that_are_connected_are_ejected_they_take_calls() {
    let mut bench = Bench::ready(2);
    let (first, second) = (bench.serving()[0].1, bench.serving()[1].1);
    bench.report(first, Report::Suspect(Cause::BlackHole));
    bench.report(second, lost(true));
    assert_eq!(bench.serving(), [(EndpointId(0), first)]);
}

#[test]
fn where_too_few_are_healthy_failing_ones_take_calls_and_black_holes_do_not() {
    let mut bench = Bench::ready(5);
    let links: Vec<_> = bench.serving().into_iter().map(|(_, link)| link).collect();
    bench.report(links[0], Report::Suspect(Cause::BlackHole));
    bench.report(links[1], Report::Suspect(Cause::Failing));
    bench.report(links[2], Report::Suspect(Cause::Failing));
    assert_eq!(bench.serving().len(), 2, "two of four that answer are healthy: enough");
    bench.report(links[3], Report::Suspect(Cause::Failing));
    let serving: Vec<_> = bench.serving().into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(serving, [1, 2, 3, 4], "one of four is too few: traffic goes on to all that answer");
}

#[test]
fn the_statistics_eject_but_never_the_last() {
    let mut bench = Bench::ready(2);
    bench.set.outliers.failure_percentage =
        Some(FailurePercentage { minimum_hosts: 1, ..FailurePercentage::default() });
    bench.set.outliers.max_ejection_percent = 100;
    bench.set.outliers.panic_threshold_percent = 0;
    let tally = |id| Tally { endpoint: EndpointId(id), answered: 0, failed: 100, ejected: false };
    bench.set.sweep(&[tally(0), tally(1)], bench.now);
    assert_eq!(bench.serving().len(), 1);
    let kept: Vec<_> =
        bench.set.take().0.into_iter().filter(|action| matches!(action, Action::Kept(..))).collect();
    assert_eq!(kept, [Action::Kept(Detection::FailurePercentage, Kept::Last)], "and that is told");
}

#[test]
fn where_streams_run_out_another_connection_is_dialled_up_to_the_most() {
    let mut bench = Bench::ready(1);
    let (_, link) = bench.serving()[0];
    for count in 2..=3 {
        let dialled = dials(&bench.report(link, Report::Saturated));
        assert_eq!(dialled.len(), 1);
        assert_eq!(dials(&bench.report(link, Report::Saturated)), [], "one at a time");
        bench.report(dialled[0], Report::Ready);
        assert_eq!(bench.set.ready()[0].1.connections().count(), count);
    }
    assert_eq!(dials(&bench.report(link, Report::Saturated)), [], "the most is reached");
}

#[test]
fn a_sibling_takes_the_place_of_a_link_that_ends_and_none_outlives_the_endpoint() {
    let mut bench = Bench::ready(1);
    let (_, link) = bench.serving()[0];
    let sibling = dials(&bench.report(link, Report::Saturated))[0];
    bench.report(sibling, Report::Ready);
    assert_eq!(dials(&bench.report(link, lost(true))), [], "nothing to dial");
    assert_eq!(bench.serving(), [(EndpointId(0), sibling)]);
    let second = dials(&bench.report(sibling, Report::Saturated))[0];
    bench.report(second, Report::Ready);
    bench.set.remove(EndpointId(0), bench.now);
    assert_eq!(bench.set.take().0, [Action::Close(sibling), Action::Close(second)]);
}

#[test]
fn pick_first_connects_one_and_the_next_when_that_fails() {
    let mut bench = Bench::with(false, 64);
    let first = dials(&bench.insert(0, "h:1"));
    assert_eq!(first.len(), 1);
    assert_eq!(dials(&bench.insert(1, "h:2")), []);
    let second = dials(&bench.report(first[0], Report::DialFailed("refused".into())));
    assert_eq!(second.len(), 1);
    assert_eq!(dials(&bench.report(second[0], Report::Ready)), []);
    assert_eq!(bench.serving(), [(EndpointId(1), second[0])]);
    assert_eq!(dials(&bench.insert(2, "h:3")), [], "one is enough");
    let again = dials(&bench.report(second[0], lost(true)));
    assert_eq!(again.len(), 1);
}

#[test]
fn a_held_endpoint_goes_when_its_connection_ends() {
    let mut bench = Bench::ready(1);
    let (_, link) = bench.serving()[0];
    let held = Endpoint::new("10.0.0.1:1")
        .expect("an address")
        .held_until(Some(bench.now + Duration::from_secs(30)));
    bench.set.insert(EndpointId(0), held, bench.now);
    assert_eq!(bench.set.take(), (vec![Action::Ping(link)], Some(false)));
    assert_eq!(bench.serving().len(), 1, "it serves on");
    bench.report(link, lost(true));
    assert_eq!(bench.set.entries().count(), 0);
}

#[test]
fn what_takes_calls_away_is_urgent_and_what_adds_is_not() {
    let mut bench = Bench::ready(3);
    bench.set.take();
    let (id, link) = bench.serving()[0];
    bench.set.report(link, lost(true), bench.now);
    assert_eq!(bench.set.take().1, Some(true), "a connection that ended");
    bench.set.remove(id, bench.now);
    assert_eq!(bench.set.take().1, Some(false), "one that took no calls any more");
    let (id, _) = bench.serving()[0];
    bench.set.remove(id, bench.now);
    assert_eq!(bench.set.take().1, Some(true), "one that took calls");
    bench.set.insert(EndpointId(9), Endpoint::new("10.0.0.1:9").expect("an address"), bench.now);
    assert_eq!(bench.set.take().1, Some(false), "a new one");
}

#[test]
fn only_what_has_changed_is_shown_anew() {
    let mut bench = Bench::ready(1000);
    bench.set.take_touched();
    let (id, link) = bench.serving()[500];
    bench.report(link, lost(true));
    bench.report(link, lost(true));
    assert_eq!(bench.set.take_touched(), [id]);
    assert_eq!(bench.set.take_touched(), []);
}

#[test]
fn work_per_report_does_not_grow_with_the_set() {
    // A thousand endpoints: one report brings one action, and only the alarms of the one change.
    let mut bench = Bench::ready(1000);
    let (_, link) = bench.serving()[500];
    assert_eq!(bench.report(link, lost(true)).len(), 1);
    assert!(bench.set.alarms.is_empty());
}

const WINDOW: Duration = Duration::from_secs(10);

impl Bench {
    /// `count` endpoints whose slow start is over.
    fn warm(count: u64) -> Self {
        let mut bench = Self::new();
        bench.set.set_slow_start(Some(SlowStart::new(WINDOW)));
        for id in 0..count {
            let dialled = dials(&bench.insert(id, &format!("10.0.0.1:{}", id + 1)));
            bench.report(dialled[0], Report::Ready);
        }
        assert_eq!(bench.warming(), (0..count).collect::<Vec<_>>(), "ready for the first time");
        bench.now += WINDOW;
        assert!(bench.warming().is_empty());
        bench.set.alarm(bench.now);
        assert!(bench.set.take().1.is_some(), "published without slow start");
        bench
    }

    fn warming(&self) -> Vec<u64> {
        let warming = |(id, e): (EndpointId, &Entry)| self.set.warming(e, self.now).map(|_| id.0);
        self.set.ready().into_iter().filter_map(warming).collect()
    }
}

#[test]
fn a_replaced_connection_makes_nothing_new() {
    let mut bench = Bench::warm(3);
    let links: Vec<_> = bench.serving().into_iter().map(|(_, link)| link).collect();
    let mut again = dials(&bench.report(links[0], Report::GoAway { served: true }));
    again.extend(dials(&bench.report(links[1], lost(true))));
    let moved = Endpoint::new("10.0.0.9:9").expect("an address");
    bench.set.insert(EndpointId(2), moved, bench.now);
    again.extend(dials(&bench.set.take().0));
    bench.now += Duration::from_millis(500);
    for connection in again {
        bench.report(connection, Report::Ready);
    }
    assert_eq!((bench.serving().len(), bench.warming()), (3, vec![]));
    assert_eq!(bench.set.next_alarm(), None);
}

#[test]
fn an_endpoint_that_comes_back_from_backoff_or_ejection_is_new() {
    let mut bench = Bench::warm(3);
    let links: Vec<_> = bench.serving().into_iter().map(|(_, link)| link).collect();
    let again = dials(&bench.report(links[0], lost(true)));
    bench.report(again[0], Report::DialFailed("refused".into()));
    bench.report(links[1], Report::Suspect(Cause::Failing));
    let again = dials(&bench.pass());
    bench.report(again[0], Report::Ready);
    assert_eq!(bench.warming(), [0]);
    assert_eq!(bench.pass(), [Action::Ping(links[1])]);
    bench.report(links[1], Report::Pong);
    assert_eq!(bench.warming(), [0, 1]);
    // One publication when the last of them is warm.
    bench.now += WINDOW;
    bench.set.alarm(bench.now);
    assert_eq!((bench.set.take(), bench.set.next_alarm()), ((vec![], Some(false)), None));
}

#[test]
fn endpoints_that_do_not_serve_take_no_calls_and_the_error_counts_them() {
    let mut bench = Bench::new();
    bench.set.set_checks(true, bench.now);
    let first = dials(&bench.insert(0, "h:1"))[0];
    let second = dials(&bench.insert(1, "h:2"))[0];
    assert_eq!(bench.report(first, Report::Ready), [Action::Check(first), Action::MayGrow(EndpointId(0))]);
    bench.report(second, Report::Ready);
    assert!(bench.set.ready().is_empty());
    assert!(matches!(bench.verdict(&LIVE, false), Verdict::Wait(_)), "they were asked");
    bench.report(first, Report::Health(None));
    bench.report(second, Report::Health(Some("NOT_SERVING".into())));
    assert_eq!(bench.serving(), [(EndpointId(0), first)]);
    bench.report(first, Report::Health(Some("NOT_SERVING".into())));
    assert!(bench.set.ready().is_empty(), "not even where nobody else is left");
    let verdict = bench.verdict(&LIVE, false);
    assert!(matches!(verdict, Verdict::Fail(_)));
    assert!(verdict.reason().contains("0 failed, 0 ejected, 2 not serving;"), "{}", verdict.reason());
    assert!(verdict.reason().ends_with("NOT_SERVING"), "{}", verdict.reason());
}

#[test]
fn pick_first_does_not_check() {
    let mut bench = Bench::with(false, 64);
    bench.set.set_checks(true, bench.now);
    let dialled = dials(&bench.insert(0, "h:1"))[0];
    bench.report(dialled, Report::Ready);
    assert_eq!(bench.serving(), [(EndpointId(0), dialled)]);
}

#[test]
fn an_address_that_is_gone_is_left_and_one_that_comes_is_not_taken_for_its_own_sake() {
    let (a, b, c) = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1");
    let mut bench = Bench::new();
    let mut told = |addresses: &[&str], reached: Option<&str>| {
        let mut endpoint = Endpoint::new(addresses[0]).expect("an address");
        for further in &addresses[1..] {
            endpoint = endpoint.or_at(further).expect("an address");
        }
        bench.set.insert(EndpointId(0), endpoint, bench.now);
        let dialled = dials(&bench.set.take().0);
        if let (Some(address), Some(connection)) = (reached, dialled.first()) {
            bench.set.reached(*connection, address.parse().expect("an address"));
            bench.report(*connection, Report::Ready);
        }
        dialled.len()
    };
    assert_eq!(told(&[a, b], Some(b)), 1);
    assert_eq!(told(&[b], None), 0, "the one in use stays");
    assert_eq!(told(&[c, b, a], None), 0, "others come, and before it");
    assert_eq!(told(&[c, a], Some(a)), 1, "the one in use is gone");
    assert_eq!(told(&[c], None), 1, "gone again; this dial goes on ...");
    assert_eq!(told(&[c, b], None), 0, "... when an address comes");
    assert_eq!(told(&[b], None), 1, "... and not when the one that is dialled goes");
}

#[test]
fn at_rest_all_connections_are_let_go_and_nothing_is_dialled_until_it_is_woken() {
    let mut bench = Bench::ready(2);
    let third = dials(&bench.insert(2, "h:3"))[0];
    let fourth = dials(&bench.insert(3, "h:4"))[0];
    bench.report(fourth, Report::DialFailed("refused".into()));
    bench.set.rest(bench.now);
    let mut closed: Vec<_> = bench.set.take().0;
    closed.sort_by_key(|action| if let Action::Close(id) = action { id.0 } else { u64::MAX });
    assert_eq!(closed, [ConnectionId(0), ConnectionId(1), third].map(Action::Close));
    assert_eq!(bench.set.next_alarm(), None, "no backoff runs");
    assert!(bench.insert(4, "h:5").is_empty());
    assert!(bench.insert(0, "h:6").is_empty(), "another address is noted");
    bench.set.remove(EndpointId(1), bench.now);
    assert!(
        bench.report(third, Report::Ready) == [Action::Close(third)],
        "it was let go before it was ready"
    );
    assert!(matches!(bench.verdict(&LIVE, true), Verdict::Idle(_)));
    bench.set.take();
    bench.set.wake(bench.now);
    assert_eq!(dials(&bench.set.take().0).len(), 4);
    assert!(matches!(bench.verdict(&LIVE, true), Verdict::Wait(_)), "as on the first day");
}

#[test]
fn checks_that_are_switched_on_leave_what_holds_and_switched_off_forget_what_was_said() {
    let mut bench = Bench::ready(2);
    let links: Vec<_> = bench.serving().into_iter().map(|(_, link)| link).collect();
    bench.set.set_checks(true, bench.now);
    assert_eq!(bench.set.take().0, [Action::Check(links[0]), Action::Check(links[1])]);
    assert_eq!(bench.serving().len(), 2, "until they say otherwise");
    bench.report(links[0], Report::Health(Some("NOT_SERVING".into())));
    assert_eq!(bench.serving(), [(EndpointId(1), links[1])]);
    // pick_first does not check.
    bench.set.configure(OutlierDetection::default(), false, bench.now);
    assert_eq!(bench.set.take().0, [Action::Uncheck(links[0]), Action::Uncheck(links[1])]);
    assert_eq!(bench.serving().len(), 2);
    bench.set.configure(OutlierDetection::default(), true, bench.now);
    assert_eq!(bench.set.take().0, [Action::Check(links[0]), Action::Check(links[1])]);
    bench.report(links[0], Report::Health(Some("NOT_SERVING".into())));
    bench.set.set_checks(false, bench.now);
    assert_eq!(bench.serving().len(), 2);
}

#[test]
fn a_config_that_makes_one_endpoint_enough_keeps_the_others_and_back_connects_only_who_is_not() {
    let mut bench = Bench::ready(3);
    let links: Vec<_> = bench.serving().into_iter().map(|(_, link)| link).collect();
    bench.set.take();
    bench.set.configure(OutlierDetection::default(), false, bench.now);
    assert_eq!(bench.set.take(), (Vec::new(), Some(false)), "nothing is closed");
    assert_eq!(dials(&bench.report(links[1], lost(true))), [], "nobody else is needed");
    assert_eq!(bench.serving().len(), 2);
    bench.set.configure(OutlierDetection::default(), true, bench.now);
    assert_eq!(dials(&bench.set.take().0).len(), 1);
}

#[test]
fn a_config_that_comes_while_the_channel_rests_dials_nobody_before_it_wakes() {
    let mut bench = Bench::ready(3);
    bench.set.configure(OutlierDetection::default(), false, bench.now);
    bench.set.rest(bench.now);
    bench.set.take();
    bench.set.configure(OutlierDetection::default(), true, bench.now);
    assert_eq!(bench.set.take().0, []);
    bench.set.wake(bench.now);
    assert_eq!(dials(&bench.set.take().0).len(), 3);
}

#[test]
fn a_further_connection_that_fails_is_not_dialled_in_a_loop() {
    let mut bench = Bench::ready(1);
    let (_, link) = bench.serving()[0];
    let mut waits = Vec::new();
    for _ in 0..3 {
        let sibling = dials(&bench.report(link, Report::Saturated))[0];
        let after = bench.report(sibling, Report::DialFailed("refused".into()));
        assert_eq!(after, [], "calls that wait are not told to ask again");
        assert_eq!(bench.report(link, Report::Saturated), [], "whoever asks");
        let before = bench.now;
        assert_eq!(bench.pass(), [Action::MayGrow(EndpointId(0))], "until its time has come");
        waits.push((bench.now - before).as_secs_f64());
    }
    assert!(waits[0] >= 0.8 && waits[1] > waits[0] && waits[2] > waits[1], "{waits:?}");
    let sibling = dials(&bench.report(link, Report::Saturated))[0];
    bench.report(sibling, Report::Ready);
    assert_eq!(dials(&bench.report(sibling, lost(false))), [], "nor is one that was of no use");
}
