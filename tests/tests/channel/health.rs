//! Client health checking (gRFC A17), on tonic-health's servers, on a server without a health service, and on a raw one.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use svc_channel::{Channel, ChannelBuilder, EndpointState, ServiceConfig};
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_tests::backends::{Backend, Greeter};
use svc_tests::raw_h2::RawServer;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Server;
use tonic_health::ServingStatus::{self, NotServing, Serving};
use tonic_health::server::{HealthReporter, HealthService};

use crate::load::Load;
use crate::support::{endpoint, hello, hello_within, patiently, seen, until, until_idle, until_ready};

const SERVICE: &str = "greeter";

/// A greeter that tells its health. Its drop ends it.
struct Healthy {
    greeter: Greeter,
    reporter: HealthReporter,
    address: String,
    server: AbortHandle,
}

impl Drop for Healthy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Healthy {
    async fn start(name: &str) -> Healthy {
        Self::start_with(name, Server::builder()).await
    }

    async fn start_with(name: &str, mut server: Server) -> Healthy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (greeter, reporter) = (Greeter::named(name), HealthReporter::new());
        reporter.set_service_status(SERVICE, Serving).await;
        let health = HealthService::from_health_reporter(reporter.clone());
        let router = server
            .add_service(GreeterServer::new(greeter.clone()))
            .add_service(tonic_health::pb::health_server::HealthServer::new(health));
        let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.expect("it serves") }).abort_handle();
        Healthy { greeter, reporter, address, server }
    }

    async fn set(&self, status: ServingStatus) {
        self.reporter.set_service_status(SERVICE, status).await;
    }
}

fn checked() -> ChannelBuilder {
    configured(r#"{"healthCheckConfig": {"serviceName": "greeter"}}"#)
}

fn configured(json: &str) -> ChannelBuilder {
    let config: ServiceConfig = json.parse().expect("a good config");
    Channel::builder().service_config(config).max_backoff(Duration::from_millis(50))
}

async fn until_state(channel: &Channel, instance: &str, state: EndpointState) {
    until(channel, |dump| seen(dump, instance).is_some_and(|endpoint| endpoint.state == state)).await;
}

#[tokio::test]
async fn a_status_that_changes_under_load_moves_the_traffic_and_fails_no_call() {
    let servers = [Healthy::start("b0").await, Healthy::start("b1").await, Healthy::start("b2").await];
    let endpoints = servers.iter().map(|s| endpoint(s.greeter.name(), &s.address));
    let channel = checked().fixed(endpoints);
    until_ready(&channel, 3).await;
    let load = Load::start(&channel, 8, None);
    load.until("calls to b0", |tally| tally.of("b0") > 20).await;
    for _ in 0..3 {
        servers[0].set(NotServing).await;
        until_state(&channel, "b0", EndpointState::NotServing).await;
        servers[0].greeter.until(|counts| counts.open == 0).await;
        // One more round of callers, for those that had picked before it was published.
        load.more(16).await;
        let before = servers[0].greeter.counts().calls;
        load.more(200).await;
        assert_eq!(servers[0].greeter.counts().calls, before, "its traffic has left");
        servers[0].set(Serving).await;
        until_state(&channel, "b0", EndpointState::Ready).await;
        let back = load.tally().of("b0") + 20;
        load.until("calls to b0", |tally| tally.of("b0") > back).await;
    }
    load.finish_unharmed().await;
    until_idle(&channel).await;
}

#[tokio::test]
async fn calls_in_flight_go_on_where_the_server_no_longer_serves_and_new_ones_are_told_so() {
    let server = Healthy::start("b0").await;
    let channel = checked().fixed([endpoint("b0", &server.address)]);
    server.greeter.hold();
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    server.greeter.until(|counts| counts.open == 1).await;
    server.set(NotServing).await;
    until_state(&channel, "b0", EndpointState::NotServing).await;
    let status = hello(&channel).await.expect_err("nobody serves");
    assert_eq!(status.code(), Code::Unavailable);
    let text = status.message();
    assert!(text.contains("1 not serving") && text.contains("\"greeter\": NOT_SERVING"), "{text}");
    server.greeter.release();
    held.await.expect("no panic").expect("the call in flight went on");
}

#[tokio::test]
async fn a_server_without_a_health_service_counts_as_serving() {
    let server = Backend::start("b0").await;
    let channel = checked().fixed([endpoint("b0", &server.address())]);
    assert_eq!(hello(&channel).await.expect("it serves").instance, "b0");
    server.goaway().await;
    server.until(|counts| counts.accepted == 2).await;
    assert_eq!(hello(&channel).await.expect("on the next connection too").instance, "b0");
}

#[tokio::test]
async fn a_health_stream_that_breaks_is_begun_anew_and_the_endpoint_is_out_until_then() {
    let mut server = Healthy::start("b0").await;
    let channel = checked().fixed([endpoint("b0", &server.address)]);
    until_ready(&channel, 1).await;
    // Its streams end, and new ones are refused.
    server.reporter.clear_service_status(SERVICE).await;
    until_state(&channel, "b0", EndpointState::NotServing).await;
    until(&channel, |dump| {
        seen(dump, "b0").and_then(|e| e.last_error.as_deref()).is_some_and(|e| e.contains("NotFound"))
    })
    .await;
    assert_eq!(hello(&channel).await.expect_err("out").code(), Code::Unavailable);
    server.set(Serving).await;
    until_ready(&channel, 1).await;
    hello(&channel).await.expect("it serves again");
}

#[tokio::test]
async fn a_server_that_never_tells_its_health_takes_no_calls_and_holds_none_up() {
    let mute = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        loop {
            peer.head().await?;
        }
    })
    .await;
    let server = Healthy::start("b0").await;
    let both = [endpoint("mute", &mute.address()), endpoint("b0", &server.address)];
    let channel = checked().connect_timeout(Duration::from_millis(500)).fixed(both);
    for _ in 0..20 {
        assert_eq!(hello(&channel).await.expect("b0 serves").instance, "b0");
    }
    until_state(&channel, "mute", EndpointState::NotServing).await;
    server.set(NotServing).await;
    until_state(&channel, "b0", EndpointState::NotServing).await;
    let long = Some(Duration::from_secs(3600));
    let status = hello_within(&channel, long).await.expect_err("nobody serves");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("2 not serving"), "{status}");
}

#[tokio::test]
async fn the_health_stream_takes_a_slot_and_is_no_load() {
    // One stream at a time, which is the check's: calls go over another connection.
    let server = Healthy::start_with("b0", Server::builder().max_concurrent_streams(1)).await;
    let channel = checked().fixed([endpoint("b0", &server.address)]);
    until_ready(&channel, 1).await;
    assert_eq!(seen(&channel.dump(), "b0").map(|e| (e.in_flight, e.load)), Some((0, 0)));
    hello(&channel).await.expect("a connection more");
    until_idle(&channel).await;
}

#[tokio::test]
async fn the_health_stream_keeps_no_connection_open() {
    for with_goaway in [true, false] {
        let over = Arc::new(Notify::new());
        let told = over.clone();
        let server = RawServer::start(move |mut peer| {
            let told = told.clone();
            async move {
                peer.handshake(&[]).await?;
                let stream = peer.head().await?;
                peer.answer_head(stream).await?;
                peer.data(stream, &[0, 0, 0, 0, 2, 8, 1]).await?;
                if with_goaway && peer.number() == 1 {
                    peer.go_away(stream, 0).await?;
                }
                let closed = peer.until_closed().await;
                told.notify_one();
                closed
            }
        })
        .await;
        let channel = checked().fixed([endpoint("raw", &server.address())]);
        if with_goaway {
            patiently("the end of the connection that said GOAWAY", over.notified()).await;
            server.until_accepted(2).await;
        }
        until_ready(&channel, 1).await;
        drop(channel);
        patiently("the end of a channel's connection", over.notified()).await;
    }
}

#[tokio::test]
async fn pick_first_does_not_check() {
    let server = Healthy::start("b0").await;
    server.set(NotServing).await;
    let config =
        r#"{"loadBalancingConfig": [{"pick_first": {}}], "healthCheckConfig": {"serviceName": "greeter"}}"#;
    let channel = configured(config).fixed([endpoint("b0", &server.address)]);
    hello(&channel).await.expect("it was not asked");
}

#[tokio::test]
async fn checks_come_and_go_with_the_service_config() {
    let servers = [Healthy::start("b0").await, Healthy::start("b1").await];
    servers[0].set(NotServing).await;
    let (live, configs) = watch::channel(None);
    let endpoints = servers.iter().map(|s| endpoint(s.greeter.name(), &s.address));
    let channel = Channel::builder().service_config_watch(configs).fixed(endpoints);
    until_ready(&channel, 2).await;
    let load = Load::start(&channel, 4, None);
    for _ in 0..3 {
        let checked = r#"{"healthCheckConfig": {"serviceName": "greeter"}}"#;
        live.send_replace(Some(checked.parse().expect("a good config")));
        until_state(&channel, "b0", EndpointState::NotServing).await;
        // The server as a whole serves.
        let whole = r#"{"healthCheckConfig": {"serviceName": ""}}"#;
        live.send_replace(Some(whole.parse().expect("a good config")));
        until_ready(&channel, 2).await;
        live.send_replace(Some(checked.parse().expect("a good config")));
        until_state(&channel, "b0", EndpointState::NotServing).await;
        live.send_replace(None);
        until_ready(&channel, 2).await;
        load.more(20).await;
    }
    load.finish_unharmed().await;
}
