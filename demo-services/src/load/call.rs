//! One call of the load, from its start to its [`Outcome`].

use std::time::Duration;

use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfRepliesRequest};
use svc_resolver::Peer;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Rpc;
use super::edge::Edge;
use super::tally::Outcome;

/// How long after its deadline a call that the channel has not ended is given up, and counted as what it is: a
/// deadline that nobody enforced.
const BACKSTOP: Duration = Duration::from_secs(1);

/// What the load calls through: our channel, or tonic's own for comparison.
#[derive(Clone, Debug)]
pub enum Client {
    /// The balanced channel of this project.
    Balanced(GreeterClient<svc_resolver::Channel>),
    /// A stock tonic channel, fed by the same discovery.
    Stock(GreeterClient<tonic::transport::Channel>),
    /// HTTP and JSON to the edge; what it calls there is its own.
    Edge(Edge),
}

impl Client {
    /// Makes one call, ended by `deadline` at the latest.
    pub(crate) async fn call(&mut self, rpc: Rpc, deadline: Duration) -> Outcome {
        if let Client::Edge(edge) = self {
            return edge.call(deadline).await;
        }
        let started = Instant::now();
        let mut replies = Vec::new();
        let peer = Peer::default();
        let call = async {
            match rpc {
                Rpc::Unary => {
                    let reply = self.say_hello(attempt(hello(), deadline, &peer)).await?;
                    replies.push(reply.into_inner().instance);
                }
                Rpc::Stream { replies: count, interval } => {
                    let request = attempt(many(count, interval), deadline, &peer);
                    let mut stream = self.lots_of_replies(request).await?.into_inner();
                    while let Some(reply) = stream.message().await? {
                        replies.push(reply.instance);
                    }
                }
            }
            Ok::<(), Status>(())
        };
        let result = match tokio::time::timeout(deadline + BACKSTOP, call).await {
            Ok(result) => result.map_err(|status| (status.code(), status.message().to_owned())),
            Err(_) => Err((Code::DeadlineExceeded, format!("not ended {BACKSTOP:?} after its deadline"))),
        };
        let repeats = peer.asked().len().saturating_sub(1) as u64;
        Outcome { replies, result, repeats, took: started.elapsed() }
    }

    async fn say_hello(&mut self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        match self {
            Client::Balanced(client) => client.say_hello(request).await,
            Client::Stock(client) => client.say_hello(request).await,
            Client::Edge(_) => Err(no_grpc()),
        }
    }

    async fn lots_of_replies(
        &mut self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Streaming<HelloReply>>, Status> {
        match self {
            Client::Balanced(client) => client.lots_of_replies(request).await,
            Client::Stock(client) => client.lots_of_replies(request).await,
            Client::Edge(_) => Err(no_grpc()),
        }
    }
}

fn hello() -> HelloRequest {
    HelloRequest { name: "load".into() }
}

fn many(count: u32, interval: Duration) -> LotsOfRepliesRequest {
    let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
    LotsOfRepliesRequest { name: "load".into(), count, interval_ms }
}

fn attempt<T>(message: T, deadline: Duration, peer: &Peer) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request.extensions_mut().insert(peer.clone());
    request
}

/// Never sent anywhere: the edge's calls are its own.
fn no_grpc() -> Status {
    Status::internal("the edge is called by HTTP")
}
