//! What HTTP callers get.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use svc_tests::etcd::TestEtcd;
use tokio::time::{sleep, timeout};

use crate::doubles::Double;
use crate::support::{LIMIT, Program, ask, get, post, until_good};

const HELLO: &str = "/v1/greeter/SayHello";

fn ada() -> Value {
    json!({ "name": "ada" })
}

svc_tests::etcd_tests! {
    async fn the_paths_service_is_found_by_the_catalog_and_every_instance_is_called(etcd: TestEtcd) {
        let edge = Program::start("edge", &etcd.url(), &[]);
        let _first = Program::start("greeter", &etcd.url(), &["--id", "g-1"]);
        let answer = until_good(|| post(&edge, HELLO, &ada())).await;
        assert_eq!(answer, json!({ "message": "Hello ada!", "instance": "g-1" }));
        let _second = Program::start("greeter", &etcd.url(), &["--id", "g-2"]);
        let both = async {
            while until_good(|| get(&edge, "/v1/greeter/SayHello?name=ada")).await["instance"] != "g-2" {}
        };
        timeout(LIMIT, both).await.expect("a service that comes is called without a restart of the edge");
        let listed = async {
            loop {
                let data = until_good(|| get(&edge, "/v1/services")).await;
                let greeter = &data["services"].as_array().expect("a list")[2];
                if greeter["instances"] == 2 && data["fresh"] == true {
                    return greeter.clone();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let greeter = timeout(LIMIT, listed).await.expect("both are listed");
        assert_eq!((&greeter["name"], &greeter["path"]), (&"greeter".into(), &"/v1/greeter/".into()));
    }
}

async fn etcd() -> TestEtcd {
    TestEtcd::start_kind(svc_tests::etcd::Kind::Embedded).await.expect("it is in the process")
}

#[tokio::test]
async fn an_error_has_one_body_and_a_code_that_is_the_status_and_a_number_behind_it() {
    let etcd = etcd().await;
    let edge = Program::start("edge", &etcd.url(), &["--max-message-size", "4096"]);
    let _greeter = Program::start("greeter", &etcd.url(), &[]);
    let (_gift, _balance) =
        (Double::default().register(&etcd.url(), "gift"), Double::default().register(&etcd.url(), "balance"));
    until_good(|| post(&edge, HELLO, &ada())).await;
    until_good(|| get(&edge, "/v1/gift/ListGifts")).await;
    let balance = until_good(|| get(&edge, "/v1/balance/GetBalance?uid=1")).await;
    assert_eq!(balance["coin"], 9_007_199_254_740_991u64, "an integer is a number, and exact");

    let send = json!({ "gift_id": 1 });
    for (asked, code, part) in [
        (post(&edge, HELLO, &json!({ "name": "x".repeat(300) })), 40001, "name has 300 bytes"),
        (post(&edge, HELLO, &json!({ "nom": "ada" })), 40001, "nom"),
        (post(&edge, HELLO, &json!({ "name": 7 })), 40001, "name: "),
        (post(&edge, HELLO, &ada()).body("{"), 40001, "EOF"),
        (get(&edge, "/v1/gift/WatchGifts?user=1"), 40001, "user: "),
        (post(&edge, HELLO, &ada()).header("request-timeout", "soon"), 40001, "request-timeout: "),
        (post(&edge, "/v1/gift/SendGift", &send), 40002, "too few coins"),
        (get(&edge, "/v1/gift/GetSending?biz_id=b"), 40401, "no such sending"),
        (post(&edge, "/v1/nobody/SayHello", &ada()), 40402, "balance, gift, greeter"),
        (post(&edge, "/v1/greeter/SayGoodbye", &ada()), 40402, "SayHello"),
        (get(&edge, "/v2"), 40402, "/v1/services"),
        (get(&edge, "/v1/gift/SendGift"), 40501, "POST"),
        (ask(&edge, Method::PUT, HELLO), 40501, "GET or POST"),
        (post(&edge, "/v1/services", &json!({})), 40501, "GET"),
        (post(&edge, HELLO, &json!({ "name": "x".repeat(5000) })), 41301, "4096"),
        (ask(&edge, Method::POST, HELLO).body("{}"), 41501, "application/json"),
        (get(&edge, "/v1/balance/ListTransactions?uid=1"), 50002, "something is wrong with balance"),
        (post(&edge, "/v1/balance/BatchAddUserCoin", &json!({})), 50101, "balance"),
        (post(&edge, "/v1/greeter/LotsOfGreetings", &json!({})), 50101, "greeter"),
    ] {
        let answer = asked.send().await;
        assert_eq!(answer.problem(), code, "{answer:?}");
        let message = answer.json()["message"].as_str().expect("text").to_owned();
        assert!(message.contains(part) && !message.contains("10.0.0.3"), "{part:?}: {answer:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        let allow = answer.headers.get("allow").is_some();
        assert_eq!(allow, answer.status == StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
    }
}

#[tokio::test]
async fn without_a_service_there_is_an_answer_where_one_exists() {
    let etcd = etcd().await;
    let edge = Program::start("edge", &etcd.url(), &[]);
    let away = get(&edge, "/v1/home?uid=7").send().await;
    assert_eq!(away.problem(), 50301, "nothing is there: {away:?}");
    assert_eq!(away.headers["retry-after"], "1");

    let mut greeter = Program::start("greeter", &etcd.url(), &[]);
    let double = Double::default();
    let gift = double.register(&etcd.url(), "gift");
    let gifts = until_good(|| get(&edge, "/v1/gift/ListGifts")).await;
    until_good(|| post(&edge, HELLO, &ada())).await;
    let home = get(&edge, "/v1/home?uid=7").send().await.data();
    assert_eq!(home["greeting"]["message"], "Hello user 7!");
    assert_eq!((&home["balance"], &home["gifts"]), (&Value::Null, &gifts));
    assert_eq!((&home["away"], &home["remembered"]), (&json!(["balance"]), &json!([])));
    let balance = get(&edge, "/v1/balance/GetBalance?uid=7").send().await;
    assert_eq!(balance.problem(), 50301, "nobody else may answer for the ledger: {balance:?}");

    gift.stop().await;
    greeter.terminate();
    assert!(greeter.ended().await);
    let answer = get(&edge, "/v1/gift/ListGifts").send().await;
    assert_eq!(answer.data(), gifts, "the last answer");
    assert!(answer.headers["warning"].to_str().expect("text").starts_with("110 "), "{answer:?}");
    assert!(answer.headers.contains_key("age"), "{answer:?}");
    let home = get(&edge, "/v1/home?uid=7").send().await.data();
    assert_eq!(home["gifts"], gifts);
    assert_eq!((&home["away"], &home["remembered"]), (&json!(["greeter", "balance"]), &json!(["gift"])));
    for wrong in ["/v1/home", "/v1/home?uid=x", "/v1/home?uid=1&uid=2", "/v1/home?name=7"] {
        assert_eq!(get(&edge, wrong).send().await.problem(), 40001);
    }
}

/// A `grpc-timeout` as time.
fn time(text: &str) -> Duration {
    let (digits, unit) = text.split_at(text.len() - 1);
    let n: u64 = digits.parse().expect("digits");
    match unit {
        "n" => Duration::from_nanos(n),
        "u" => Duration::from_micros(n),
        "m" => Duration::from_millis(n),
        "S" => Duration::from_secs(n),
        _ => panic!("{text}"),
    }
}

#[tokio::test]
async fn the_callers_deadline_goes_along_and_is_kept() {
    let etcd = etcd().await;
    let edge = Program::start("edge", &etcd.url(), &["--timeout", "40s"]);
    let double = Double::default();
    let _gift = double.register(&etcd.url(), "gift");
    until_good(|| get(&edge, "/v1/gift/ListGifts")).await;
    let passed = time(&double.deadline().expect("the edge's own"));
    // A callee of whom nothing is said has five seconds, whatever its caller has.
    assert!(passed <= Duration::from_secs(5), "{passed:?}");
    get(&edge, "/v1/gift/ListGifts").header("request-timeout", "2s").send().await.data();
    let passed = time(&double.deadline().expect("the caller's"));
    assert!(passed <= Duration::from_secs(2) && passed > Duration::ZERO, "{passed:?}");

    let slow = Program::start("greeter", &etcd.url(), &["--delay", "10m"]);
    let late = async {
        loop {
            let answer = post(&edge, HELLO, &ada()).header("request-timeout", "200ms").send().await;
            match answer.problem() {
                50401 => return,
                // It has just been started.
                50301 => sleep(Duration::from_millis(20)).await,
                _ => panic!("{answer:?}"),
            }
        }
    };
    timeout(LIMIT, late).await.expect("it is given up in time");
    slow.line(|line| line["fields"]["status"] == "CANCELLED").await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_has_its_call_cancelled() {
    let etcd = etcd().await;
    let edge = Program::start(
        "edge",
        &etcd.url(),
        &["--timeout", "10m", "--grpc-clients", r#"[{"name": "greeter", "timeout": "10m"}]"#],
    );
    let greeter = Program::start("greeter", &etcd.url(), &["--delay", "1s"]);
    until_good(|| post(&edge, HELLO, &ada())).await;
    let asked = tokio::spawn(post(&edge, HELLO, &json!({ "name": "impatient" })).send());
    greeter.line(|line| line["fields"]["status"] == "OK").await;
    sleep(Duration::from_millis(300)).await; // it is on its way, or there
    asked.abort();
    greeter.line(|line| line["fields"]["status"] == "CANCELLED").await;
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_through_the_edge_to_the_callee_however_quiet_the_edge_is() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let etcd = etcd().await;
    let greeter = Program::start("greeter", &etcd.url(), &[]);
    for level in ["info,demo_services::call=debug", "error"] {
        let edge = Program::start("edge", &etcd.url(), &["--log-level", level]);
        until_good(|| post(&edge, HELLO, &ada())).await;
        let trace = TRACE.replace("4b", if level == "error" { "aa" } else { "bb" });
        let parent = "00f067aa0ba902b7";
        let sent = post(&edge, HELLO, &ada()).header("traceparent", &format!("00-{trace}-{parent}-01"));
        sent.send().await.data();
        let there = greeter.line(|line| line["trace_id"] == trace).await;
        assert_eq!((&there["service"], &there["message"]), (&"greeter".into(), &"call ended".into()));
        if level != "error" {
            let here = edge.line(|line| line["trace_id"] == trace).await;
            assert_eq!(here["service"], "edge");
            assert_ne!(here["span_id"], there["span_id"], "each has a span of its own");
        }
    }
}

#[tokio::test]
async fn requests_are_measured_by_their_routes() {
    let etcd = etcd().await;
    let metrics = format!("127.0.0.1:{}", svc_tests::ports::free_port());
    let edge = Program::start("edge", &etcd.url(), &["--metrics-listen", &metrics]);
    let _greeter = Program::start("greeter", &etcd.url(), &[]);
    until_good(|| post(&edge, HELLO, &ada())).await;
    get(&edge, "/made/up").send().await;
    let scrape = get(&edge, "/metrics").at(&metrics).send().await.text;
    for part in [
        r#"http_server_request_duration_count{http_request_method="POST",http_route="/v1/{service}/{method}",http_response_status_code="200"} 1"#,
        r#"http_route="other",http_response_status_code="404""#,
        r#"grpc_client_call_duration_count{grpc_method="greeter.v1.Greeter/SayHello",grpc_target="greeter",grpc_status="OK"} 1"#,
    ] {
        assert!(scrape.contains(part), "{part}: {scrape}");
    }
}
