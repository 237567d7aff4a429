//! `/metrics`: what the process measures, on a listener of its own, so that it can be kept off the network on which the
//! service is offered.

use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use crate::error::BoxError;

/// How often samples are moved from their queues into buckets, scraped or not: else they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// The text format's version, which Prometheus looks at.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// gRFC A66's boundaries for durations, in seconds.
const SECONDS: [f64; 41] = [
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008,
    0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4,
    0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
];

/// gRFC A66's boundaries for sizes, in bytes: 0, then from 1 KiB by four to 4 GiB.
fn bytes() -> Vec<f64> {
    let by_four = std::iter::successors(Some(1024.0), |last| Some(last * 4.0)).take(12);
    std::iter::once(0.0).chain(by_four).collect()
}

/// What counts few: retries of one call.
const COUNTS: [f64; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

/// Begins to measure, and serves `/metrics` until the process ends.
pub(super) async fn start(address: &str) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("--metrics-listen {address:?}: cannot be listened on: {error}"))?;
    let handle = recorder()?;
    tracing::info!(address = %listener.local_addr()?, "metrics are served");
    let render = handle.clone();
    let pages =
        Router::new().route("/metrics", get(|| async move { ([(CONTENT_TYPE, TEXT)], render.render()) }));
    // Owned by nobody: both end with the process, and hold nothing but what the recorder holds. The server has no error
    // that would end it.
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    tokio::spawn(upkeep(handle));
    Ok(())
}

async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// The process's recorder, with the boundaries that gRPC recommends.
fn recorder() -> Result<PrometheusHandle, BuildError> {
    let suffix = |end: &str| Matcher::Suffix(end.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("duration"), &SECONDS)?
        .set_buckets_for_metric(suffix("retry_delay"), &SECONDS)?
        .set_buckets_for_metric(suffix("message_size"), &bytes())?
        .set_buckets_for_metric(suffix("retries"), &COUNTS)?
        .set_buckets_for_metric(suffix("hedges"), &COUNTS)?
        .install_recorder()
}
