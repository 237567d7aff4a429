//! A stream of messages as server-sent events, which browsers follow and resume by themselves.
//!
//! Where messages have a `position` and the request an `after`, the position is the event's id, and a browser that comes
//! back with `Last-Event-ID` goes on behind it.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use prost_reflect::{DynamicMessage, Value};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Edge;
use super::problem::Problem;
use super::protocol::{Method, to_json};
use crate::deadline::Deadline;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The message's field that is the event's id ...
const POSITION: &str = "position";
/// ... and the request's that resumes there.
const AFTER: &str = "after";

/// How long a browser waits before it comes back: long enough for an instance to leave the catalog.
const COME_BACK: Duration = Duration::from_millis(500);

/// How often a quiet stream shows that it lives; proxies cut what is silent for a minute.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Where a browser was when its stream broke.
pub(super) fn resumed(method: &Method, headers: &HeaderMap) -> Option<String> {
    let id = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    id.filter(|_| method.takes(AFTER)).map(ToOwned::to_owned)
}

/// Lets the request go on behind that.
pub(super) fn resume(message: &mut DynamicMessage, position: Option<String>) -> Result<(), Problem> {
    let Some(position) = position else { return Ok(()) };
    let wrong = || Problem::invalid(format!("last-event-id: {position:?} is none of ours"));
    let after = position.parse().map_err(|_| wrong())?;
    message.try_set_field_by_name(AFTER, Value::I64(after)).map_err(|_| wrong())
}

/// Answers with the stream's messages as events, until it ends, the caller goes away or we stop.
pub(super) async fn stream(
    edge: &Edge,
    service: &str,
    method: &Method,
    message: DynamicMessage,
    deadline: Deadline,
) -> Result<Response, Problem> {
    let full = |_| {
        Problem::of("edge", &Status::resource_exhausted("too many event streams are open; try again later"))
    };
    let permit = edge.0.streams.clone().try_acquire_owned().map_err(full)?;
    let opened = edge.streaming(service, method, message, deadline).await;
    let messages = opened.map_err(|status| Problem::of(service, &status))?;
    let open =
        Open { messages, service: service.to_owned(), stopping: edge.0.stopping.clone(), _permit: permit };
    let keep_alive = KeepAlive::new().interval(SIGN_OF_LIFE);
    Ok(Sse::new(events(open)).keep_alive(keep_alive).into_response())
}

/// A stream that is open.
struct Open {
    messages: Streaming<DynamicMessage>,
    service: String,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

fn events(open: Open) -> impl Stream<Item = Result<Event, Infallible>> {
    // First of all an event without data, which tells a browser how soon to come back.
    let first = stream::iter([Ok(Event::default().retry(COME_BACK).comment("open"))]);
    let rest = stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        let message = tokio::select! {
            // What is there already is sent before the end.
            biased;
            message = open.messages.message() => message,
            () = open.stopping.cancelled() => return None,
        };
        match message.and_then(|message| message.map(|message| event(&message)).transpose()) {
            Ok(Some(event)) => Some((Ok(event), Some(open))),
            Ok(None) => None,
            Err(status) => {
                let problem = Problem::of(&open.service, &status);
                Some((Ok(Event::default().event("problem").data(problem.json().to_string())), None))
            }
        }
    });
    futures_util::StreamExt::chain(first, rest)
}

fn event(message: &DynamicMessage) -> Result<Event, Status> {
    let json = to_json(message).map_err(|error| Status::internal(error.to_string()))?;
    let event = Event::default().data(json.to_string());
    Ok(match json.get(POSITION).and_then(serde_json::Value::as_i64) {
        Some(position) => event.id(position.to_string()),
        None => event,
    })
}
