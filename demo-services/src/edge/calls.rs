//! One call: from an HTTP request to a gRPC method and back.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{AGE, CONTENT_TYPE, WARNING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request as HttpRequest};
use axum::response::Response;
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};

use super::problem::Problem;
use super::protocol::{Method, to_json};
use super::remembered::is_away;
use super::{Edge, events, good};
use crate::deadline::Deadline;

/// How long the caller waits, such as `500ms`. Not gRPC's own header: gRPC's server around us would obey that too, and
/// answer in its way.
pub(super) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

/// RFC 9111's word for an answer that is older than it should be.
const STALE: HeaderValue =
    HeaderValue::from_static("110 edge \"the service is away; this is its last answer\"");

/// `/v1/{service}/{method}`.
pub(super) async fn call(
    State(edge): State<Edge>,
    Path((service, method)): Path<(String, String)>,
    http: HttpRequest<Body>,
) -> Result<Response, Problem> {
    let method = edge.0.protocols.find(&service, &method)?;
    let deadline = edge.deadline(http.headers())?;
    if method.takes_stream() {
        return Err(Problem::of(&service, &Status::unimplemented("a stream of requests")));
    }
    let resumed = events::resumed(method, http.headers());
    let mut message = edge.request(method, http).await?;
    if method.is_stream() {
        events::resume(&mut message, resumed)?;
        return events::stream(&edge, &service, method, message, deadline).await;
    }
    match edge.unary(&service, method, message, deadline).await {
        Ok(answer) => Ok(good(answer)),
        Err(status) => match edge.remembered(method, &status) {
            Some((age, answer)) => {
                tracing::warn!(
                    service,
                    method = method.name(),
                    age_s = age.as_secs(),
                    "answered from memory"
                );
                let mut response = good(answer);
                response.headers_mut().insert(AGE, HeaderValue::from(age.as_secs()));
                response.headers_mut().insert(WARNING, STALE);
                Ok(response)
            }
            None => Err(Problem::of(&service, &status)),
        },
    }
}

impl Edge {
    /// When the caller, or we, give up.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Result<Deadline, Problem> {
        let longest = Deadline::within(self.0.timeout);
        let Some(value) = headers.get(REQUEST_TIMEOUT) else { return Ok(longest) };
        let asked = value.to_str().ok().and_then(|text| humantime::parse_duration(text).ok());
        match asked {
            Some(limit) => Ok(longest.or_sooner(limit)),
            None => Err(Problem::invalid(format!(
                "request-timeout: {value:?} is no duration such as 500ms or 2s"
            ))),
        }
    }

    /// The request that the body writes, or the query of a method that changes nothing.
    async fn request(&self, method: &Method, http: HttpRequest<Body>) -> Result<DynamicMessage, Problem> {
        match *http.method() {
            Verb::POST => {
                let json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
                // Not without: a form of any page may send a body, and no other page may send this header.
                if !http.headers().get(CONTENT_TYPE).is_some_and(json) {
                    return Err(Problem::not_json(
                        "the body has to be application/json, and its header to say so",
                    ));
                }
                let largest = self.0.largest;
                let body = axum::body::to_bytes(http.into_body(), largest).await;
                method.request(&body.map_err(|_| Problem::too_large(largest))?)
            }
            Verb::GET if method.is_safe() => {
                let query = Query::<Vec<(String, String)>>::try_from_uri(http.uri());
                let Query(pairs) = query.map_err(|error| Problem::invalid(error.to_string()))?;
                method.request_of_query(&pairs)
            }
            _ if method.is_safe() => Err(Problem::other_method("GET, POST", "GET or POST is for this path")),
            _ => Err(Problem::other_method("POST", "only POST is for this path: it changes something")),
        }
    }

    /// A unary call; its answer is remembered where everybody asks the same.
    pub(super) async fn unary(
        &self,
        service: &str,
        method: &Method,
        message: DynamicMessage,
        deadline: Deadline,
    ) -> Result<Value, Status> {
        let mut request = Request::new(message);
        deadline.pass_on(&mut request);
        let answer = self.grpc(service).await?.unary(request, method.path(), method.codec()).await?;
        let answer = to_json(answer.get_ref()).map_err(|error| Status::internal(error.to_string()))?;
        if method.is_safe() && method.takes_nothing() {
            self.0.remembered.keep(method.path().as_str(), &answer);
        }
        Ok(answer)
    }

    /// Opens a stream, which may last; opening it may not last longer than the deadline.
    pub(super) async fn streaming(
        &self,
        service: &str,
        method: &Method,
        message: DynamicMessage,
        deadline: Deadline,
    ) -> Result<Streaming<DynamicMessage>, Status> {
        let mut grpc = self.grpc(service).await?;
        let opened = grpc.server_streaming(Request::new(message), method.path(), method.codec());
        let limit = deadline.left().unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, opened).await {
            Ok(opened) => Ok(opened?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("the stream was not opened in time")),
        }
    }

    async fn grpc(&self, service: &str) -> Result<Grpc<svc_resolver::Channel>, Status> {
        let channel = self.channel(service).map_err(|_| Status::internal("a service without a channel"))?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(self.0.largest);
        grpc.ready().await?;
        Ok(grpc)
    }

    /// The last answer of a method whose service is away.
    pub(super) fn remembered(&self, method: &Method, status: &Status) -> Option<(Duration, Value)> {
        is_away(status.code()).then(|| self.0.remembered.last(method.path().as_str())).flatten()
    }
}
