//! The servers that every contestant calls: plain tonic greeters and a byte echo, in another process, so that the
//! client's CPU time is the client's alone. [`Backends::start`] runs this binary again with `serve`.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

/// Where [`Echo`] listens.
pub(crate) const ECHO_PATH: &str = "/bench.Echo/Unary";

/// Room for the 1 MB messages of the echo.
const LARGEST_MESSAGE: usize = 8 * 1024 * 1024;

/// Backends in another process, ended by the drop.
#[derive(Debug)]
pub(crate) struct Backends {
    process: Child,
    /// `host:port` each.
    pub(crate) addresses: Vec<String>,
}

impl Backends {
    /// Starts `count` of them and waits until they listen.
    pub(crate) fn start(count: usize) -> Result<Self, Box<dyn Error>> {
        Self::start_with_a_slow_one(count, Duration::ZERO)
    }

    /// The same, and the first answers `delay` later than the others.
    pub(crate) fn start_with_a_slow_one(count: usize, delay: Duration) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", &count.to_string(), &delay.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("the backends have no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let addresses: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if addresses.len() != count {
            return Err(format!("{count} backends were to start, and said {line:?}").into());
        }
        Ok(Backends { process, addresses })
    }

    /// Sends their process a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Box<dyn Error>> {
        Ok(kill(Pid::from_raw(self.process.id().try_into()?), signal)?)
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves `count` backends until stdin ends, which it does when the benchmark ends in whatever way.
pub(crate) async fn serve(count: usize, mut delay: Duration) -> Result<(), Box<dyn Error>> {
    // Owned here, ended by this function's end; each serves as long as its listener lives.
    let mut servers = JoinSet::new();
    let mut addresses = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        addresses.push(address.clone());
        let incoming = TcpListenerStream::new(listener);
        let plain = Plain { address: address.into(), delay: std::mem::take(&mut delay) };
        let router = Server::builder().add_service(GreeterServer::new(plain)).add_service(Echo);
        servers.spawn(router.serve_with_incoming(NoDelay(incoming)));
    }
    crate::report::say(&addresses.join(" "));
    let stdin = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        ended = stdin => { ended??; Ok(()) }
        Some(ended) = servers.join_next() => { ended??; Err("a backend ended".into()) }
    }
}

/// Accepted streams with TCP_NODELAY: tonic sets it only on listeners of its own.
struct NoDelay(TcpListenerStream);

impl tokio_stream::Stream for NoDelay {
    type Item = std::io::Result<tokio::net::TcpStream>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        std::pin::Pin::new(&mut self.0).poll_next(cx).map_ok(|stream| {
            let _ = stream.set_nodelay(true);
            stream
        })
    }
}

/// A greeter without frills.
#[derive(Debug, Clone)]
struct Plain {
    address: Arc<str>,
    /// Before each unary answer.
    delay: Duration,
}

#[tonic::async_trait]
impl Greeter for Plain {
    type LotsOfRepliesStream = BoxStream<'static, Result<HelloReply, Status>>;
    type BidiHelloStream = tokio_stream::Empty<Result<HelloReply, Status>>;

    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let message = request.into_inner().name;
        Ok(Response::new(HelloReply { message, instance: self.address.to_string() }))
    }

    async fn lots_of_replies(
        &self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Self::LotsOfRepliesStream>, Status> {
        let reply = |_| Ok(HelloReply { message: String::new(), instance: "b".to_owned() });
        Ok(Response::new(futures_util::stream::iter((0..request.into_inner().count).map(reply)).boxed()))
    }

    async fn lots_of_greetings(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        let mut requests = request.into_inner();
        let mut reply = LotsOfGreetingsReply::default();
        while requests.message().await?.is_some() {
            reply.count += 1;
        }
        Ok(Response::new(reply))
    }

    async fn bidi_hello(
        &self,
        _request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::BidiHelloStream>, Status> {
        Err(Status::unimplemented("no row calls it"))
    }
}

/// Bytes that are cheap to clone, so that a large message costs the caller no copy before the codec's.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
}

/// Answers with what it was sent.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Payload, Payload>::default())
                .max_decoding_message_size(LARGEST_MESSAGE);
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

impl UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = std::future::Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}
