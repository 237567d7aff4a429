//! The tools of this group are tested themselves, with a stock tonic channel: what a backend is told to do, its
//! peers see.

use std::time::Duration;

use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloReply, HelloRequest};
use svc_tests::backends::{Backend, Counts};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

fn stock(backend: &Backend) -> GreeterClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", backend.address())).expect("a good address");
    GreeterClient::new(endpoint.connect_lazy())
}

async fn hello(client: &GreeterClient<Channel>) -> Result<HelloReply, Status> {
    client.clone().say_hello(HelloRequest { name: "ada".into() }).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_backend_names_itself_and_counts() {
    let backend = Backend::start("g0").await;
    let client = stock(&backend);
    let reply = hello(&client).await.expect("it serves");
    assert_eq!((reply.instance.as_str(), reply.message.as_str()), ("g0", "Hello ada!"));
    let counts = backend.until(|counts| counts.open == 0).await;
    assert_eq!(counts, Counts { calls: 1, accepted: 1, connections: 1, ..Counts::default() });
    drop(client);
    backend.until(|counts| counts.connections == 0).await;
}

#[tokio::test]
async fn a_stopped_backend_cuts_its_calls_refuses_new_ones_and_comes_back_on_its_port() {
    let mut backend = Backend::start("g0").await;
    let client = stock(&backend);
    backend.hold();
    let call = tokio::spawn({
        let client = client.clone();
        async move { hello(&client).await }
    });
    backend.until(|counts| counts.open == 1).await;
    backend.stop().await;
    assert!(call.await.expect("no panic").is_err(), "the call was cut");
    assert_eq!(hello(&client).await.expect_err("nobody listens").code(), Code::Unavailable);
    backend.release();
    backend.restart().await;
    assert_eq!(hello(&client).await.expect("it serves again").instance, "g0");
}

#[tokio::test]
async fn goaway_lets_calls_end_and_the_next_connection_in() {
    let mut backend = Backend::start("g0").await;
    let client = stock(&backend);
    backend.hold();
    let call = tokio::spawn({
        let client = client.clone();
        async move { hello(&client).await }
    });
    backend.until(|counts| counts.open == 1).await;
    backend.goaway().await;
    backend.release();
    call.await.expect("no panic").expect("GOAWAY cuts no call");
    hello(&client).await.expect("the next connection is accepted");
    assert_eq!(backend.counts().accepted, 2);
    backend.stop_gracefully().await;
    assert_eq!(backend.until(|counts| counts.connections == 0).await.calls, 2);
}

#[tokio::test]
async fn every_fifth_call_fails_at_twenty_percent_and_slow_calls_are_slow() {
    let backend = Backend::start("g0").await;
    let client = stock(&backend);
    backend.set_fail_percent(20);
    let mut failed = 0;
    for _ in 0..20 {
        failed += u32::from(hello(&client).await.is_err());
    }
    assert_eq!(failed, 4);
    backend.set_fail_percent(0);
    backend.set_delay(Duration::from_millis(50));
    let begun = std::time::Instant::now();
    hello(&client).await.expect("slow is not broken");
    assert!(begun.elapsed() >= Duration::from_millis(50));
}
