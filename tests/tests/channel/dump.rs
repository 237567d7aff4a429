//! What a dump tells, as values and as JSON.

use std::time::Duration;

use svc_channel::{Channel, EndpointState, OutlierDetection, SlowStart, WeightedRoundRobin};
use svc_tests::backends::Backend;

use crate::support::{endpoint, hello, seen, until, until_ready};

#[tokio::test]
async fn a_dump_tells_what_each_endpoint_is_and_does() {
    let (good, failing, gone) =
        (Backend::start("good").await, Backend::start("failing").await, Backend::refusing("gone"));
    failing.set_fail_percent(100);
    let endpoints = [
        endpoint("good", &good.address()).weight(200).zone("a"),
        endpoint("failing", &failing.address()),
        endpoint("gone", &gone.address()),
    ];
    // Nobody takes the calls of one that was ejected: half of those that are connected are healthy.
    let mut outliers = OutlierDetection::default();
    outliers.base_ejection_time = Duration::from_secs(3600);
    let channel = Channel::builder()
        .policy(WeightedRoundRobin::new())
        .slow_start(SlowStart::new(Duration::from_secs(3600)))
        .outlier_detection(outliers)
        .fixed(endpoints);
    until_ready(&channel, 2).await;
    until(&channel, |dump| seen(dump, "gone").is_some_and(|e| e.state == EndpointState::Backoff)).await;
    while seen(&channel.dump(), "failing").is_some_and(|e| e.state != EndpointState::Ejected) {
        let _ = hello(&channel).await; // one of them fails
    }
    good.hold();
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    let dump = until(&channel, |dump| seen(dump, "good").is_some_and(|e| e.in_flight == 1)).await;

    let of = |instance| seen(&dump, instance).expect("it is known");
    let good_one = of("good");
    assert_eq!((good_one.state, good_one.weight), (EndpointState::Ready, 200));
    assert_eq!((good_one.in_flight, good_one.load, good_one.zone.as_deref()), (1, 1, Some("a")));
    assert!(good_one.latency.is_some() && good_one.last_error.is_none() && good_one.ejections == 0);
    assert!(good_one.slow_start.is_some_and(|factor| (0.1..0.2).contains(&factor)), "{good_one:?}");
    assert_eq!(of("failing").ejections, 1);
    assert!(of("gone").last_error.as_deref().is_some_and(|error| error.contains(&gone.address())));
    assert!(of("gone").slow_start.is_none() && of("gone").latency.is_none());

    let json = serde_json::to_value(&dump).expect("a dump is plain data");
    assert_eq!(names(&json), ["discovery", "endpoints", "name", "policy"]);
    for endpoint in json["endpoints"].as_array().expect("a list") {
        assert_eq!(
            names(endpoint),
            [
                "address",
                "connected_to",
                "ejections",
                "held",
                "in_flight",
                "instance",
                "last_error",
                "latency_us",
                "load",
                "reported_weight",
                "since_ms",
                "slow_start",
                "state",
                "weight",
                "zone",
            ],
            "scripts read these: a new one belongs here, and none goes"
        );
    }
    assert_eq!(json["endpoints"][1]["state"], "ejected");
    good.release();
    held.await.expect("no panic").expect("it serves");
}

/// The names of an object's fields, sorted.
fn names(object: &serde_json::Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
