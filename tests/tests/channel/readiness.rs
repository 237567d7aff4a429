//! A service that is ready while the services that it needs are: `Channel::watch_state` behind tonic's health service, as
//! a readiness probe sees it.

use std::net::Ipv4Addr;

use svc_channel::{Channel, ConnectivityState};
use svc_proto::greeter::v1::greeter_server::{GreeterServer, SERVICE_NAME};
use svc_tests::backends::{Backend, Greeter};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Streaming;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::{endpoint, patiently};

/// Waits until the probe hears that.
async fn until_told(
    told: &mut Streaming<HealthCheckResponse>,
    wanted: tonic_health::pb::health_check_response::ServingStatus,
) {
    patiently("the probe", async {
        while told.message().await.expect("the service runs").expect("a watch has no end").status() != wanted
        {
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_is_ready_while_what_it_needs_can_be_reached() {
    let mut needed = Backend::refusing("needed");
    let channel = Channel::fixed([endpoint("needed", &needed.address())]);
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut state = channel.watch_state();
    reporter.set_service_status(SERVICE_NAME, ServingStatus::NotServing).await;
    // What a service would run beside its server. Ends with the channel.
    let follows = tokio::spawn(async move {
        loop {
            let ready = *state.borrow_and_update() == ConnectivityState::Ready;
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status(SERVICE_NAME, status).await;
            if state.changed().await.is_err() {
                return;
            }
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let service = GreeterServer::new(Greeter::named("service"));
    let serving = Server::builder()
        .add_service(health)
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { serving.await.expect("it serves") });

    let mut probe = HealthClient::new(Channel::fixed([endpoint("service", &address)]));
    let request = HealthCheckRequest { service: SERVICE_NAME.into() };
    let mut told = patiently("a watch", probe.watch(request)).await.expect("it serves").into_inner();
    until_told(&mut told, NotServing).await;
    needed.restart().await;
    until_told(&mut told, Serving).await;
    needed.stop().await;
    until_told(&mut told, NotServing).await;
    needed.restart().await;
    until_told(&mut told, Serving).await;

    drop(channel);
    patiently("the task beside the server", follows).await.expect("the channel's end is its own");
    server.abort();
}
