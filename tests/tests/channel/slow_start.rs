//! Slow start: what new instances take of the load, as their own answers tell. The share is compared with the factor
//! that the dump shows at each call, so that a slow machine changes nothing.

use std::time::Duration;

use futures_util::future::join_all;
use svc_channel::{Channel, EndpointDump, RoundRobin, SlowStart};
use svc_tests::backends::Fleet;

use crate::support::{changing, endpoints, hello, seen, until, until_ready};

/// What one caller saw while the instance was warming: calls, those that it took, those that the curve gives it, and
/// how many it took of the first half of its window.
#[derive(Default)]
struct Seen {
    calls: f64,
    taken: f64,
    expected: f64,
    early: (f64, f64),
}

async fn call_while_warming(channel: &Channel, instance: &str, settled: f64) -> Seen {
    let mut sums = Seen::default();
    let factor = || seen(&channel.dump(), instance).and_then(|endpoint| endpoint.slow_start);
    while let Some(factor) = factor() {
        let reply = hello(channel).await.expect("it serves");
        let taken = f64::from(u8::from(reply.instance == instance));
        sums.calls += 1.0;
        sums.taken += taken;
        sums.expected += factor / (settled + factor);
        if factor < 0.5 {
            sums.early = (sums.early.0 + 1.0, sums.early.1 + taken);
        }
    }
    sums
}

#[tokio::test]
async fn bal_8_the_share_of_a_new_instance_under_load_follows_the_curve() {
    let fleet = Fleet::start(4).await;
    let (changes, discover) = changing();
    let slow_start = SlowStart::new(Duration::from_secs(2));
    let channel = Channel::builder().policy(RoundRobin::new()).slow_start(slow_start).build(discover);
    let mut all = endpoints(&fleet.addresses());
    let new = all.pop().expect("four");
    for settled in all {
        changes.insert(settled).await;
    }
    until_ready(&channel, 3).await;
    let warm = |endpoint: &EndpointDump| endpoint.slow_start.is_none();
    until(&channel, |dump| dump.endpoints.iter().all(warm)).await;

    changes.insert(new).await;
    until_ready(&channel, 4).await;
    let callers = join_all((0..4).map(|_| call_while_warming(&channel, "b3", 3.0))).await;
    let sum = |of: fn(&Seen) -> f64| callers.iter().map(of).sum::<f64>();
    let (calls, taken, expected) = (sum(|s| s.calls), sum(|s| s.taken), sum(|s| s.expected));
    println!("{calls} calls while it was new: {taken} to it, {expected:.1} by the curve");
    // Five standard deviations, and a little for factors that were read just before each call.
    let room = 5.0 * expected.sqrt() + 0.02 * expected + 5.0;
    assert!((taken - expected).abs() < room, "{taken} of {calls}, where the curve gives {expected}");
    let (early, of_early) = (sum(|s| s.early.0), sum(|s| s.early.1));
    let late = (taken - of_early) / (calls - early);
    assert!(of_early / early < late, "it grows: {} early, {late} late", of_early / early);
    assert!(seen(&channel.dump(), "b3").is_some_and(warm));
}

#[tokio::test]
async fn bal_9_where_most_instances_are_new_slow_start_steps_aside() {
    let fleet = Fleet::start(4).await;
    // Longer than the test: all of them are new throughout.
    let slow_start = SlowStart::new(Duration::from_secs(3600));
    let builder = Channel::builder().policy(RoundRobin::new()).slow_start(slow_start);
    let channel = builder.fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    for _ in 0..100 {
        hello(&channel).await.expect("it serves");
    }
    assert_eq!(fleet.calls(), [25; 4]);
    assert!(channel.dump().endpoints.iter().all(|endpoint| endpoint.slow_start.is_some_and(|f| f < 0.5)));
}
