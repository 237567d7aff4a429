//! Tests of one's own service, from registration to the answer, without a socket and under a paused clock:
//! `cargo test -p svc-resolver --example own_test`

use std::io;
use std::time::Duration;

use embedded_etcd::{Dialer, EmbeddedEtcd};
use svc_channel::{BoxIo, Connect, connector_fn};
use svc_proto::helloworld::greeter_client::GreeterClient;
use svc_proto::helloworld::greeter_server::{Greeter, GreeterServer};
use svc_proto::helloworld::{HelloReply, HelloRequest};
use svc_registry::{Instance, Registrar, RegistrationStatus};
use svc_resolver::{Channel, Etcd, EtcdConfig, Resolver};
use tonic::{Request, Response, Status};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The service to be tested.
struct Greets;

#[tonic::async_trait]
impl Greeter for Greets {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("hello, {}", request.into_inner().name) }))
    }
}

/// Registered in an etcd of this process, found there and called.
async fn a_registered_greeter_is_found_and_answers() -> Outcome {
    let embedded = EmbeddedEtcd::start().await;
    let etcd = Etcd::new(EtcdConfig::new(["etcd:2379"])?.with_connector(to_etcd(embedded.dialer())))?;
    let registration = Registrar::new(&etcd).register(Instance::new("greeter", "g-1", "greets:1")?);
    registration.status().wait_for(RegistrationStatus::is_registered).await?;
    let channel = Resolver::new(&etcd).channel_with("greeter", Channel::builder().connector(to_greets()))?;
    let name = HelloRequest { name: "ada".into() };
    let reply = GreeterClient::new(channel).say_hello(name).await?;
    assert_eq!(reply.into_inner().message, "hello, ada");
    registration.deregister(Duration::from_secs(5)).await?;
    Ok(())
}

/// The same without any etcd, where it is only the calls that matter.
async fn a_greeter_at_a_fixed_address_answers() -> Outcome {
    let resolver = Resolver::fixed([("greeter", ["greets:1"])]);
    let channel = resolver.channel_with("greeter", Channel::builder().connector(to_greets()))?;
    let reply = GreeterClient::new(channel).say_hello(HelloRequest { name: "bob".into() }).await?;
    assert_eq!(reply.into_inner().message, "hello, bob");
    Ok(())
}

/// Every address leads to the embedded etcd.
fn to_etcd(dialer: Dialer) -> impl Connect {
    connector_fn(move |_| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(|io| Box::new(io) as BoxIo) }
    })
}

/// Every address leads to the service, one server a connection; it ends with the connection.
fn to_greets() -> impl Connect {
    connector_fn(|_| async {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let service = tonic::transport::Server::builder().add_service(GreeterServer::new(Greets));
        tokio::spawn(service.serve_with_incoming(tokio_stream::once(io::Result::Ok(server))));
        Ok(Box::new(client) as BoxIo)
    })
}

#[tokio::test(start_paused = true)]
async fn registered() -> Outcome {
    a_registered_greeter_is_found_and_answers().await
}

#[tokio::test(start_paused = true)]
async fn fixed() -> Outcome {
    a_greeter_at_a_fixed_address_answers().await
}

#[tokio::main]
async fn main() -> Outcome {
    a_registered_greeter_is_found_and_answers().await?;
    a_greeter_at_a_fixed_address_answers().await
}
