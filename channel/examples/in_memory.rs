//! Tests of one's own client without sockets: a connector that hands the channel one end of a pipe, and the server the
//! other. Nothing of it needs the network or real time, so a test can pause the clock.
//!
//! `cargo run -p svc-channel --example in_memory`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::io;
use std::time::Duration;

use svc_channel::{BoxIo, Channel, Connect, Endpoint, connector_fn};
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

/// Starts the server and gives the connector that leads to it, whatever the address.
fn in_process(server: support::Named) -> impl Connect {
    let (connections, incoming) = mpsc::channel::<io::Result<DuplexStream>>(16);
    let server = Server::builder().add_service(GreeterServer::new(server));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    connector_fn(move |_address| {
        let connections = connections.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            connections.send(Ok(theirs)).await.map_err(io::Error::other)?;
            Ok(Box::new(ours) as BoxIo)
        }
    })
}

/// What would be the body of a `#[tokio::test(start_paused = true)]`.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut slow = support::Named::new("slow");
    slow.delay = Duration::from_secs(3_600);
    let channel = Channel::builder()
        .name("greeter")
        .connector(in_process(slow))
        .deadline(Duration::from_secs(60))
        .fixed([Endpoint::new("greeter:1")?]);

    // The clock is paused: it jumps to the next timer whenever everybody waits.
    let begun = std::time::Instant::now();
    let status =
        GreeterClient::new(channel).say_hello(HelloRequest { name: "ada".into() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    println!("{status}; a minute took {:?}", begun.elapsed());
    Ok(())
}
