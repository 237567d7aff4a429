//! A balanced channel over a list that does not change: no registry, no etcd.
//!
//! Start two greeters, then: `cargo run -p svc-channel --example static_list -- 127.0.0.1:50051 127.0.0.1:50052`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use svc_channel::{Channel, Endpoint, RoundRobin};
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::args().skip(1).map(Endpoint::new).collect::<Result<Vec<_>, _>>()?;
    let channel = Channel::builder()
        .name("greeter")
        .policy(RoundRobin::new())
        .deadline(Duration::from_secs(2))
        .fixed(endpoints);

    let mut greeter = GreeterClient::new(channel.clone());
    for _ in 0..4 {
        let reply = greeter.say_hello(HelloRequest { name: "ada".into() }).await?;
        println!("{}", reply.into_inner().message);
    }
    println!("{:#?}", channel.dump());
    Ok(())
}
