//! How the policies share calls out, as the backends count them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use svc_channel::{Channel, LeastRequest, PeakEwma, PickFirst, Policy, RoundRobin};
use svc_tests::backends::Fleet;

use crate::support::{endpoints, hello, until_idle, until_ready};

#[tokio::test]
async fn round_robin_gives_each_the_same_share() {
    let fleet = Fleet::start(4).await;
    let channel = Channel::builder().policy(RoundRobin::new()).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    for _ in 0..100 {
        hello(&channel).await.expect("it serves");
    }
    assert_eq!(fleet.calls(), [25; 4]);
}

#[tokio::test]
async fn pick_first_uses_and_connects_one_and_goes_on_to_the_next_when_that_is_lost() {
    let mut fleet = Fleet::start(3).await;
    let channel = Channel::builder().policy(PickFirst::new()).fixed(endpoints(&fleet.addresses()));
    for _ in 0..20 {
        hello(&channel).await.expect("it serves");
    }
    assert_eq!((fleet.calls(), fleet.accepted()), (vec![20, 0, 0], 1));
    fleet[0].stop().await;
    until_ready(&channel, 1).await;
    let reply = hello(&channel).await.expect("the next one serves");
    assert_ne!(reply.instance, "b0");
}

#[tokio::test]
async fn least_request_gives_all_their_share_and_the_slow_one_little() {
    let fleet = Fleet::start(4).await;
    let channel = Channel::builder().policy(LeastRequest::new()).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    for backend in fleet.iter() {
        backend.set_delay(Duration::from_millis(5));
    }
    fleet[3].set_delay(Duration::from_millis(400));
    // 16 callers with 50 calls each: a slow one that had its full share of a quarter would have 200.
    join_all((0..16).map(|_| async {
        for _ in 0..50 {
            hello(&channel).await.expect("it serves");
        }
    }))
    .await;
    let calls = fleet.calls();
    assert_eq!(calls.iter().sum::<u64>(), 800);
    assert!(calls[3] < 100, "the slow one was avoided: {calls:?}");
    assert!(calls[..3].iter().all(|calls| *calls > 100), "the others share the rest: {calls:?}");
    until_idle(&channel).await;
}

/// Latencies of calls by eight callers over eight backends, of which the last is slower, in order; and that one's share.
async fn latencies(policy: impl Policy, slower: Duration) -> (Vec<Duration>, f64) {
    const BASE: Duration = Duration::from_millis(10);
    let fleet = Fleet::start(8).await;
    for backend in fleet.iter() {
        backend.set_delay(BASE);
    }
    fleet[7].set_delay(BASE + slower);
    let channel = Channel::builder().policy(policy).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 8).await;
    let callers = (0..8).map(|_| async {
        let mut taken = Vec::new();
        for _ in 0..100 {
            let begun = Instant::now();
            hello(&channel).await.expect("it serves");
            taken.push(begun.elapsed());
        }
        taken
    });
    let mut taken = join_all(callers).await.concat();
    taken.sort_unstable();
    let calls = fleet.calls();
    (taken, calls[7] as f64 / calls.iter().sum::<u64>() as f64)
}

#[tokio::test]
async fn bal_10_a_backend_100_ms_slower_gets_a_small_share() {
    const SLOWER: Duration = Duration::from_millis(100);
    let p99 = |taken: &[Duration]| taken[taken.len() * 99 / 100];
    let (without, _) = latencies(PeakEwma::new(), Duration::ZERO).await;
    let (with, share) = latencies(PeakEwma::new(), SLOWER).await;
    println!(
        "BAL-10: p99 {:?} without, {:?} with; share of the slow one {share:.4}",
        p99(&without),
        p99(&with)
    );
    // On an idle machine the share is below one in a hundred, so that p99 does not see it (`make bench` has that row). On
    // a busy one all others are slow at times too: asserted is what holds there as well, half of an even share.
    assert!(share < 0.125 / 2.0, "{share}");

    // Calls in flight alone do not tell how slow each of them is; they tell enough for a small share.
    let (_, share) = latencies(LeastRequest::new(), SLOWER).await;
    println!("BAL-10: least_request's share of the slow one {share:.4}");
    assert!(share < 0.125, "an even share: {share}");
}

#[tokio::test]
async fn an_instance_that_holds_streams_gets_fewer_new_calls() {
    let fleet = Fleet::start(2).await;
    let channel = Channel::builder().policy(LeastRequest::new()).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 2).await;
    let request =
        svc_proto::greeter::v1::LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 3_600_000 };
    let stream = crate::support::greeter(&channel).lots_of_replies(request).await.expect("it serves");
    let holder = fleet.iter().position(|backend| backend.counts().open == 1).expect("one of them");
    for _ in 0..20 {
        hello(&channel).await.expect("it serves");
    }
    assert_eq!(fleet.calls()[holder], 0, "its stream counts as load");
    drop(stream);
    until_idle(&channel).await;
}
