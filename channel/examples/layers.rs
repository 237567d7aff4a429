//! The channel is a tower `Service`: tonic's interceptors and tower's layers go on top of it.
//!
//! `cargo run -p svc-channel --example layers`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::time::Duration;

use svc_channel::{Channel, Endpoint};
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
use tonic::service::interceptor::InterceptorLayer;
use tonic::{Request, Status};
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;

/// Adds a header to every call, or fails it before it is sent.
fn with_caller(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("caller", "the example".parse().map_err(|_| Status::internal("a header"))?);
    Ok(request)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut slow = support::Named::new("slow");
    slow.delay = Duration::from_millis(300);
    let (quick, slow) = (support::Named::new("quick").serve().await?, slow.serve().await?);
    let hello = || HelloRequest { name: "ada".into() };

    // tonic's own way.
    let channel = Channel::fixed([Endpoint::new(&quick)?]);
    let mut greeter = GreeterClient::with_interceptor(channel.clone(), with_caller);
    println!("{}", greeter.say_hello(hello()).await?.into_inner().message);

    // The same with layers of tower, the outermost first. They see a call as a whole, retries and hedges included; what
    // concerns one attempt (balancing, deadlines, retries) is the channel's.
    let layers = || {
        ServiceBuilder::new()
            .layer(TimeoutLayer::new(Duration::from_millis(100)))
            .layer(ConcurrencyLimitLayer::new(32))
            .layer(InterceptorLayer::new(with_caller))
    };
    let mut greeter = GreeterClient::new(layers().service(channel));
    println!("{}", greeter.say_hello(hello()).await?.into_inner().message);

    // tower's timeout drops the call, and the channel resets its stream. It does not tell the server how long the client
    // will wait, and it ends with the response's head; prefer `ChannelBuilder::deadline` or a service config's timeout.
    let mut greeter = GreeterClient::new(layers().service(Channel::fixed([Endpoint::new(&slow)?])));
    println!("{}", greeter.say_hello(hello()).await.unwrap_err());
    Ok(())
}
