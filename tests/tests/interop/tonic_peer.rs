//! The TestService on tonic. What its handlers cannot do is done by a layer: metadata in the trailers of an answer that is
//! OK, and telling that a client has gone, which a stream of requests takes for its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::Service;

use crate::testing::test_service_server::{TestService, TestServiceServer};
use crate::testing::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
};

/// What a server says, in the words of `server.py`.
type Say = mpsc::Sender<String>;

/// No case has as many calls.
const MOST_SAID: usize = 64;

/// A running server. Its drop ends it.
pub(crate) struct TonicPeer {
    pub(crate) address: SocketAddr,
    pub(crate) said: mpsc::Receiver<String>,
    _serving: AbortOnDropHandle<()>,
}

/// Starts a server on a loopback port.
pub(crate) async fn start() -> TonicPeer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (say, said) = mpsc::channel(MOST_SAID);
    let service = Around { inner: TestServiceServer::new(Tested), say };
    let serving =
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    // Owned by the peer, whose drop ends it; an error shows as calls that fail.
    let serving = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = serving.await;
    }));
    TonicPeer { address, said, _serving: serving }
}

struct Tested;

fn zeros(size: i32) -> Option<Payload> {
    Some(Payload { body: vec![0; usize::try_from(size).unwrap_or(0)] })
}

fn as_told(status: Option<EchoStatus>) -> Result<(), Status> {
    status.map_or(Ok(()), |wanted| Err(Status::new(Code::from(wanted.code), wanted.message)))
}

type Outputs = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;
type Output = mpsc::Sender<Result<StreamingOutputCallResponse, Status>>;

/// Sends what is asked for; false once nobody listens.
async fn send(parameters: &[ResponseParameters], to: &Output) -> bool {
    for wanted in parameters {
        tokio::time::sleep(Duration::from_micros(u64::try_from(wanted.interval_us).unwrap_or(0))).await;
        if to.send(Ok(StreamingOutputCallResponse { payload: zeros(wanted.size) })).await.is_err() {
            return false;
        }
    }
    true
}

#[tonic::async_trait]
impl TestService for Tested {
    type StreamingOutputCallStream = Outputs;
    type FullDuplexCallStream = Outputs;

    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        as_told(request.response_status)?;
        Ok(Response::new(SimpleResponse { payload: zeros(request.response_size) }))
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Outputs>, Status> {
        let request = request.into_inner();
        let (to, outputs) = mpsc::channel(1);
        // Ends with the stream, which ends with the call; its status goes into the stream.
        tokio::spawn(async move {
            if send(&request.response_parameters, &to).await
                && let Err(status) = as_told(request.response_status)
            {
                let _ = to.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outputs))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut size = 0;
        while let Some(request) = requests.next().await.transpose()? {
            size += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size = i32::try_from(size).map_err(|_| Status::out_of_range("too much"))?;
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        let mut requests = request.into_inner();
        let (to, outputs) = mpsc::channel(1);
        // Ends with the requests or the call, whichever is first; its status goes into the stream.
        tokio::spawn(async move {
            loop {
                let request = match requests.next().await {
                    None => break,
                    Some(Err(_gone)) => return,
                    Some(Ok(request)) => request,
                };
                if !send(&request.response_parameters, &to).await {
                    return;
                }
                if let Err(status) = as_told(request.response_status) {
                    let _ = to.send(Err(status)).await;
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outputs))))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("nor is it here"))
    }
}

const INITIAL: HeaderName = HeaderName::from_static("x-grpc-test-echo-initial");
const TRAILING: HeaderName = HeaderName::from_static("x-grpc-test-echo-trailing-bin");

/// Sends two fields of each request back, one with the headers, one with the trailers; says when a call begins, and when
/// its client leaves before the end.
#[derive(Clone)]
struct Around<S> {
    inner: S,
    say: Say,
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for Around<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Around<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let field = |name: HeaderName| -> Option<HeaderValue> { request.headers().get(name).cloned() };
        let (initial, trailing) = (field(INITIAL), field(TRAILING));
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let watched = Watched::new(&self.say, method);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(initial) = initial {
                response.headers_mut().insert(INITIAL, initial);
            }
            Ok(response.map(|body| {
                let body = WatchedBody { inner: body, watched };
                match trailing {
                    None => Body::new(body),
                    Some(trailing) => {
                        let trailers = HeaderMap::from_iter([(TRAILING, trailing)]);
                        Body::new(body.with_trailers(async { Some(Ok(trailers)) }))
                    }
                }
            }))
        })
    }
}

/// Says that the client has left, where it is dropped before the call's end.
struct Watched {
    say: Say,
    method: String,
    ended: bool,
}

impl Watched {
    fn new(say: &Say, method: String) -> Self {
        // A test that has ended hears nothing, here and below.
        let _ = say.try_send(format!("began {method}"));
        Self { say: say.clone(), method, ended: false }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.say.try_send(format!("left {}", self.method));
        }
    }
}

/// An answer's body. The call has ended when its last frame was taken; hyper drops it before that where the stream was
/// reset.
struct WatchedBody {
    inner: Body,
    watched: Watched,
}

impl http_body::Body for WatchedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            let goes_on = matches!(frame, Some(Ok(frame)) if frame.is_data());
            self.watched.ended |= !goes_on;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
