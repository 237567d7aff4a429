//! What the edge measures of its own requests, by OpenTelemetry's names for HTTP servers.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, Response};
use axum::middleware::Next;

/// The layer. A stream is measured to its head: how long people look on says nothing.
pub(super) async fn measure(request: Request, next: Next) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = name(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    let labels = [
        ("http.request.method", method.to_owned()),
        // What leads nowhere has one name, so that callers who make paths up do not fill the recorder.
        ("http.route", route.unwrap_or_else(|| "other".to_owned())),
        ("http.response.status_code", response.status().as_u16().to_string()),
    ];
    metrics::histogram!("http.server.request.duration", &labels).record(began.elapsed());
    response
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}
