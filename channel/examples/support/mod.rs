//! What the examples talk to: a greeter in the same process, so that each runs by itself.
#![allow(dead_code, unreachable_pub, reason = "each example uses a part of it")]

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Replies = Pin<Box<dyn tokio_stream::Stream<Item = Result<HelloReply, Status>> + Send>>;

/// A greeter that answers under its name.
pub struct Named {
    pub name: String,
    /// It turns down so many calls before it answers.
    pub failing: AtomicU32,
    pub delay: Duration,
}

impl Named {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), failing: 0.into(), delay: Duration::ZERO }
    }

    /// Serves on a free port of the loopback, until the process ends; its address.
    pub async fn serve(self) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = Server::builder().add_service(GreeterServer::new(self));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }
}

#[tonic::async_trait]
impl Greeter for Named {
    type LotsOfRepliesStream = Replies;
    type BidiHelloStream = Replies;

    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        if self.failing.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(Status::unavailable("not now"));
        }
        tokio::time::sleep(self.delay).await;
        let caller =
            request.metadata().get("caller").and_then(|v| v.to_str().ok()).unwrap_or("nobody").to_owned();
        let message = format!("hello {}, says {} (called by {caller})", request.into_inner().name, self.name);
        Ok(Response::new(HelloReply { message, instance: self.name.clone() }))
    }

    async fn lots_of_replies(&self, _: Request<LotsOfRepliesRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not in the examples"))
    }

    async fn lots_of_greetings(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        Err(Status::unimplemented("not in the examples"))
    }

    async fn bidi_hello(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not in the examples"))
    }
}
