//! The channel against tonic servers over an in-memory transport: how users test their own clients, and the first
//! proof that all four kinds of call work.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use svc_channel::{
    BoxIo, Channel, ChannelBuilder, ConnectivityState, Endpoint, EndpointState, Peer, RoundRobin, SendOnce,
    WaitForReady, connector_fn,
};
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

/// A greeter with a name. A caller `flaky-<n>` is turned down `n` times before it is greeted.
struct Named(String, Arc<Mutex<HashMap<String, u32>>>);

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

impl Named {
    fn turns_down(&self, name: &str) -> bool {
        let Some(times) = name.strip_prefix("flaky-").and_then(|n| n.parse().ok()) else { return false };
        let mut seen = self.1.lock().expect("a map");
        let count = seen.entry(name.into()).or_default();
        *count += 1;
        *count <= times
    }

    fn reply(&self, name: &str) -> HelloReply {
        HelloReply { message: format!("hello {name}"), instance: self.0.clone() }
    }
}

#[tonic::async_trait]
impl Greeter for Named {
    type LotsOfRepliesStream = Replies;
    type BidiHelloStream = Replies;

    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let previous = request.metadata().get("grpc-previous-rpc-attempts").cloned();
        match request.into_inner().name.as_str() {
            "nobody" => Err(Status::not_found("nobody is not here")),
            "never" => std::future::pending().await,
            name if self.turns_down(name) => {
                let before = previous.map_or("none".into(), |v| format!("{v:?}"));
                Err(Status::unavailable(format!("not now; attempts before: {before}")))
            }
            name => Ok(Response::new(self.reply(name))),
        }
    }

    async fn lots_of_replies(
        &self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let replies: Vec<_> = (0..request.count).map(|_| Ok(self.reply(&request.name))).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn lots_of_greetings(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        let mut requests = request.into_inner();
        let mut count = 0;
        while let Some(request) = requests.next().await.transpose()? {
            count += 1;
            if self.turns_down(&request.name) {
                return Err(Status::unavailable("not now"));
            }
        }
        Ok(Response::new(LotsOfGreetingsReply { message: String::new(), instance: self.0.clone(), count }))
    }

    async fn bidi_hello(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let name = self.0.clone();
        let replies = request.into_inner().map(move |r| {
            r.map(|r| HelloReply { message: format!("hello {}", r.name), instance: name.clone() })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// Servers by address, reached without sockets.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<HashMap<String, mpsc::Sender<io::Result<DuplexStream>>>>>, Arc<AtomicUsize>);

impl Net {
    fn serve(&self, address: &str, name: &str) {
        let (sender, incoming) = mpsc::channel(16);
        self.0.lock().expect("a net").insert(address.into(), sender);
        let server = tonic::transport::Server::builder()
            .add_service(GreeterServer::new(Named(name.into(), Arc::default())));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    }

    /// How often it was dialled.
    fn dials(&self) -> usize {
        self.1.load(Relaxed)
    }

    fn channel(&self, addresses: &[&str]) -> Channel {
        self.builder().fixed(addresses.iter().map(|a| Endpoint::new(a).expect("an address")))
    }

    fn builder(&self) -> ChannelBuilder {
        let net = self.clone();
        let connector = connector_fn(move |address| {
            net.1.fetch_add(1, Relaxed);
            let server = net.0.lock().expect("a net").get(&address.to_string()).cloned();
            async move {
                let server = server.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                server.send(Ok(theirs)).await.map_err(io::Error::other)?;
                Ok(Box::new(ours) as BoxIo)
            }
        });
        Channel::builder().name("greeter").policy(RoundRobin::new()).connector(connector)
    }
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.into() }
}

#[tokio::test(start_paused = true)]
async fn all_four_kinds_of_call_work() {
    let net = Net::default();
    net.serve("a:1", "a");
    let channel = net.channel(&["a:1"]);
    let mut greeter = GreeterClient::new(channel.clone());

    let reply = greeter.say_hello(hello("ada")).await.expect("unary").into_inner();
    assert_eq!((reply.message.as_str(), reply.instance.as_str()), ("hello ada", "a"));

    let request = LotsOfRepliesRequest { name: "ada".into(), count: 1_000, interval_ms: 0 };
    let replies = greeter.lots_of_replies(request).await.expect("server stream").into_inner();
    assert_eq!(replies.filter(Result::is_ok).collect::<Vec<_>>().await.len(), 1_000);

    let greetings = tokio_stream::iter((0..1_000).map(|_| hello("ada")));
    let reply = greeter.lots_of_greetings(greetings).await.expect("client stream").into_inner();
    assert_eq!(reply.count, 1_000);

    let (sender, requests) = mpsc::channel(1);
    let mut replies =
        greeter.bidi_hello(ReceiverStream::new(requests)).await.expect("both ways").into_inner();
    for _ in 0..100 {
        sender.send(hello("ada")).await.expect("the call is open");
        assert_eq!(replies.message().await.expect("a reply").expect("one").message, "hello ada");
    }
    drop(sender);
    assert_eq!(replies.message().await.expect("the end"), None);
    assert_eq!(channel.dump().endpoints[0].in_flight, 0, "every call has ended");
}

#[tokio::test(start_paused = true)]
async fn calls_are_spread_and_a_status_keeps_code_and_message() {
    let net = Net::default();
    for name in ["a", "b", "c"] {
        net.serve(&format!("{name}:1"), name);
    }
    let channel = net.channel(&["a:1", "b:1", "c:1"]);
    let mut state = channel.watch_state();
    state.wait_for(|s| *s == ConnectivityState::Ready).await.expect("ready");
    let mut greeter = GreeterClient::new(channel.clone());
    let status = greeter.say_hello(hello("nobody")).await.expect_err("not found");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "nobody is not here"));
    let mut shares = HashMap::<_, u32>::new();
    for _ in 0..300 {
        let reply = greeter.say_hello(hello("ada")).await.expect("a reply").into_inner();
        *shares.entry(reply.instance).or_default() += 1;
    }
    assert_eq!(shares.len(), 3, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_and_its_accounting() {
    let net = Net::default();
    net.serve("a:1", "a");
    let channel = net.channel(&["a:1"]);
    let mut request = Request::new(hello("never"));
    request.set_timeout(Duration::from_secs(1));
    let status = GreeterClient::new(channel.clone()).say_hello(request).await.expect_err("a deadline");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(channel.dump().endpoints[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_reached_a_call_fails_and_one_that_waits_for_ready_succeeds_later() {
    let net = Net::default();
    let channel = net.channel(&["a:1"]);
    let mut greeter = GreeterClient::new(channel);
    let status = greeter.say_hello(hello("ada")).await.expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("connection refused"), "{status}");
    let mut request = Request::new(hello("ada"));
    request.extensions_mut().insert(WaitForReady);
    let waiting = tokio::spawn(async move { greeter.say_hello(request).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.serve("a:1", "a");
    waiting.await.expect("no panic").expect("a reply once somebody listens");
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_unavailable_at_once() {
    let status =
        GreeterClient::new(Net::default().channel(&[])).say_hello(hello("ada")).await.expect_err("none");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("greeter: no endpoint is ready: none is known"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_discoverys_first_answer_but_not_for_ever() {
    let silent = tokio_stream::pending::<Result<tower::discover::Change<u32, Endpoint>, io::Error>>();
    let channel = Channel::builder().name("greeter").build(silent);
    let before = tokio::time::Instant::now();
    let status = GreeterClient::new(channel).say_hello(hello("ada")).await.expect_err("no answer");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("discovery has not answered yet"), "{status}");
    assert_eq!(before.elapsed().as_secs(), 5);
}

const RETRY: &str = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

fn retrying(net: &Net) -> GreeterClient<Channel> {
    net.serve("a:1", "a");
    let builder = net.builder().service_config(RETRY.parse().expect("a config"));
    GreeterClient::new(builder.fixed([Endpoint::new("a:1").expect("an address")]))
}

/// Over several, the first of them served by this, once all are ready.
async fn retrying_at(net: &Net, addresses: &[&str]) -> GreeterClient<Channel> {
    net.serve(addresses[0], "a");
    let builder = net.builder().service_config(RETRY.parse().expect("a config"));
    let channel = builder.fixed(addresses.iter().map(|a| Endpoint::new(a).expect("an address")));
    while channel.dump().endpoints.iter().any(|endpoint| endpoint.state != EndpointState::Ready) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    GreeterClient::new(channel)
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_the_retry_policy_names_is_sent_again_up_to_its_attempts() {
    let mut greeter = retrying(&Net::default());
    let reply = greeter.say_hello(hello("flaky-2")).await.expect("the third attempt").into_inner();
    assert_eq!(reply.message, "hello flaky-2");
    let status = greeter.say_hello(hello("flaky-3")).await.expect_err("three attempts, no more");
    assert_eq!(status.message(), "not now; attempts before: \"2\"");
    let status = greeter.say_hello(hello("nobody")).await.expect_err("not retried");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_tells_the_server_how_many_attempts_there_were() {
    let net = Net::default();
    net.serve("a:1", "a");
    let hedging = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {
        "maxAttempts": 3, "hedgingDelay": "1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}]}"#;
    let builder = net.builder().service_config(hedging.parse().expect("a config"));
    let mut greeter = GreeterClient::new(builder.fixed([Endpoint::new("a:1").expect("an address")]));
    let reply = greeter.say_hello(hello("flaky-2")).await.expect("the third attempt").into_inner();
    assert_eq!(reply.message, "hello flaky-2");
    let status = greeter.say_hello(hello("flaky-3")).await.expect_err("three attempts, no more");
    assert_eq!(status.message(), "not now; attempts before: \"2\"");
}

#[tokio::test(start_paused = true)]
async fn a_call_tells_who_was_asked_and_who_answered() {
    let net = Net::default();
    net.serve("b:1", "b");
    let mut greeter = retrying_at(&net, &["a:1", "b:1"]).await;
    let mut call = async |name: &str| {
        let peer = Peer::default();
        let mut request = Request::new(hello(name));
        request.set_timeout(Duration::from_secs(5));
        request.extensions_mut().insert(peer.clone());
        let answer = greeter.say_hello(request).await.map(|reply| reply.into_inner().instance);
        let asked: Vec<_> = peer.asked().iter().map(|endpoint| endpoint.address.to_string()).collect();
        (answer, asked, peer.answered().map(|endpoint| endpoint.address.to_string()))
    };
    let (answer, asked, answered) = call("flaky-1").await;
    assert_eq!(asked.len(), 3, "each turns it down once: {asked:?}");
    assert_ne!(asked[0], asked[1]);
    assert_eq!(answered.as_ref(), asked.last());
    assert_eq!(answered, answer.ok().map(|instance| format!("{instance}:1")));
    let (_, asked, answered) = call("nobody").await;
    assert_eq!((asked.len(), answered.as_ref()), (1, asked.first()), "a refusal is an answer");
    let (_, asked, answered) = call("never").await;
    assert_eq!((asked.len(), answered), (1, None), "the deadline is the channel's own");
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_sent_once_is_neither_retried_nor_hedged() {
    let hedging = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {
        "maxAttempts": 3, "hedgingDelay": "0s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}]}"#;
    for config in [RETRY, hedging] {
        let net = Net::default();
        net.serve("a:1", "a");
        let builder = net.builder().service_config(config.parse().expect("a config"));
        let mut greeter = GreeterClient::new(builder.fixed([Endpoint::new("a:1").expect("an address")]));
        let mut request = Request::new(hello("flaky-1"));
        request.extensions_mut().insert(SendOnce);
        let status = greeter.say_hello(request).await.expect_err("it was sent once");
        assert_eq!(status.message(), "not now; attempts before: none");
        greeter.say_hello(hello("flaky-1")).await.expect("others are as configured");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_is_sent_again_from_its_beginning() {
    let mut greeter = retrying(&Net::default());
    let greetings = tokio_stream::iter((0..100).map(|_| hello("flaky-1")));
    let reply = greeter.lots_of_greetings(greetings).await.expect("the second attempt").into_inner();
    assert_eq!(reply.count, 100);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_would_begin_after_the_deadline_is_not_waited_for() {
    let mut greeter = retrying(&Net::default());
    let mut request = Request::new(hello("flaky-2"));
    request.set_timeout(Duration::from_millis(50));
    let status = greeter.say_hello(request).await.expect_err("no time for another attempt");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

const IDLE: Duration = Duration::from_secs(60);

/// A channel over two servers that goes idle.
fn idling(net: &Net) -> Channel {
    net.serve("a:1", "a");
    net.serve("b:1", "b");
    net.builder().idle_timeout(IDLE).fixed(["a:1", "b:1"].map(|a| Endpoint::new(a).expect("an address")))
}

async fn until_state(channel: &Channel, wanted: ConnectivityState) {
    channel.watch_state().wait_for(|state| *state == wanted).await.expect("the channel lives");
}

#[tokio::test(start_paused = true)]
async fn without_a_call_for_the_idle_timeout_connections_are_let_go_and_the_next_call_wakes_the_channel() {
    let net = Net::default();
    let channel = idling(&net);
    let mut greeter = GreeterClient::new(channel.clone());
    for _ in 0..10 {
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
        greeter.say_hello(hello("ada")).await.expect("a reply");
    }
    assert_eq!(net.dials(), 2, "calls keep it awake");
    let last_call = tokio::time::Instant::now();
    until_state(&channel, ConnectivityState::Idle).await;
    let quiet = last_call.elapsed();
    assert!(quiet >= IDLE && quiet <= IDLE * 5 / 4, "{quiet:?}");
    let dump = channel.dump();
    assert!(dump.endpoints.iter().all(|e| e.state == EndpointState::Idle), "{dump:?}");
    tokio::time::sleep(100 * IDLE).await;
    assert_eq!(net.dials(), 2, "nothing is dialled while it is idle");

    greeter.say_hello(hello("ada")).await.expect("it waits as for a first connect");
    until_state(&channel, ConnectivityState::Ready).await;
    assert_eq!(net.dials(), 4);
    until_state(&channel, ConnectivityState::Idle).await;
    channel.connect();
    until_state(&channel, ConnectivityState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_flight_and_a_call_that_waits_keep_the_channel_awake() {
    let net = Net::default();
    let channel = idling(&net);
    let mut greeter = GreeterClient::new(channel.clone());
    let (sender, requests) = mpsc::channel(1);
    let mut replies =
        greeter.bidi_hello(ReceiverStream::new(requests)).await.expect("both ways").into_inner();
    tokio::time::sleep(100 * IDLE).await;
    assert_eq!(*channel.watch_state().borrow(), ConnectivityState::Ready);
    sender.send(hello("ada")).await.expect("the call is open");
    assert_eq!(replies.message().await.expect("a reply").expect("one").message, "hello ada");
    drop(sender);
    assert_eq!(replies.message().await.expect("the end"), None);
    until_state(&channel, ConnectivityState::Idle).await;
    assert_eq!(net.dials(), 2);

    let nowhere = net.builder().idle_timeout(IDLE).fixed([Endpoint::new("c:1").expect("an address")]);
    let mut request = Request::new(hello("ada"));
    request.extensions_mut().insert(WaitForReady);
    let mut greeter = GreeterClient::new(nowhere.clone());
    let waiting = tokio::spawn(async move { greeter.say_hello(request).await });
    tokio::time::sleep(10 * IDLE).await;
    assert_eq!(*nowhere.watch_state().borrow(), ConnectivityState::TransientFailure);
    waiting.abort();
    until_state(&nowhere, ConnectivityState::Idle).await;
}

#[tokio::test(start_paused = true)]
async fn of_thousands_of_endpoints_that_appear_at_once_sixty_four_are_dialled_at_a_time() {
    const ENDPOINTS: usize = 2_000;
    let (now, most, all) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let seen = (most.clone(), all.clone());
    let connector = connector_fn(move |_| {
        let (now, most, all) = (now.clone(), most.clone(), all.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Relaxed);
            all.fetch_add(1, Relaxed);
            Err(io::Error::from(io::ErrorKind::ConnectionRefused))
        }
    });
    let endpoints = (1..=ENDPOINTS).map(|port| Endpoint::new(format!("a:{port}")).expect("an address"));
    let channel = Channel::builder().name("greeter").connector(connector).fixed(endpoints);
    until_state(&channel, ConnectivityState::TransientFailure).await;
    assert_eq!((seen.0.load(Relaxed), seen.1.load(Relaxed) >= ENDPOINTS), (64, true));
}
