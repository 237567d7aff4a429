//! The load on the edge, against edges that are made up: what it repeats, what it takes for done, and what it counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use demo_services::load::{Client, Edge, Load, Order, Report, Rpc};
use http::Uri;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Enough for some orders on the busiest machine.
const SOME: Duration = Duration::from_secs(2);

/// What an edge answers to an order that it is given for the n-th time.
type Answer = fn(u32) -> (StatusCode, Value);

/// How often each `biz_id` was ordered, over all edges.
type Orders = Arc<Mutex<BTreeMap<String, u32>>>;

async fn call(
    Path((_, method)): Path<(String, String)>,
    State((orders, answer)): State<(Orders, Answer)>,
    body: String,
) -> (StatusCode, String) {
    if method != "SendGift" {
        return (StatusCode::OK, json!({ "data": { "tx_ids": [] } }).to_string());
    }
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["to_uids"].as_array().map(Vec::len), Some(2), "{body}");
    let biz_id = body["biz_id"].as_str().expect("a biz_id").to_owned();
    let mut orders = orders.lock().expect("nobody panics");
    let count = orders.entry(biz_id).or_default();
    *count += 1;
    let (status, body) = answer(*count);
    (status, body.to_string())
}

/// Starts an edge that lives as long as the test's runtime.
async fn edge(orders: &Orders, answer: Answer) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let routes =
        Router::new().route("/v1/{service}/{method}", post(call)).with_state((orders.clone(), answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}").parse().expect("a URL")
}

/// One caller's orders for a while.
async fn run(edges: Vec<Uri>, time: Duration) -> Report {
    let edge = Edge::new(edges, Order::Gift { gift_id: 1, senders: 3, receivers: 2 });
    edge.issue(1000, Duration::from_secs(30)).await.expect("an edge answers");
    let (target, policy, deadline) = ("edge".into(), "by turns".into(), Duration::from_secs(30));
    let load = Load { target, policy, callers: 1, rate: 20, time, deadline, rpc: Rpc::Unary };
    load.run(Client::Edge(edge), |_| {}, std::future::pending()).await
}

fn sending(state: &str, receipt: &str) -> (StatusCode, Value) {
    let receipts = json!([{ "to_uid": 1, "state": receipt, "reason": "too few coins" }]);
    (StatusCode::OK, json!({ "data": { "sending": { "state": state, "receipts": receipts } } }))
}

fn received(_: u32) -> (StatusCode, Value) {
    sending("SENDING_STATE_ENDED", "RECEIPT_STATE_RECEIVED")
}

#[tokio::test]
async fn an_order_without_an_answer_goes_to_another_edge_under_its_biz_id() {
    let orders = Orders::default();
    let away: Answer = |_| (StatusCode::SERVICE_UNAVAILABLE, json!({ "message": "gift is not available" }));
    // Nobody listens at the last one.
    let nobody =
        TcpListener::bind("127.0.0.1:0").await.and_then(|free| free.local_addr()).expect("a free port");
    let nobody = format!("http://{nobody}").parse().expect("a URL");
    let edges = vec![edge(&orders, received).await, edge(&orders, away).await, nobody];
    let report = run(edges, SOME).await;
    assert!(report.calls > 1 && report.failed == 0, "{report}");
    assert!(report.repeated > 0, "{report}");
    let orders = orders.lock().expect("nobody panics");
    assert_eq!(orders.len() as u64, report.calls, "each call has one biz_id, however often it is made");
}

#[tokio::test]
async fn a_gift_that_is_on_its_way_is_asked_for_until_it_has_arrived() {
    let orders = Orders::default();
    let slow: Answer = |n| match n {
        1 => sending("SENDING_STATE_SENDING", "RECEIPT_STATE_FREEZING"),
        n => received(n),
    };
    let report = run(vec![edge(&orders, slow).await], SOME).await;
    assert!(report.calls > 0, "{report}");
    assert_eq!((report.failed, report.repeated), (0, report.calls), "{report}");
}

#[tokio::test]
async fn a_gift_that_was_refused_has_failed_and_is_not_ordered_again() {
    let orders = Orders::default();
    let refused: Answer = |_| sending("SENDING_STATE_ENDED", "RECEIPT_STATE_REFUSED");
    let report = run(vec![edge(&orders, refused).await], SOME).await;
    assert!(report.calls > 0, "{report}");
    assert_eq!((report.failed, report.repeated), (report.calls, 0), "{report}");
    assert!(report.last_error.is_some_and(|error| error.contains("too few coins")));
    assert_eq!(report.by_code["FAILED_PRECONDITION"], report.failed);
}
