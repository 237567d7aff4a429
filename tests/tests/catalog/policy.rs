//! How operators steer clients: the service config under a service's policy key, and zones.

use std::collections::BTreeSet;

use svc_resolver::{Channel, EndpointState};
use svc_tests::backends::Fleet;
use svc_tests::etcd::TestEtcd;

use crate::client::{Load, hello, resolver, until_seen};

/// Two greeters: `b0` of v1 in zone a, `b1` of v2 in zone b.
async fn two_of_greeter(etcd: &TestEtcd) -> Fleet {
    let fleet = Fleet::start(2).await;
    for (backend, (version, zone)) in fleet.iter().zip([("v1", "a"), ("v2", "b")]) {
        let value = format!(
            r#"{{"state":"serving","address":"{}","version":"{version}","zone":"{zone}"}}"#,
            backend.address()
        );
        put(etcd, &format!("/services/greeter/{}", backend.name()), &value).await;
    }
    fleet
}

async fn put(etcd: &TestEtcd, key: &str, value: &str) {
    etcd.client().await.put(key, value, None).await.expect("etcd takes it");
}

async fn until_ready(channel: &Channel, count: usize) {
    let ready = |state: &EndpointState| *state == EndpointState::Ready;
    until_seen("the backends", channel, |dump| {
        dump.endpoints.iter().filter(|e| ready(&e.state)).count() == count
    })
    .await;
}

async fn until_policy(channel: &Channel, policy: &str) {
    until_seen(policy, channel, |dump| dump.policy == policy).await;
}

/// Who answers fifty calls.
async fn answering(channel: &Channel) -> BTreeSet<String> {
    let mut answering = BTreeSet::new();
    for _ in 0..50 {
        answering.insert(hello(channel).await.expect("it serves"));
    }
    answering
}

const KEY: &str = "/services-control/policy/greeter";
/// Everything to v2, and a policy by which the test sees that it has arrived.
const TO_V2: &str = r#"{"loadBalancingConfig": [{"least_request": {}}],
    "split": [{"match": {"version": "v2"}, "percent": 100}]}"#;

svc_tests::etcd_tests! {
    async fn an_operators_service_config_is_obeyed_live_and_a_bad_one_changes_nothing(etcd: TestEtcd) {
        let fleet = two_of_greeter(&etcd).await;
        let channel = resolver(&etcd.url()).channel("greeter?policy=round_robin").expect("a good target");
        until_ready(&channel, 2).await;
        assert_eq!(answering(&channel).await.len(), 2);
        let load = Load::start(&channel, 4);

        put(&etcd, KEY, TO_V2).await;
        until_policy(&channel, "least_request").await;
        assert_eq!(answering(&channel).await, BTreeSet::from(["b1".to_owned()]));

        // Neither a bad one nor another service's counts; the third write tells when both have been seen.
        put(&etcd, KEY, r#"{"loadBalancingConfig": [{"unheard_of": {}}]}"#).await;
        put(&etcd, "/services-control/policy/greeter-v2", r#"{"loadBalancingConfig": [{"pick_first": {}}]}"#).await;
        put(&etcd, "/services/greeter/b2", r#"{"state":"serving","address":"127.0.0.1:1","weight":7}"#).await;
        until_seen("a third", &channel, |dump| dump.endpoints.len() == 3).await;
        assert_eq!(channel.dump().policy, "least_request", "the last good one stays");
        assert_eq!(answering(&channel).await, BTreeSet::from(["b1".to_owned()]));

        put(&etcd, KEY, r#"{"loadBalancingConfig": [{"weighted_round_robin": {}}]}"#).await;
        until_policy(&channel, "weighted_round_robin").await;
        etcd.client().await.delete(KEY, None).await.expect("etcd deletes");
        until_policy(&channel, "round_robin").await;
        assert_eq!(answering(&channel).await.len(), 2, "as it was built");

        let (calls, failures) = load.finish().await;
        assert!(failures.is_empty(), "{} of {calls} calls failed: {:?}", failures.len(), failures[0]);
        assert_eq!(fleet.accepted(), 2, "no connection was opened twice");
    }

    async fn a_service_config_that_is_there_already_holds_from_the_first_call_on(etcd: TestEtcd) {
        let _fleet = two_of_greeter(&etcd).await;
        put(&etcd, KEY, TO_V2).await;
        let channel = resolver(&etcd.url()).channel("greeter").expect("a good target");
        until_ready(&channel, 2).await;
        assert_eq!(answering(&channel).await, BTreeSet::from(["b1".to_owned()]));
    }

    async fn calls_stay_in_the_zone_that_the_target_names(etcd: TestEtcd) {
        let mut fleet = two_of_greeter(&etcd).await;
        let channel = resolver(&etcd.url()).channel("greeter?zone=b").expect("a good target");
        until_ready(&channel, 2).await;
        assert_eq!(answering(&channel).await, BTreeSet::from(["b1".to_owned()]));
        fleet[1].stop().await;
        until_ready(&channel, 1).await;
        assert_eq!(answering(&channel).await, BTreeSet::from(["b0".to_owned()]));
    }
}
