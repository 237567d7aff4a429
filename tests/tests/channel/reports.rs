//! Load reports of servers (ORCA in trailers, gRFC A51 and A58): real tonic servers that differ in utilization.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use prost::Message;
use svc_channel::{Channel, LeastRequest, ServiceConfig};
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_tests::backends::{Greeter, PATIENCE};
use svc_tests::raw_h2::RawServer;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use crate::metrics::Recorder;
use crate::support::{endpoint, hello, seen, until, until_ready};

const TRAILER: &str = "endpoint-load-metrics-bin";

/// The fields of `xds.data.orca.v3.OrcaLoadReport` that this server sends.
#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(double, tag = "2")]
    mem_utilization: f64,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

/// The trailer of a server with 100 calls a second.
fn utilized(utilization: f64) -> HeaderValue {
    let report = Report { mem_utilization: 0.5, rps_fractional: 100.0, application_utilization: utilization };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(TRAILER, BinaryMetadataValue::from_bytes(&report.encode_to_vec()));
    metadata.into_headers().remove(TRAILER).expect("it was just inserted")
}

/// A greeter whose answers end in this trailer. Its drop ends it.
struct Reporting {
    greeter: Greeter,
    address: String,
    server: AbortHandle,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn reporting(name: &str, trailer: HeaderValue) -> Reporting {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let greeter = Greeter::named(name);
    let report = MapResponseLayer::new(move |response: Response<Body>| {
        let trailer = trailer.clone();
        response.map(move |body| {
            Body::new(body.map_frame(move |frame: http_body::Frame<Bytes>| match frame.into_trailers() {
                Ok(mut trailers) => {
                    trailers.insert(TRAILER, trailer.clone());
                    http_body::Frame::trailers(trailers)
                }
                Err(frame) => frame,
            }))
        })
    });
    let router = Server::builder().layer(report).add_service(GreeterServer::new(greeter.clone()));
    let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { serving.await.expect("it serves") }).abort_handle();
    Reporting { greeter, address, server }
}

const WEIGHTED: &str = r#"{"loadBalancingConfig": [{"weighted_round_robin": {
    "blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}}]}"#;

fn weighted() -> ServiceConfig {
    WEIGHTED.parse().expect("a good config")
}

/// Calls until a batch of 500 is shared out like that, give or take 2 %.
async fn until_shares(channel: &Channel, servers: &[Reporting], expected: &[f64]) {
    let begun = std::time::Instant::now();
    let counts = || servers.iter().map(|s| s.greeter.counts().calls).collect::<Vec<_>>();
    loop {
        let before = counts();
        for _ in 0..500 {
            hello(channel).await.expect("it serves");
        }
        let shares: Vec<_> =
            counts().iter().zip(before).map(|(after, before)| (after - before) as f64 / 500.0).collect();
        if shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 0.02) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{shares:?}, {expected:?} were expected: {:#?}", channel.dump());
    }
}

#[tokio::test]
async fn shares_follow_the_utilization_that_servers_report() {
    let servers = [
        reporting("b0", utilized(0.8)).await,
        reporting("b1", utilized(0.4)).await,
        reporting("b2", utilized(0.4)).await,
    ];
    let endpoints = servers.iter().map(|s| endpoint(s.greeter.name(), &s.address));
    let channel = Channel::builder().service_config(weighted()).fixed(endpoints);
    until_ready(&channel, 3).await;
    until_shares(&channel, &servers, &[0.2, 0.4, 0.4]).await;
    let weight = |instance| seen(&channel.dump(), instance).and_then(|e| e.reported_weight);
    assert_eq!((weight("b0"), weight("b1")), (Some(125.0), Some(250.0)));
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_ignored_and_its_endpoint_counts_as_the_mean() {
    let garbage = HeaderValue::from_static("!!!");
    let servers = [
        reporting("b0", utilized(0.5)).await,
        reporting("b1", utilized(0.25)).await,
        reporting("b2", garbage).await,
    ];
    let endpoints = servers.iter().map(|s| endpoint(s.greeter.name(), &s.address));
    let channel = Channel::builder().service_config(weighted()).fixed(endpoints);
    until_ready(&channel, 3).await;
    // 200, 400, and the mean of them.
    until_shares(&channel, &servers, &[2.0 / 9.0, 4.0 / 9.0, 3.0 / 9.0]).await;
    assert!(seen(&channel.dump(), "b2").is_some_and(|e| e.reported_weight.is_none()));
}

#[tokio::test]
async fn other_policies_do_not_look_at_reports() {
    let server = reporting("b0", utilized(0.5)).await;
    let channel = Channel::builder().policy(LeastRequest::new()).fixed([endpoint("b0", &server.address)]);
    for _ in 0..10 {
        hello(&channel).await.expect("it serves");
    }
    let dump = until(&channel, |dump| dump.endpoints.iter().all(|e| e.in_flight == 0)).await;
    assert!(dump.endpoints.iter().all(|e| e.reported_weight.is_none()));
}

#[tokio::test]
async fn answers_that_are_only_trailers_report_too_also_where_they_are_retried() {
    let retry = r#""methodConfig": [{"name": [{}], "retryPolicy": {
        "maxAttempts": 2, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"]}}], "#;
    for retry in ["", retry] {
        let server = RawServer::start(|mut peer| async move {
            peer.handshake(&[]).await?;
            // One answer that is only trailers; those after it carry no report.
            let stream = peer.call().await?;
            let report = utilized(0.5);
            let report = report.to_str().expect("base64").to_owned();
            let head = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")];
            peer.headers(stream, &[head.as_slice(), &[(TRAILER, report.as_str())]].concat(), true).await?;
            peer.greet("raw").await
        })
        .await;
        let config = WEIGHTED.replacen('{', &format!("{{{retry}"), 1).parse::<ServiceConfig>();
        let channel = Channel::builder()
            .service_config(config.expect("a good config"))
            .fixed([endpoint("raw", &server.address())]);
        assert_eq!(hello(&channel).await.is_ok(), !retry.is_empty());
        assert_eq!(seen(&channel.dump(), "raw").and_then(|e| e.reported_weight), Some(200.0));
    }
}

#[tokio::test]
async fn what_becomes_of_reported_weights_is_counted() {
    let recorder = Recorder::install();
    let servers = [
        reporting("b0", utilized(0.8)).await,
        reporting("b1", utilized(0.4)).await,
        reporting("b2", HeaderValue::from_static("!!!")).await,
    ];
    let endpoints = servers.iter().map(|s| endpoint(s.greeter.name(), &s.address));
    let short = WEIGHTED.replacen("\"0s\"", "\"0s\", \"weightExpirationPeriod\": \"0.3s\"", 1);
    let config = short.parse::<ServiceConfig>().expect("a good config");
    let channel = Channel::builder().name("greeter").service_config(config).fixed(endpoints);
    until_ready(&channel, 3).await;
    let labels = "grpc.target=greeter";
    let seen = recorder.seen();
    let of = |name: &str| seen.of(name, labels).iter().sum::<f64>();
    assert!(of("grpc.lb.wrr.rr_fallback") >= 1.0, "nobody has reported yet");
    assert!(of("grpc.lb.wrr.endpoint_weight_not_yet_usable") >= 3.0);
    assert_eq!((of("grpc.lb.wrr.endpoint_weight_stale"), of("grpc.lb.wrr.endpoint_weights")), (0.0, 0.0));

    // Reports that come are weights at the next update, and stale where no more come.
    let (mut weights, mut stale, mut silent) = (Vec::new(), 0.0, 0.0);
    let begun = std::time::Instant::now();
    while [0.0, 125.0, 250.0].iter().any(|weight| !weights.contains(weight)) {
        assert!(begun.elapsed() < PATIENCE, "{weights:?}");
        hello(&channel).await.expect("it serves");
        weights.extend(recorder.seen().of("grpc.lb.wrr.endpoint_weights", labels));
    }
    while stale < 2.0 {
        assert!(begun.elapsed() < PATIENCE, "{stale} are stale, {silent} not yet usable");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let seen = recorder.seen();
        stale += seen.of("grpc.lb.wrr.endpoint_weight_stale", labels).iter().sum::<f64>();
        silent += seen.of("grpc.lb.wrr.endpoint_weight_not_yet_usable", labels).iter().sum::<f64>();
    }
    assert!(silent >= 1.0, "the one whose reports cannot be read has none");
}
