//! BAL-17: whatever happens to the `Discover`, the channel lives on with what it has.

use svc_channel::{Channel, RoundRobin};
use svc_tests::backends::Fleet;

use crate::support::{changing, endpoint, endpoints, hello, until_ready};

#[tokio::test]
async fn bal_17_a_discover_that_ends_leaves_a_channel_that_works_and_reconnects() {
    let mut fleet = Fleet::start(2).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().policy(RoundRobin::new()).build(discover);
    for endpoint in endpoints(&fleet.addresses()) {
        changes.insert(endpoint).await;
    }
    drop(changes);
    until_ready(&channel, 2).await;
    hello(&channel).await.expect("it works");
    fleet[0].stop_gracefully().await;
    fleet[0].restart().await;
    until_ready(&channel, 2).await;
    for _ in 0..4 {
        hello(&channel).await.expect("it works");
    }
}

#[tokio::test]
async fn bal_17_a_discover_that_errs_is_asked_again() {
    let fleet = Fleet::start(2).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().build(discover);
    changes.fail("the source is away").await;
    changes.insert(endpoint("b0", &fleet[0].address())).await;
    until_ready(&channel, 1).await;
    changes.fail("the source is away again").await;
    assert_eq!(hello(&channel).await.expect("the first is still there").instance, "b0");
    changes.insert(endpoint("b1", &fleet[1].address())).await;
    until_ready(&channel, 2).await;
    changes.remove("b0").await;
    until_ready(&channel, 1).await;
    assert_eq!(hello(&channel).await.expect("the second").instance, "b1");
}

#[tokio::test]
async fn bal_17_a_discover_that_stalls_costs_nothing_that_is_there() {
    let mut fleet = Fleet::start(2).await;
    let (_stalled, discover) = changing();
    let both = endpoints(&fleet.addresses());
    for endpoint in both {
        _stalled.insert(endpoint).await;
    }
    let channel = Channel::builder().policy(RoundRobin::new()).build(discover);
    until_ready(&channel, 2).await;
    // It moves without discovery and without requests: a lost connection is made again.
    for _ in 0..3 {
        fleet[1].stop_gracefully().await;
        fleet[1].restart().await;
        until_ready(&channel, 2).await;
    }
    for _ in 0..10 {
        hello(&channel).await.expect("it works");
    }
}

#[tokio::test]
async fn a_thousand_endpoints_in_one_batch_are_known_at_once() {
    let fleet = Fleet::start(1).await;
    let (changes, discover) = changing();
    for number in 0..1_000 {
        changes.insert(endpoint(&format!("same{number}"), &fleet[0].address())).await;
    }
    let channel = Channel::builder().build(discover);
    until_ready(&channel, 1_000).await;
    assert_eq!(channel.dump().endpoints.len(), 1_000);
    hello(&channel).await.expect("it works");
}
