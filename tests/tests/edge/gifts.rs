//! The real balance and gift behind the edge: everything registered, everybody found through the catalog.

use serde_json::{Value, json};
use svc_tests::etcd::{Kind, TestEtcd};
use tokio::time::{sleep, timeout};

use crate::support::{Ask, Events, LIMIT, Program, get, post, until_good};

/// Opens a user's events once they are to be had.
async fn watch(ask: impl Fn() -> Ask) -> Events {
    let open = async {
        loop {
            let (head, ..) = ask().open().await;
            if head.status.is_success() {
                return Events::open(ask()).await;
            }
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, open).await.expect("it opens")
}

fn roses(biz_id: &str) -> Value {
    json!({ "gift_id": 1, "from_uid": 1, "to_uids": [2, 3], "biz_id": biz_id })
}

/// Sends, and repeats the same call until it has ended: what has just been started or stopped takes a moment.
async fn sent(edge: &Program, biz_id: &str) -> Value {
    let ended = async {
        loop {
            let sending =
                until_good(|| post(edge, "/v1/gift/SendGift", &roses(biz_id))).await["sending"].clone();
            if sending["state"] == "SENDING_STATE_ENDED" {
                return sending;
            }
        }
    };
    timeout(LIMIT, ended).await.expect("it ends")
}

#[tokio::test]
async fn gifts_are_sent_and_seen_through_the_edge_while_instances_come_and_go() {
    let etcd = TestEtcd::start_kind(Kind::Embedded).await.expect("it is in the process");
    let folder = tempfile::tempdir().expect("a folder");
    let database = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let start = |name: &str, id: &str| {
        Program::start(name, &etcd.url(), &["--id", id, "--database", &database(&format!("{name}.db"))])
    };
    let edge = Program::start("edge", &etcd.url(), &[]);
    let mut balances = [start("balance", "b-1"), start("balance", "b-2")];
    let mut gifts = [start("gift", "g-1"), start("gift", "g-2")];

    let coins = json!({ "operations": [{ "to_uid": 1, "coin": 100, "biz_id": "in" }] });
    until_good(|| post(&edge, "/v1/balance/BatchAddUserCoin", &coins)).await;
    let mut events = watch(|| get(&edge, "/v1/gift/WatchGifts?uid=2&after=0")).await;
    let sending = sent(&edge, "first").await;
    let receipts = sending["receipts"].as_array().expect("a list");
    assert!(receipts.iter().all(|receipt| receipt["state"] == "RECEIPT_STATE_RECEIVED"), "{sending}");
    let event = events.next().await.expect("it is delivered");
    let data: Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!((event.id.as_str(), &data["position"], &data["from_uid"]), ("1", &1.into(), &1.into()));
    assert_eq!((&data["gift"]["name"], &data["biz_id"]), (&"Rose".into(), &"first".into()));
    drop(events);

    // One of each stops in order; the others go on.
    for program in [&mut gifts[0], &mut balances[0]] {
        program.terminate();
        assert!(program.ended().await, "an orderly stop");
    }
    sent(&edge, "second").await;
    let resumed = || get(&edge, "/v1/gift/WatchGifts?uid=2&after=0").header("last-event-id", "1");
    let event = watch(resumed).await.next().await.expect("it goes on");
    assert_eq!(event.id, "2", "behind the one that was seen");

    let has = until_good(|| get(&edge, "/v1/balance/GetBalance?uid=1")).await;
    assert_eq!((&has["coin"], &has["frozen_coin"]), (&60.into(), &0.into()), "two roses for two users");
    let poor = json!({ "gift_id": 1, "from_uid": 9, "to_uids": [2], "biz_id": "poor" });
    let refused = post(&edge, "/v1/gift/SendGift", &poor).send().await;
    assert_eq!(refused.problem(), 40002, "{refused:?}");
    let other = post(
        &edge,
        "/v1/gift/SendGift",
        &json!({ "gift_id": 1, "from_uid": 1, "to_uids": [2], "biz_id": "first" }),
    );
    assert_eq!(other.send().await.problem() / 100, 409);
    let unknown = get(&edge, "/v1/gift/GetSending?biz_id=nothing").send().await;
    assert_eq!(unknown.problem(), 40401, "{unknown:?}");
    let wrong =
        post(&edge, "/v1/gift/SendGift", &json!({ "gift_id": 1, "from_uid": 1, "biz_id": "b" })).send().await;
    assert_eq!(wrong.problem(), 40001, "{wrong:?}");
    assert!(wrong.json()["message"].as_str().expect("text").contains("to_uids"), "{wrong:?}");
}
