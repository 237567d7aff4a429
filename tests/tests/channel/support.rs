//! What these tests share: clients, a `Discover` in the test's hand, and waiting for what a channel sees.

use std::time::{Duration, Instant};

use svc_channel::{Channel, ChannelDump, Endpoint, EndpointDump, EndpointState};
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloReply, HelloRequest};
use svc_tests::backends::PATIENCE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tower::BoxError;
use tower::discover::Change;

/// An endpoint at an address of these tests, known by `instance`.
pub(crate) fn endpoint(instance: &str, address: &str) -> Endpoint {
    Endpoint::new(address).expect("an address that can be dialled").instance(instance)
}

/// Endpoints at addresses of a fleet, named `b0`, `b1` and so on.
pub(crate) fn endpoints(addresses: &[String]) -> Vec<Endpoint> {
    let named = addresses.iter().enumerate();
    named.map(|(number, address)| endpoint(&format!("b{number}"), address)).collect()
}

/// A generated client with room for large messages.
pub(crate) fn greeter(channel: &Channel) -> GreeterClient<Channel> {
    const LARGEST: usize = 64 * 1024 * 1024;
    GreeterClient::new(channel.clone()).max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST)
}

/// One unary call. It fails the test if it hangs.
pub(crate) async fn hello(channel: &Channel) -> Result<HelloReply, Status> {
    hello_within(channel, None).await
}

/// One unary call with a deadline of its own.
pub(crate) async fn hello_within(
    channel: &Channel,
    deadline: Option<Duration>,
) -> Result<HelloReply, Status> {
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    patiently("a call", greeter(channel).say_hello(request)).await.map(tonic::Response::into_inner)
}

/// Awaits what the test has caused.
///
/// # Panics
/// If that takes more than half a minute.
pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, future).await else { panic!("{what} hangs") };
    done
}

/// Waits until the channel sees what the test needs.
pub(crate) async fn until(channel: &Channel, mut wanted: impl FnMut(&ChannelDump) -> bool) -> ChannelDump {
    let begun = Instant::now();
    loop {
        let looked = Instant::now();
        let dump = channel.dump();
        if wanted(&dump) {
            return dump;
        }
        assert!(begun.elapsed() < PATIENCE, "the channel never got there: {dump:#?}");
        // A dump of many endpoints takes its time: most of it is left to the channel.
        tokio::time::sleep(Duration::from_millis(2) + 4 * looked.elapsed()).await;
    }
}

/// Waits until that many endpoints are ready.
pub(crate) async fn until_ready(channel: &Channel, count: usize) {
    until(channel, |dump| in_state(dump, EndpointState::Ready) == count).await;
}

/// Waits until no call is in flight, as the channel counts.
pub(crate) async fn until_idle(channel: &Channel) {
    until(channel, |dump| dump.endpoints.iter().all(|endpoint| endpoint.in_flight == 0)).await;
}

pub(crate) fn in_state(dump: &ChannelDump, state: EndpointState) -> usize {
    dump.endpoints.iter().filter(|endpoint| endpoint.state == state).count()
}

/// What the channel knows of one instance.
pub(crate) fn seen<'a>(dump: &'a ChannelDump, instance: &str) -> Option<&'a EndpointDump> {
    dump.endpoints.iter().find(|endpoint| &*endpoint.instance == instance)
}

/// A `Discover` that says what the test says. Its drop ends it.
#[derive(Debug)]
pub(crate) struct Changes(mpsc::Sender<Found>);

type Found = Result<Change<String, Endpoint>, BoxError>;

/// A `Discover`, and the hand that moves it.
pub(crate) fn changing() -> (Changes, ReceiverStream<Found>) {
    let (sender, receiver) = mpsc::channel(1024);
    (Changes(sender), ReceiverStream::new(receiver))
}

impl Changes {
    /// Inserts the endpoint, under its instance's name.
    pub(crate) async fn insert(&self, endpoint: Endpoint) {
        let key = endpoint.instance.to_string();
        self.send(Ok(Change::Insert(key, endpoint))).await;
    }

    pub(crate) async fn remove(&self, instance: &str) {
        self.send(Ok(Change::Remove(instance.to_owned()))).await;
    }

    pub(crate) async fn fail(&self, error: &str) {
        self.send(Err(error.to_owned().into())).await;
    }

    async fn send(&self, found: Found) {
        self.0.send(found).await.expect("the channel lives and reads its discovery");
    }
}
