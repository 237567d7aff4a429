//! The service config is replaced while calls run.

use std::time::Duration;

use svc_channel::{Channel, EndpointState, ServiceConfig};
use svc_tests::backends::Fleet;
use tokio::sync::watch;
use tonic::Code;

use crate::load::Load;
use crate::support::{changing, endpoints, hello, in_state, until, until_ready};

const POLICIES: [&str; 6] = [
    r#"{"pick_first": {}}"#,
    r#"{"round_robin": {}}"#,
    r#"{"weighted_round_robin": {}}"#,
    r#"{"least_request_experimental": {}}"#,
    r#"{"peak_ewma": {}}"#,
    r#"{"ring_hash_experimental": {"requestHashHeader": "user"}}"#,
];

fn config(json: &str) -> Option<ServiceConfig> {
    Some(json.parse().expect("a good config"))
}

async fn until_policy(channel: &Channel, policy: &str) {
    until(channel, |dump| dump.policy == policy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_configs_among_all_policies_fail_no_call_and_open_no_connection_twice() {
    let fleet = Fleet::start(4).await;
    let (live, configs) = watch::channel(None);
    let versions = endpoints(&fleet.addresses()).into_iter().zip(["v1", "v1", "v2", "v2"]);
    let channel = Channel::builder()
        .service_config_watch(configs)
        .fixed(versions.map(|(endpoint, version)| endpoint.tag("version", version)));
    until_ready(&channel, 4).await;
    let load = Load::start(&channel, 8, Some(Duration::from_secs(20)));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for number in 0..100 {
        let policy = POLICIES[number % POLICIES.len()];
        let detection = format!(
            r#"{{"outlier_detection_experimental": {{"consecutiveFailures": {}, "interval": "{}s",
                "successRateEjection": {{}}, "childPolicy": [{policy}]}}}}"#,
            rng.u32(1..10),
            rng.u32(1..10)
        );
        let json = format!(
            r#"{{"loadBalancingConfig": [{}],
                "methodConfig": [{{"name": [{{}}], "timeout": "{}s", "waitForReady": {}}}],
                "retryThrottling": {{"maxTokens": {}, "tokenRatio": 0.5}},
                "split": [{{"match": {{"version": "v2"}}, "percent": {}}}]}}"#,
            if rng.bool() { policy } else { &detection },
            rng.u32(20..30),
            rng.bool(),
            rng.u32(1..100),
            rng.u32(0..=100)
        );
        live.send_replace(config(&json));
        load.more(rng.u64(1..30)).await;
    }
    live.send_replace(config(r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#));
    until_policy(&channel, "round_robin").await;
    until_ready(&channel, 4).await;
    let tally = load.finish_unharmed().await;
    println!("{} calls, {:?}", tally.ok, fleet.calls());
    assert_eq!(fleet.accepted(), 4, "no connection is opened twice");
}

#[tokio::test]
async fn from_pick_first_to_another_all_are_connected_and_back_they_stay_in_reserve() {
    let mut fleet = Fleet::start(3).await;
    let (live, configs) = watch::channel(config(r#"{"loadBalancingConfig": [{"pick_first": {}}]}"#));
    let channel = Channel::builder().service_config_watch(configs).fixed(endpoints(&fleet.addresses()));
    hello(&channel).await.expect("it serves");
    assert_eq!(fleet.accepted(), 1);

    live.send_replace(None);
    until_ready(&channel, 3).await;
    assert_eq!(channel.dump().policy, "peak_ewma", "the builder's own");

    live.send_replace(config(r#"{"loadBalancingConfig": [{"pick_first": {}}]}"#));
    until_policy(&channel, "pick_first").await;
    let before = fleet.calls();
    for _ in 0..20 {
        hello(&channel).await.expect("it serves");
    }
    let rose: Vec<_> = fleet.calls().iter().zip(before).map(|(calls, before)| calls - before).collect();
    assert_eq!(rose, [20, 0, 0], "one is enough");
    fleet[0].stop().await;
    until(&channel, |dump| in_state(dump, EndpointState::Ready) == 2).await;
    assert_eq!(hello(&channel).await.expect("the next in reserve").instance, "b1");
    assert_eq!(fleet.accepted(), 3, "without a new connection");
}

#[tokio::test]
async fn a_retry_policy_takes_effect_for_the_next_call_and_is_gone_with_its_config() {
    let fleet = Fleet::start(1).await;
    fleet[0].set_fail_percent(100);
    let (live, configs) = watch::channel(None);
    let channel = Channel::builder().service_config_watch(configs).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 1).await;
    let mut received = fleet.calls()[0];
    let mut attempts = || {
        let calls = fleet.calls()[0];
        calls - std::mem::replace(&mut received, calls)
    };
    assert_eq!(hello(&channel).await.expect_err("it fails").code(), Code::Unavailable);
    assert_eq!(attempts(), 1);

    live.send_replace(config(
        r#"{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], "retryPolicy": {
            "maxAttempts": 3, "initialBackoff": "0.001s", "maxBackoff": "0.01s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#,
    ));
    until_policy(&channel, "round_robin").await;
    hello(&channel).await.expect_err("it fails three times");
    assert_eq!(attempts(), 3);

    live.send_replace(None);
    until_policy(&channel, "peak_ewma").await;
    hello(&channel).await.expect_err("it fails");
    assert_eq!(attempts(), 1);
}

#[tokio::test]
async fn the_last_config_stays_when_nobody_is_left_to_send_one() {
    let fleet = Fleet::start(2).await;
    let (live, configs) = watch::channel(None);
    let (changes, discover) = changing();
    let channel = Channel::builder().service_config_watch(configs).build(discover);
    let [first, second] = <[_; 2]>::try_from(endpoints(&fleet.addresses())).expect("two");
    changes.insert(first).await;
    live.send_replace(config(r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#));
    drop(live);
    until_policy(&channel, "round_robin").await;
    changes.insert(second).await;
    until_ready(&channel, 2).await;
    assert_eq!(channel.dump().policy, "round_robin");
    hello(&channel).await.expect("it serves");
}
