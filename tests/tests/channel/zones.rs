//! Where calls may go: zones and splits, as real backends count them. The shares themselves are tested with seeds in
//! `channel/src/policy/arrange_tests.rs`; here they are coarse, ten standard deviations wide.

use svc_channel::{Channel, ServiceConfig};
use svc_tests::backends::Fleet;

use crate::load::Load;
use crate::support::{changing, endpoint, endpoints, hello, seen, until, until_ready};

/// How many of 1,000 further calls each backend gets.
async fn shares(channel: &Channel, fleet: &Fleet) -> Vec<u64> {
    let before = fleet.calls();
    for _ in 0..1_000 {
        hello(channel).await.expect("it serves");
    }
    fleet.calls().iter().zip(before).map(|(calls, before)| calls - before).collect()
}

#[tokio::test]
async fn calls_stay_in_the_zone_until_it_falls_ill_and_come_back() {
    let mut fleet = Fleet::start(4).await;
    let zoned = endpoints(&fleet.addresses()).into_iter().zip(["a", "a", "b", "b"]);
    let channel = Channel::builder().zone("a").fixed(zoned.map(|(endpoint, zone)| endpoint.zone(zone)));
    until_ready(&channel, 4).await;
    assert_eq!(shares(&channel, &fleet).await[2..], [0, 0], "the zone is whole");

    fleet[0].stop().await;
    until_ready(&channel, 3).await;
    let calls = shares(&channel, &fleet).await;
    assert!(calls[0] == 0 && calls[1].abs_diff(700) < 145, "one of two can take 70 %: {calls:?}");

    fleet[1].stop().await;
    until_ready(&channel, 2).await;
    let calls = shares(&channel, &fleet).await;
    assert!(calls[2] > 300 && calls[3] > 300, "nobody is left: {calls:?}");

    fleet[0].restart().await;
    fleet[1].restart().await;
    until_ready(&channel, 4).await;
    assert_eq!(shares(&channel, &fleet).await[2..], [0, 0], "it is whole again");
}

#[tokio::test]
async fn a_canary_gets_its_percent_and_a_tag_that_changes_keeps_the_connection() {
    let fleet = Fleet::start(3).await;
    let config: ServiceConfig =
        r#"{"split": [{"match": {"version": "v2"}, "percent": 10}]}"#.parse().expect("a config");
    let (changes, discover) = changing();
    let channel = Channel::builder().service_config(config).build(discover);
    for endpoint in endpoints(&fleet.addresses()) {
        changes.insert(endpoint.tag("version", "v1")).await;
    }
    until_ready(&channel, 3).await;
    let load = Load::start(&channel, 4, None);
    // The weight tells when the channel has taken the change.
    let canary = endpoint("b2", &fleet[2].address()).tag("version", "v2").weight(101);
    changes.insert(canary).await;
    until(&channel, |dump| seen(dump, "b2").is_some_and(|b2| b2.weight == 101)).await;
    load.finish_unharmed().await;

    let calls = shares(&channel, &fleet).await;
    assert!(calls[2].abs_diff(100) < 95, "a tenth: {calls:?}");
    changes.remove("b2").await;
    until_ready(&channel, 2).await;
    assert_eq!(shares(&channel, &fleet).await[2], 0, "its share is the others' again");
    assert_eq!(fleet.accepted(), 3, "not one reconnect");
}
