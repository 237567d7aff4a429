//! A client of the edges as a careful web shop would write one: HTTP and JSON, another edge where one is away, and the
//! same order again where it is not known whether it was carried out. That is safe for both things it asks for: a
//! greeting changes nothing, a sending is known by its `biz_id`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::tally::Outcome;
use crate::error::BoxError;

/// The pause before an order is given again.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest that one attempt waits before another edge is asked.
const ATTEMPT: Duration = Duration::from_secs(2);

/// More than any answer here has.
const LARGEST: usize = 1 << 20;

/// Who receives gifts, where users are made up: so many others.
const RECEIVERS: u64 = 1000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A greeting.
    Greeting,
    /// That a gift be sent, and a wait until it has arrived.
    Gift {
        /// Which; all of them cost something.
        gift_id: i64,
        /// How many users give by turns.
        senders: u64,
        /// How many receive each gift.
        receivers: u64,
    },
}

/// The client; clones share the edges' turns and the numbers of the orders.
#[derive(Clone, Debug)]
pub struct Edge {
    http: Http<HttpConnector, Full<Bytes>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    edges: Vec<Uri>,
    order: Order,
    /// Told apart from every other run by this; user ids and `biz_id`s hold it.
    run: u32,
    turn: AtomicU64,
    number: AtomicU64,
}

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: Code,
    message: String,
    /// It may be made again.
    again: bool,
}

impl Edge {
    /// A client that asks these edges by turns, such as `http://127.0.0.1:8080`.
    ///
    /// # Panics
    /// Without any.
    pub fn new(edges: Vec<Uri>, order: Order) -> Edge {
        assert!(!edges.is_empty(), "there is an edge to be called");
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(ATTEMPT));
        connector.set_nodelay(true);
        let http = Http::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        let (turn, number) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Shared { edges, order, run: fastrand::u32(..), turn, number };
        Edge { http, shared: Arc::new(shared) }
    }

    /// Gives every sender these coins, once in a run; waits `within` for edge and balance.
    ///
    /// # Errors
    /// The last reason why it could not be done.
    pub async fn issue(&self, coins: i64, within: Duration) -> Result<(), BoxError> {
        let Order::Gift { senders, .. } = self.shared.order else { return Ok(()) };
        let operation = |n| {
            let biz_id = format!("load-{:08x}-coins-{n}", self.shared.run);
            json!({ "to_uid": self.sender(n), "coin": coins, "biz_type": 1, "biz_id": biz_id, "scene_id": 0 })
        };
        let operations: Vec<Value> = (0..senders).map(operation).collect();
        let body = json!({ "operations": operations });
        let (answer, _) = self.ask("/v1/balance/BatchAddUserCoin", &body, within).await;
        answer.map(drop).map_err(|refusal| format!("coins cannot be issued: {}", refusal.message).into())
    }

    /// Gives one order, and repeats it until `deadline`.
    pub(super) async fn call(&self, deadline: Duration) -> Outcome {
        let started = Instant::now();
        let number = self.shared.number.fetch_add(1, Ordering::Relaxed);
        let (answer, repeats) = match self.shared.order {
            Order::Greeting => self.ask("/v1/greeter/SayHello", &json!({ "name": "load" }), deadline).await,
            Order::Gift { gift_id, senders, receivers } => {
                let sender = number % senders;
                // As many as are wanted, none twice: the ids follow each other.
                let first = fastrand::u64(0..RECEIVERS);
                let to_uids: Vec<u64> = (first..first + receivers).map(|n| self.receiver(n)).collect();
                let biz_id = format!("load-{:08x}-{number}", self.shared.run);
                let body = json!({
                    "gift_id": gift_id, "from_uid": self.sender(sender), "to_uids": to_uids, "biz_id": biz_id,
                });
                self.ask("/v1/gift/SendGift", &body, deadline).await
            }
        };
        let (replies, result) = match answer {
            Ok(who) => (vec![who], Ok(())),
            Err(refusal) => (Vec::new(), Err((refusal.code, refusal.message))),
        };
        Outcome { replies, result, repeats, took: started.elapsed() }
    }

    /// Asks one edge after the other until one has an answer that counts; gives who had it, and how often it was asked
    /// again.
    async fn ask(&self, path: &str, body: &Value, within: Duration) -> (Result<String, Refusal>, u64) {
        let end = Instant::now() + within;
        let mut repeats = 0;
        loop {
            let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed) as usize;
            let edge = &self.shared.edges[turn % self.shared.edges.len()];
            let limit = ATTEMPT.min(end.saturating_duration_since(Instant::now()));
            let attempt = match timeout(limit, self.attempt(edge, path, body, limit)).await {
                Ok(Ok(data)) => settled(edge, &data),
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::again(
                    Code::DeadlineExceeded,
                    format!("{edge} has not answered in {limit:?}"),
                )),
            };
            match attempt {
                Err(refusal) if refusal.again && Instant::now() + PAUSE < end => {
                    repeats += 1;
                    sleep(PAUSE).await;
                }
                ended => return (ended, repeats),
            }
        }
    }

    /// One request to one edge; the answer's `data`.
    async fn attempt(&self, edge: &Uri, path: &str, body: &Value, limit: Duration) -> Result<Value, Refusal> {
        let lost = |why: &dyn std::fmt::Display| Refusal::again(Code::Unavailable, format!("{edge}: {why}"));
        let uri = format!("{}{path}", edge.to_string().trim_end_matches('/'));
        let timeout = HeaderName::from_static("request-timeout");
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(timeout, format!("{}ms", limit.as_millis().max(1)))
            .body(Full::from(body.to_string()))
            .map_err(|error| Refusal::last(Code::InvalidArgument, format!("{edge}: {error}")))?;
        let answer = self.http.request(request).await.map_err(|error| lost(&why(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| lost(&error))?;
        let mut body: HashMap<String, Value> = serde_json::from_slice(&body.to_bytes())
            .map_err(|_| lost(&format_args!("{status}, and no body of the edge's")))?;
        if status.is_success() {
            return Ok(body.remove("data").unwrap_or_default());
        }
        let message = body.get("message").and_then(Value::as_str).unwrap_or_default();
        Err(refused(status.as_u16(), message))
    }

    /// Users of this run: nobody else's, and within what JSON holds exactly.
    fn sender(&self, n: u64) -> u64 {
        (u64::from(self.shared.run) << 16) + 1 + n
    }

    fn receiver(&self, n: u64) -> u64 {
        (u64::from(self.shared.run) << 16) + (1 << 15) + n
    }
}

impl Refusal {
    fn again(code: Code, message: String) -> Refusal {
        Refusal { code, message, again: true }
    }

    fn last(code: Code, message: String) -> Refusal {
        Refusal { code, message, again: false }
    }
}

/// What a status means for who asked; `docs/edge.md` has the table.
fn refused(status: u16, message: &str) -> Refusal {
    let message = format!("{status}: {message}");
    match status {
        503 => Refusal::again(Code::Unavailable, message),
        504 => Refusal::again(Code::DeadlineExceeded, message),
        429 => Refusal::again(Code::ResourceExhausted, message),
        400 => Refusal::last(Code::FailedPrecondition, message),
        404 => Refusal::last(Code::NotFound, message),
        409 => Refusal::last(Code::AlreadyExists, message),
        501 => Refusal::last(Code::Unimplemented, message),
        _ => Refusal::last(Code::Internal, message),
    }
}

/// Whether an answer is the end of its order; who gave it, if it is.
fn settled(edge: &Uri, data: &Value) -> Result<String, Refusal> {
    let who = || edge.authority().map_or_else(String::new, ToString::to_string);
    let Some(sending) = data.get("sending") else {
        return Ok(data["instance"].as_str().map_or_else(who, ToOwned::to_owned));
    };
    if sending["state"] != "SENDING_STATE_ENDED" {
        // It goes on by itself; the same order tells how far it is.
        return Err(Refusal::again(Code::DeadlineExceeded, "the gift is still on its way".to_owned()));
    }
    let receipts = sending["receipts"].as_array().map(Vec::as_slice).unwrap_or_default();
    match receipts.iter().find(|receipt| receipt["state"] != "RECEIPT_STATE_RECEIVED") {
        None => Ok(who()),
        Some(receipt) => Err(Refusal::last(
            Code::FailedPrecondition,
            format!("not received: {} {}", receipt["state"], receipt["reason"]),
        )),
    }
}

/// An error with its reasons: the outermost says only that something failed.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sending: &Value) -> Result<String, Refusal> {
        settled(&Uri::from_static("http://e:1"), &json!({ "sending": sending }))
    }

    #[test]
    fn a_gift_counts_once_every_receiver_has_it() {
        let received = json!({ "to_uid": 1, "state": "RECEIPT_STATE_RECEIVED" });
        let refused = json!({ "to_uid": 2, "state": "RECEIPT_STATE_REFUSED", "reason": "too few coins" });
        let ended = |receipts| json!({ "state": "SENDING_STATE_ENDED", "receipts": receipts });
        assert_eq!(state(&ended(json!([received]))), Ok("e:1".to_owned()));
        let last = state(&ended(json!([received, refused]))).unwrap_err();
        assert!(!last.again && last.message.contains("too few coins"), "{last:?}");
        assert!(state(&json!({ "state": "SENDING_STATE_SENDING", "receipts": [] })).unwrap_err().again);
    }

    #[test]
    fn what_may_have_been_done_is_asked_again_and_what_was_refused_is_not() {
        for (status, again) in
            [(503, true), (504, true), (429, true), (400, false), (409, false), (500, false)]
        {
            assert_eq!(refused(status, "").again, again, "{status}");
        }
    }
}
