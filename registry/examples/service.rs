//! A service in five lines: `ETCDCTL_ENDPOINTS=127.0.0.1:2379 cargo run -p svc-registry --example service`

use std::pin::Pin;

use futures_util::Stream;
use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use svc_registry::{Etcd, Serve};
use tonic::{Request, Response, Status, Streaming};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let etcd = Etcd::from_env()?; // ETCDCTL_ENDPOINTS; never blocks, connects and heals behind
    Serve::new(&etcd, "greeter")
        .listen("0.0.0.0:50051")
        .add_service(GreeterServer::new(MyGreeter))
        .run()
        .await?;
    Ok(())
}

struct MyGreeter;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for MyGreeter {
    type LotsOfRepliesStream = Replies;
    type BidiHelloStream = Replies;

    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message, instance: "my own".into() }))
    }

    async fn lots_of_replies(&self, _: Request<LotsOfRepliesRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("this example answers SayHello only"))
    }

    async fn lots_of_greetings(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        Err(Status::unimplemented("this example answers SayHello only"))
    }

    async fn bidi_hello(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("this example answers SayHello only"))
    }
}
