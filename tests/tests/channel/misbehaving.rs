//! The misbehaving peers are tested themselves: what a script says is what a client sees, with a stock tonic channel
//! as the client.

use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloReply, HelloRequest};
use svc_tests::process::Process;
use svc_tests::raw_h2::{self, RawServer, error};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

async fn hello_at(address: &str) -> Result<HelloReply, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a good address");
    let mut client = GreeterClient::new(endpoint.connect_lazy());
    client.say_hello(HelloRequest { name: "ada".into() }).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_script_can_answer_as_any_server_does() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        peer.greet("raw").await
    })
    .await;
    assert_eq!(hello_at(&server.address()).await.expect("an ordinary answer").instance, "raw");
    server.until_accepted(1).await;
}

#[tokio::test]
async fn a_script_can_answer_with_trailers_alone() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.trailers_only(stream, 9, "not now").await?;
        peer.until_closed().await
    })
    .await;
    let status = hello_at(&server.address()).await.expect_err("it failed");
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
}

#[tokio::test]
async fn a_script_can_refuse_a_stream() {
    let server = RawServer::start(|mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.reset(stream, error::REFUSED_STREAM).await?;
        peer.until_closed().await
    })
    .await;
    let status = hello_at(&server.address()).await.expect_err("it was refused");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn what_speaks_no_http2_answers_no_call() {
    for server in [raw_h2::http1().await, raw_h2::tls().await] {
        hello_at(&server.address()).await.expect_err("not a gRPC server");
        assert!(server.accepted() >= 1, "it was reached");
    }
}

#[tokio::test]
async fn a_backend_process_serves_until_it_is_killed() {
    let mut process = Process::spawn(env!("CARGO_BIN_EXE_backend"), &["p0"]);
    assert_eq!(hello_at(process.line()).await.expect("it serves").instance, "p0");
    process.kill();
    assert_eq!(hello_at(process.line()).await.expect_err("it is gone").code(), Code::Unavailable);
}
