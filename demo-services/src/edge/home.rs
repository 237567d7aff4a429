//! `/v1/home?uid=7`: what a user sees first, from several services at once. It is there as long as any of them is: what
//! is away is `null` and named, and the list of gifts may be remembered.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use tonic::Status;

use super::problem::Problem;
use super::remembered::is_away;
use super::{Edge, good};
use crate::deadline::Deadline;

/// How long a part is waited for: a page that lacks one is better than one that comes late.
const PART: Duration = Duration::from_secs(1);

/// A part of the answer.
enum Part {
    There(Value),
    /// Its service is away; this is its last answer.
    Remembered(Value),
    Away(Status),
}

pub(super) async fn home(
    State(edge): State<Edge>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = query.map_err(|error| Problem::invalid(error.to_string()))?;
    let uid = match pairs.as_slice() {
        [(name, uid)] if name == "uid" => uid.parse::<u64>().ok(),
        _ => None,
    };
    let uid = uid.ok_or_else(|| Problem::invalid("uid: the number of a user is wanted, and nothing else"))?;
    let deadline = edge.deadline(&headers)?.or_sooner(PART);
    let (greeting, balance, gifts) = futures_util::join!(
        edge.part("greeter", "SayHello", json!({ "name": format!("user {uid}") }), deadline),
        edge.part("balance", "GetBalance", json!({ "uid": uid }), deadline),
        edge.part("gift", "ListGifts", json!({}), deadline),
    );
    let (mut data, mut away, mut remembered) = (json!({ "uid": uid }), Vec::new(), Vec::new());
    let mut last = None;
    for (service, field, part) in
        [("greeter", "greeting", greeting?), ("balance", "balance", balance?), ("gift", "gifts", gifts?)]
    {
        data[field] = match part {
            Part::There(answer) => answer,
            Part::Remembered(answer) => {
                remembered.push(service);
                answer
            }
            Part::Away(status) => {
                away.push(service);
                last = Some(Problem::of(service, &status));
                Value::Null
            }
        };
    }
    match last {
        Some(problem) if away.len() == 3 => Err(problem),
        _ => {
            data["away"] = json!(away);
            data["remembered"] = json!(remembered);
            Ok(good(data))
        }
    }
}

impl Edge {
    async fn part(
        &self,
        service: &str,
        method: &str,
        json: Value,
        deadline: Deadline,
    ) -> Result<Part, Problem> {
        let method = self.0.protocols.find(service, method)?;
        let message = method.request(json.to_string().as_bytes())?;
        match self.unary(service, method, message, deadline).await {
            Ok(answer) => Ok(Part::There(answer)),
            Err(status) if is_away(status.code()) => Ok(match self.remembered(method, &status) {
                Some((_, answer)) => Part::Remembered(answer),
                None => Part::Away(status),
            }),
            Err(status) => Err(Problem::of(service, &status)),
        }
    }
}
