//! The edge: HTTP and JSON outside, gRPC inside.
//!
//! ```text
//! /v1/<service>/<Method> -> protocol (JSON to message) -> the service's channel -> protocol (message to JSON) -> body
//!                                                     |-> events (a stream of messages as server-sent events)
//! ```
//! The path's service is a name in the catalog, which the channel follows. `problem` is what errors look like,
//! `remembered` and `home` are answers without a service that is away, `directory` tells which are there, `page.html` is
//! for people.

mod args;
mod calls;
mod directory;
mod events;
mod home;
mod http_metrics;
mod problem;
mod protocol;
mod remembered;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};
use svc_resolver::Channel;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::directory::Directory;
use self::problem::Problem;
use self::protocol::{Method, Protocols};
use self::remembered::Remembered;
use crate::error::BoxError;
use crate::service::Service;

pub use args::EdgeArgs;

/// The page: all of it in one file.
const PAGE: &str = include_str!("page.html");

/// The page's own script and style, and calls to where it came from: nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// What the routes share.
#[derive(Clone, Debug)]
struct Edge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    protocols: Protocols,
    /// One for each service, for the whole process.
    channels: HashMap<String, Channel>,
    directory: Directory,
    remembered: Remembered,
    /// The longest that a caller waits.
    timeout: Duration,
    /// The largest body.
    largest: usize,
    /// Event streams that may still be opened.
    streams: Arc<Semaphore>,
    /// The process is asked to stop: streams without an end of their own have to end.
    stopping: CancellationToken,
}

impl Edge {
    fn new(
        service: &Service,
        protocols: Protocols,
        timeout: Duration,
        max_event_streams: u32,
    ) -> Result<Edge, BoxError> {
        let channel = |name: &str| Ok((name.to_owned(), service.channel(name)?));
        let channels = protocols.services().map(channel).collect::<Result<_, BoxError>>()?;
        Ok(Edge(Arc::new(Inner {
            protocols,
            channels,
            directory: Directory::follow(service.etcd()),
            remembered: Remembered::default(),
            timeout,
            largest: service.max_message_size(),
            streams: Arc::new(Semaphore::new(max_event_streams as usize)),
            stopping: service.stopping(),
        })))
    }

    /// The routes, for a server that speaks HTTP/1.1 too.
    fn routes(self) -> Router {
        let header = |name: HeaderName, value| SetResponseHeaderLayer::if_not_present(name, value);
        Router::new()
            .route("/", get(page))
            .route("/v1/services", get(services))
            .route("/v1/home", get(home::home))
            .route("/v1/{service}/{method}", any(calls::call))
            .fallback(nowhere)
            .method_not_allowed_fallback(only_get)
            .layer(axum::middleware::from_fn(http_metrics::measure))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
            .with_state(self)
    }

    /// The channel to a service that the protocols have.
    fn channel(&self, service: &str) -> Result<Channel, Problem> {
        self.0.channels.get(service).cloned().ok_or_else(Problem::internal)
    }
}

async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE).into_response()
}

/// What is there to be called, and how many instances of it.
async fn services(State(edge): State<Edge>) -> Response {
    let listing = edge.0.directory.now();
    let one = |name: &str| {
        json!({
            "name": name,
            "path": format!("/v1/{name}/"),
            "methods": edge.0.protocols.methods(name).map(Method::name).collect::<Vec<_>>(),
            "instances": listing.instances.get(name).copied().unwrap_or(0),
        })
    };
    let services: Vec<Value> = edge.0.protocols.services().map(one).collect();
    good(json!({ "services": services, "fresh": listing.fresh }))
}

async fn nowhere() -> Problem {
    Problem::no_such_path("there is nothing here; see / and /v1/services")
}

async fn only_get() -> Problem {
    Problem::other_method("GET", "only GET is for this path")
}

/// A good answer.
fn good(data: Value) -> Response {
    problem::response(StatusCode::OK, &problem::body(problem::OK, "OK", data))
}

/// The panic's text goes to the log, not to the caller, who may be anybody.
#[allow(clippy::needless_pass_by_value, reason = "the layer gives it so")]
fn panicked(panic: Box<dyn Any + Send>) -> axum::http::Response<Body> {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = %text, "a handler panicked");
    Problem::internal().into_response()
}
