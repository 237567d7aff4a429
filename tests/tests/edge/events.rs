//! Streams as server-sent events.

use std::time::Duration;

use svc_tests::etcd::{Kind, TestEtcd};
use tokio::time::timeout;

use crate::doubles::Double;
use crate::support::{Events, LIMIT, Program, get, until_good};

const WATCH: &str = "/v1/gift/WatchGifts?uid=7";

async fn etcd() -> TestEtcd {
    TestEtcd::start_kind(Kind::Embedded).await.expect("it is in the process")
}

#[tokio::test]
async fn gifts_arrive_as_events_and_a_browser_goes_on_where_it_was() {
    let etcd = etcd().await;
    let edge = Program::start("edge", &etcd.url(), &[]);
    let double = Double::default();
    let gift = double.register(&etcd.url(), "gift");
    until_good(|| get(&edge, "/v1/gift/ListGifts")).await;

    let mut events = Events::open(get(&edge, &format!("{WATCH}&after=0"))).await;
    for position in 1..=3 {
        double.deliver();
        let event = events.next().await.expect("it goes on");
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!((event.id, event.kind), (position.to_string(), String::new()));
        assert_eq!((&data["position"], &data["from_uid"]), (&position.into(), &1.into()));
    }
    drop(events);
    double.deliver();

    let mut events = Events::open(get(&edge, &format!("{WATCH}&after=0")).header("last-event-id", "2")).await;
    assert_eq!(events.next().await.map(|event| event.id).as_deref(), Some("3"), "behind the one it had seen");
    assert_eq!(events.next().await.map(|event| event.id).as_deref(), Some("4"), "what came meanwhile");
    let wrong = get(&edge, WATCH).header("last-event-id", "x").send().await;
    assert_eq!(wrong.problem(), 40001);

    tokio::spawn(gift.stop());
    let last = events.next().await.expect("it says why it ends");
    assert_eq!(last.kind, "problem");
    assert!(last.data.contains("\"code\":50301"), "{last:?}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_stop_of_the_edge_ends_its_streams_and_waits_for_nobody() {
    let etcd = etcd().await;
    let mut edge = Program::start("edge", &etcd.url(), &[]);
    let _gift = Double::default().register(&etcd.url(), "gift");
    until_good(|| get(&edge, "/v1/gift/ListGifts")).await;
    let mut events = Events::open(get(&edge, WATCH)).await;
    edge.terminate();
    assert_eq!(events.next().await, None, "it ends, though there is no end of gifts");
    // The grace for calls in flight is 20 s: a stop that sits it out would not be done by then.
    assert!(timeout(Duration::from_secs(18), edge.ended()).await.expect("it has not waited"));
}

#[tokio::test]
async fn no_more_streams_are_open_at_once_than_the_limit() {
    let etcd = etcd().await;
    let edge = Program::start("edge", &etcd.url(), &["--max-event-streams", "1"]);
    let double = Double::default();
    let _gift = double.register(&etcd.url(), "gift");
    until_good(|| get(&edge, "/v1/gift/ListGifts")).await;
    let first = Events::open(get(&edge, WATCH)).await;
    assert_eq!(get(&edge, WATCH).send().await.problem(), 42901);
    drop(first);
    let again = async {
        loop {
            let (head, ..) = get(&edge, WATCH).open().await;
            if head.status.is_success() {
                return;
            }
        }
    };
    timeout(LIMIT, again).await.expect("the place of one that has gone is free");
}
