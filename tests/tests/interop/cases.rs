//! The cases, under the names that the gRPC project gives them. Sizes, codes and texts are those of its description.

use std::time::Duration;

use svc_channel::Channel;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, Binary, MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};

use crate::peer::{Peer, patiently};
use crate::testing::test_service_client::TestServiceClient;
use crate::testing::unimplemented_service_client::UnimplementedServiceClient;
use crate::testing::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest,
};

const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: usize = 314_159;
const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [usize; 4] = [31_415, 9, 2_653, 58_979];

fn client(channel: &Channel) -> TestServiceClient<Channel> {
    TestServiceClient::new(channel.clone())
}

fn zeros(size: usize) -> Option<Payload> {
    Some(Payload { body: vec![0; size] })
}

fn parameters(size: usize) -> ResponseParameters {
    ResponseParameters { size: i32::try_from(size).expect("a small size"), interval_us: 0 }
}

fn large() -> SimpleRequest {
    let response_size = i32::try_from(LARGE_RESPONSE).expect("a small size");
    SimpleRequest { response_size, payload: zeros(LARGE_REQUEST), response_status: None }
}

/// A request of a stream, and what it asks for.
fn output(request: usize, response: usize) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![parameters(response)],
        payload: zeros(request),
        response_status: None,
    }
}

fn size_of(payload: Option<Payload>) -> usize {
    let payload = payload.expect("a payload");
    assert!(payload.body.iter().all(|byte| *byte == 0), "the payload is zeros");
    payload.body.len()
}

pub(crate) async fn empty_unary(channel: &Channel, _: &mut Peer) {
    let answer = patiently(client(channel).empty_call(Empty {})).await.expect("it is answered");
    assert_eq!(answer.into_inner(), Empty {});
}

pub(crate) async fn large_unary(channel: &Channel, _: &mut Peer) {
    let answer = patiently(client(channel).unary_call(large())).await.expect("it is answered");
    assert_eq!(size_of(answer.into_inner().payload), LARGE_RESPONSE);
}

pub(crate) async fn client_streaming(channel: &Channel, _: &mut Peer) {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: zeros(size) });
    let mut client = client(channel);
    let call = patiently(client.streaming_input_call(tokio_stream::iter(requests)));
    assert_eq!(call.await.expect("it is answered").into_inner().aggregated_payload_size, 74_922);
}

pub(crate) async fn server_streaming(channel: &Channel, _: &mut Peer) {
    let request = StreamingOutputCallRequest {
        response_parameters: RESPONSES.map(parameters).into(),
        ..StreamingOutputCallRequest::default()
    };
    let mut client = client(channel);
    let call = patiently(client.streaming_output_call(request));
    let mut responses = call.await.expect("it is answered").into_inner();
    let mut sizes = vec![];
    while let Some(response) = patiently(responses.message()).await.expect("the stream is whole") {
        sizes.push(size_of(response.payload));
    }
    assert_eq!(sizes, RESPONSES);
}

pub(crate) async fn ping_pong(channel: &Channel, _: &mut Peer) {
    let (say, said) = mpsc::channel(1);
    // grpcio sends its headers with the first answer, which waits for the first request.
    say.send(output(REQUESTS[0], RESPONSES[0])).await.expect("the stream is open");
    let mut client = client(channel);
    let call = patiently(client.full_duplex_call(ReceiverStream::new(said)));
    let mut responses = call.await.expect("it is answered").into_inner();
    for (i, wanted) in RESPONSES.into_iter().enumerate() {
        let response = patiently(responses.message()).await.expect("no error").expect("not the end");
        assert_eq!(size_of(response.payload), wanted);
        if let Some(next) = REQUESTS.get(i + 1) {
            say.send(output(*next, RESPONSES[i + 1])).await.expect("the stream is open");
        }
    }
    drop(say);
    assert_eq!(patiently(responses.message()).await.expect("no error"), None, "the end, and OK");
}

pub(crate) async fn empty_stream(channel: &Channel, _: &mut Peer) {
    let mut client = client(channel);
    let call = patiently(client.full_duplex_call(tokio_stream::empty()));
    let mut responses = call.await.expect("it is answered").into_inner();
    assert_eq!(patiently(responses.message()).await.expect("no error"), None);
}

/// Ends with the status of the call, whether it comes in place of the head or after it.
async fn status_of<T>(call: Result<tonic::Response<tonic::Streaming<T>>, Status>) -> Status {
    let mut responses = match call {
        Err(status) => return status,
        Ok(response) => response.into_inner(),
    };
    loop {
        match patiently(responses.message()).await {
            Err(status) => return status,
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
        }
    }
}

pub(crate) async fn timeout_on_sleeping_server(channel: &Channel, peer: &mut Peer) {
    // Connected first: the millisecond is to end in the server, as far as it can be had that way.
    empty_unary(channel, peer).await;
    let (say, said) = mpsc::channel(1);
    let request = StreamingOutputCallRequest { payload: zeros(27_182), ..Default::default() };
    say.send(request).await.expect("the stream is open");
    let mut request = Request::new(ReceiverStream::new(said));
    request.set_timeout(Duration::from_millis(1));
    let status = status_of(patiently(client(channel).full_duplex_call(request)).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    drop(say);
    empty_unary(channel, peer).await;
}

pub(crate) async fn cancel_after_begin(channel: &Channel, peer: &mut Peer) {
    let (say, said) = mpsc::channel(1);
    let mut client = client(channel);
    let mut call = Box::pin(client.streaming_input_call(ReceiverStream::new(said)));
    // Begun: what is said is taken. Nothing answers a request stream before its end.
    tokio::select! {
        answer = &mut call => panic!("answered before its end: {answer:?}"),
        sent = patiently(async {
            for size in [1, 1] {
                say.send(StreamingInputCallRequest { payload: zeros(size) }).await.expect("the stream is open");
            }
            say.reserve().await.expect("the stream is open");
        }) => sent,
    }
    peer.until_begun("StreamingInputCall").await;
    drop(call);
    peer.until_left("StreamingInputCall").await;
    patiently(say.closed()).await;
    empty_unary(channel, peer).await;
}

pub(crate) async fn cancel_after_first_response(channel: &Channel, peer: &mut Peer) {
    let (say, said) = mpsc::channel(1);
    say.send(output(27_182, 31_415)).await.expect("the stream is open");
    let mut client = client(channel);
    let call = patiently(client.full_duplex_call(ReceiverStream::new(said)));
    let mut responses = call.await.expect("it is answered").into_inner();
    let first = patiently(responses.message()).await.expect("no error").expect("not the end");
    assert_eq!(size_of(first.payload), 31_415);
    drop(responses);
    peer.until_left("FullDuplexCall").await;
    patiently(say.closed()).await;
    empty_unary(channel, peer).await;
}

async fn is_echoed(channel: &Channel, wanted: &str) {
    let echo = || Some(EchoStatus { code: Code::Unknown as i32, message: wanted.to_owned() });
    let unary = SimpleRequest { response_status: echo(), ..SimpleRequest::default() };
    let status = patiently(client(channel).unary_call(unary)).await.expect_err("it fails as told");
    assert_eq!((status.code(), status.message()), (Code::Unknown, wanted));
    let request = StreamingOutputCallRequest { response_status: echo(), ..Default::default() };
    let stream = tokio_stream::iter([request]);
    let status = status_of(patiently(client(channel).full_duplex_call(stream)).await).await;
    assert_eq!((status.code(), status.message()), (Code::Unknown, wanted));
}

pub(crate) async fn status_code_and_message(channel: &Channel, _: &mut Peer) {
    is_echoed(channel, "test status message").await;
}

pub(crate) async fn special_status_message(channel: &Channel, _: &mut Peer) {
    let text = "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n";
    is_echoed(channel, text).await;
}

pub(crate) async fn unimplemented_method(channel: &Channel, _: &mut Peer) {
    let status = patiently(client(channel).unimplemented_call(Empty {})).await.expect_err("no server has it");
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

pub(crate) async fn unimplemented_service(channel: &Channel, _: &mut Peer) {
    let mut client = UnimplementedServiceClient::new(channel.clone());
    let status = patiently(client.unimplemented_call(Empty {})).await.expect_err("no server has it");
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

pub(crate) async fn custom_metadata(channel: &Channel, _: &mut Peer) {
    const INITIAL: &str = "x-grpc-test-echo-initial";
    const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
    let initial = MetadataValue::<Ascii>::from_static("test_initial_metadata_value");
    let trailing = MetadataValue::<Binary>::from_bytes(&[0xab, 0xab, 0xab]);
    let with_metadata = |metadata: &mut MetadataMap| {
        metadata.insert(INITIAL, initial.clone());
        metadata.insert_bin(TRAILING, trailing.clone());
    };

    let mut request = Request::new(large());
    with_metadata(request.metadata_mut());
    let answer = patiently(client(channel).unary_call(request)).await.expect("it is answered");
    // tonic shows the initial and the trailing metadata of a unary answer as one.
    assert_eq!(answer.metadata().get(INITIAL), Some(&initial));
    assert_eq!(answer.metadata().get_bin(TRAILING), Some(&trailing));

    let mut request = Request::new(tokio_stream::iter([output(LARGE_REQUEST, LARGE_RESPONSE)]));
    with_metadata(request.metadata_mut());
    let answer = patiently(client(channel).full_duplex_call(request)).await.expect("it is answered");
    assert_eq!(answer.metadata().get(INITIAL), Some(&initial));
    assert_eq!(answer.metadata().get_bin(TRAILING), None, "it has not come yet");
    let mut responses = answer.into_inner();
    let first = patiently(responses.message()).await.expect("no error").expect("not the end");
    assert_eq!(size_of(first.payload), LARGE_RESPONSE);
    assert_eq!(patiently(responses.message()).await.expect("no error"), None);
    let trailers = patiently(responses.trailers()).await.expect("no error").expect("trailers");
    assert_eq!(trailers.get_bin(TRAILING), Some(&trailing));
    assert_eq!(trailers.get(INITIAL), None, "it has come before");
}
