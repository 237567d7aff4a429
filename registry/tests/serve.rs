//! `Serve` from start to stop: a real socket, the embedded etcd in memory, stages short enough for a test.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embedded_etcd::EmbeddedEtcd;
use svc_channel::{BoxIo, connector_fn};
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::{Greeter, GreeterServer};
use svc_proto::greeter::v1::*;
use svc_registry::intent::{DrainIntent, Then};
use svc_registry::serve::Stages;
use svc_registry::{Error, Etcd, EtcdConfig, Instance, ReadinessConfig, Registrar, Serve};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVING: &str = "/services/greeter/i-1";
const DRAINING: &str = "/services-draining/greeter/i-1";
const INTENT: &str = "/services-control/drain/greeter/i-1";

/// Far more than any step takes; only a failure waits so long.
const LIMIT: Duration = Duration::from_secs(20);

const STAGES: Stages = Stages {
    notice: Duration::from_millis(100),
    grace: Duration::from_millis(400),
    rest: Duration::from_millis(200),
    goodbye: Duration::from_secs(2),
};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Says hello; "panic" panics, "hold" never ends.
#[derive(Clone, Default)]
struct TestGreeter;

#[tonic::async_trait]
impl Greeter for TestGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        match request.into_inner().name.as_str() {
            "panic" => panic!("as the test wants it"),
            "hold" => std::future::pending().await,
            name => {
                Ok(Response::new(HelloReply { message: format!("hello {name}"), ..HelloReply::default() }))
            }
        }
    }

    type LotsOfRepliesStream = Replies<HelloReply>;

    /// One reply, then silence; "panic" panics after the reply, "flood" always has another one.
    async fn lots_of_replies(
        &self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Self::LotsOfRepliesStream>, Status> {
        let request = request.into_inner();
        if request.name == "flood" {
            let replies = std::iter::repeat_with(|| Ok(HelloReply::default()));
            return Ok(Response::new(Box::pin(tokio_stream::iter(replies))));
        }
        let panics = request.name == "panic";
        let first = tokio_stream::iter([Ok(HelloReply::default())]);
        let rest = futures_util::stream::poll_fn(move |_| {
            assert!(!panics, "as the test wants it");
            std::task::Poll::Pending
        });
        Ok(Response::new(Box::pin(first.chain(rest))))
    }

    async fn lots_of_greetings(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        Ok(Response::new(LotsOfGreetingsReply::default()))
    }

    type BidiHelloStream = Replies<HelloReply>;

    async fn bidi_hello(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::BidiHelloStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

/// A served greeter and its etcd.
struct Service {
    server: EmbeddedEtcd,
    etcd: Etcd,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

async fn etcd() -> (EmbeddedEtcd, Etcd) {
    let server = EmbeddedEtcd::start().await;
    let dialer = server.dialer();
    let connector = connector_fn(move |_| {
        let dialer = dialer.clone();
        async move { Ok(Box::new(dialer.dial().await?) as BoxIo) }
    });
    let etcd = Etcd::new(EtcdConfig::default().with_connector(connector)).expect("a valid configuration");
    (server, etcd)
}

fn serve(etcd: &Etcd) -> Serve {
    Serve::new(etcd, "greeter")
        .listen("127.0.0.1:0")
        .stages(STAGES)
        .instance(|instance| instance.with_id("i-1".parse().expect("a valid id")))
        .add_service(GreeterServer::new(TestGreeter))
}

impl Service {
    async fn start(change: impl FnOnce(Serve) -> Serve) -> Service {
        let (server, etcd) = etcd().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, mut address) = watch::channel(String::new());
        let serve = change(serve(&etcd))
            .started(move |instance| drop(started.send_replace(instance.address().to_string())))
            .shutdown(async move { drop(stopped.await) });
        let task = tokio::spawn(serve.run());
        let address = address.wait_for(|address| !address.is_empty()).await.expect("it listens").clone();
        Service { server, etcd, address, stop: Some(stop), task }
    }

    async fn registered(change: impl FnOnce(Serve) -> Serve) -> Service {
        let service = Service::start(change).await;
        service.until(SERVING, true).await;
        service
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("it listens")
    }

    async fn client(&self) -> GreeterClient<Channel> {
        GreeterClient::new(self.channel().await)
    }

    async fn record(&self, key: &str) -> Option<serde_json::Value> {
        let found = self.etcd.kv().get(key, None).await.expect("etcd answers");
        found.kvs().first().map(|kv| serde_json::from_slice(kv.value()).expect("JSON"))
    }

    async fn state(&self, key: &str) -> Option<String> {
        self.record(key).await?["state"].as_str().map(ToOwned::to_owned)
    }

    /// Waits until a key is there, or not.
    async fn until(&self, key: &str, there: bool) {
        within(async {
            while self.state(key).await.is_some() != there {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn until_state(&self, key: &str, state: &str) {
        within(async {
            while self.state(key).await.as_deref() != Some(state) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn health(&self) -> ServingStatus {
        let mut health = HealthClient::new(self.channel().await);
        let answer = health.check(HealthCheckRequest { service: String::new() }).await.expect("it answers");
        answer.into_inner().status()
    }

    async fn until_health(&self, status: ServingStatus) {
        within(async {
            while self.health().await != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn intend(&self, then: Then) {
        let value = DrainIntent::new("test", "test").then(then).encode();
        self.etcd.kv().put(INTENT, value, None).await.expect("etcd answers");
    }

    async fn ended(&mut self) -> Result<(), Error> {
        within(&mut self.task).await.expect("no panic")
    }

    async fn stop(&mut self) -> Result<(), Error> {
        self.stop.take().expect("stopped once").send(()).expect("it runs");
        self.ended().await
    }
}

/// A process's own check, which says what the test says.
#[derive(Clone)]
struct Fitness(Arc<Mutex<Result<(), &'static str>>>);

impl Fitness {
    fn new(says: Result<(), &'static str>) -> Fitness {
        Fitness(Arc::new(Mutex::new(says)))
    }

    fn says(&self, says: Result<(), &'static str>) {
        *self.0.lock().expect("no panic") = says;
    }

    /// Asked so often that a test does not wait for it.
    fn of(&self, serve: Serve) -> Serve {
        let (interval, fitness) = (Duration::from_millis(20), self.clone());
        let check = move || std::future::ready(*fitness.0.lock().expect("no panic"));
        serve.readiness(check, ReadinessConfig { interval, ..ReadinessConfig::default() })
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest { name: name.into() }
}

#[tokio::test]
async fn it_registers_serves_and_says_goodbye() {
    let mut service = Service::registered(|serve| serve.also("admin")).await;
    let reply = service.client().await.say_hello(hello("ada")).await.expect("served");
    assert_eq!(reply.into_inner().message, "hello ada");
    assert_eq!(service.health().await, ServingStatus::Serving);
    service.until("/services/admin/i-1", true).await;
    service.stop().await.expect("an orderly stop");
    let left = service.etcd.kv().get("/services", Some(etcd_client::GetOptions::new().with_prefix())).await;
    assert!(left.expect("etcd answers").kvs().is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn it_registers_only_when_it_is_ready() {
    let ready = std::sync::Arc::new(Notify::new());
    let wait = ready.clone();
    let service = Service::start(|serve| serve.ready(async move { wait.notified().await })).await;
    assert_eq!(service.health().await, ServingStatus::NotServing);
    assert_eq!(service.state(SERVING).await, None);
    ready.notify_one();
    service.until(SERVING, true).await;
    assert_eq!(service.health().await, ServingStatus::Serving);
}

#[tokio::test]
async fn start_1_it_registers_only_when_its_own_check_passes() {
    let fitness = Fitness::new(Err("cold"));
    let mut service = Service::start(|serve| fitness.of(serve)).await;
    // Long enough for some checks and a registration.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(service.health().await, ServingStatus::NotServing);
    assert_eq!((service.state(SERVING).await, service.state(DRAINING).await), (None, None));
    fitness.says(Ok(()));
    service.until(SERVING, true).await;
    assert_eq!(service.health().await, ServingStatus::Serving);
    service.stop().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_stop_before_the_check_has_passed_is_orderly() {
    let fitness = Fitness::new(Err("cold"));
    let mut service = Service::start(|serve| fitness.of(serve)).await;
    service.stop().await.expect("an orderly stop");
}

#[tokio::test]
async fn it_goes_out_when_its_own_check_fails_and_comes_back_when_it_passes() {
    let fitness = Fitness::new(Ok(()));
    let mut service = Service::registered(|serve| fitness.of(serve.also("admin"))).await;
    service.until("/services/admin/i-1", true).await;
    let mut client = service.client().await;
    let mut stream =
        client.lots_of_replies(LotsOfRepliesRequest::default()).await.expect("it starts").into_inner();
    stream.message().await.expect("a first reply");

    fitness.says(Err("disk full"));
    service.until_state(DRAINING, "draining").await;
    service.until("/services-draining/admin/i-1", true).await;
    assert_eq!(service.state(SERVING).await, None, "out of clients' sight");
    assert_eq!(service.health().await, ServingStatus::NotServing);
    client.say_hello(hello("ada")).await.expect("what still arrives is served");
    within(async {
        while service.record(DRAINING).await.is_none_or(|record| record["inflight"] != 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(service.record(DRAINING).await.expect("it waits")["reason"], "disk full");
    drop(stream);
    // Longer than the notice: nobody asked for a drain that ends.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(service.state(DRAINING).await.as_deref(), Some("draining"));

    fitness.says(Ok(()));
    service.until_state(SERVING, "serving").await;
    assert_eq!(service.state(DRAINING).await, None);
    assert_eq!(service.record(SERVING).await.expect("it serves").get("reason"), None);
    service.until("/services/admin/i-1", true).await;
    assert_eq!(service.health().await, ServingStatus::Serving, "SERVING before the record says so");
    service.stop().await.expect("an orderly stop");
}

#[tokio::test]
async fn an_operators_drain_and_undrain_outlast_what_the_check_says() {
    let fitness = Fitness::new(Ok(()));
    let mut service = Service::registered(|serve| fitness.of(serve)).await;
    service.intend(Then::Stay).await;
    service.until_state(DRAINING, "drained").await;
    fitness.says(Err("disk full"));
    within(async {
        while service.record(DRAINING).await.is_none_or(|record| record["reason"] != "disk full") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(service.state(DRAINING).await.as_deref(), Some("drained"));
    service.etcd.kv().delete(INTENT, None).await.expect("etcd answers");
    service.until_state(DRAINING, "draining").await;
    assert_eq!(service.health().await, ServingStatus::NotServing);
    service.intend(Then::Stay).await;
    service.until_state(DRAINING, "drained").await;
    fitness.says(Ok(()));
    within(async {
        while service.record(DRAINING).await.is_none_or(|record| record.get("reason").is_some()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(service.state(DRAINING).await.as_deref(), Some("drained"), "a passing check undrains nobody");
    assert_eq!(service.health().await, ServingStatus::NotServing);
    service.etcd.kv().delete(INTENT, None).await.expect("etcd answers");
    service.until_state(SERVING, "serving").await;
    service.stop().await.expect("an orderly stop");
}

#[tokio::test]
async fn health_follows_the_check_although_etcd_is_away() {
    let fitness = Fitness::new(Ok(()));
    let service = Service::registered(|serve| fitness.of(serve)).await;
    service.server.hooks().freeze();
    fitness.says(Err("disk full"));
    service.until_health(ServingStatus::NotServing).await;
    fitness.says(Ok(()));
    service.until_health(ServingStatus::Serving).await;
    service.server.hooks().thaw();
    service.until_state(SERVING, "serving").await;
}

#[tokio::test]
async fn a_panicking_handler_answers_internal_and_the_next_call_is_served() {
    let service = Service::registered(|serve| serve).await;
    let mut client = service.client().await;
    let status = client.say_hello(hello("panic")).await.expect_err("it panics");
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("as the test wants"), "the caller may be anybody");
    let request = LotsOfRepliesRequest { name: "panic".into(), ..LotsOfRepliesRequest::default() };
    let mut stream = client.lots_of_replies(request).await.expect("it starts").into_inner();
    let status = loop {
        match stream.message().await {
            Ok(reply) => assert!(reply.is_some(), "the stream ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Internal);
    client.say_hello(hello("ada")).await.expect("the connection lives");
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_status_and_cuts_what_hangs() {
    let mut service = Service::registered(|serve| serve).await;
    let mut client = service.client().await;
    let request = LotsOfRepliesRequest::default();
    let mut stream = client.lots_of_replies(request).await.expect("it starts").into_inner();
    stream.message().await.expect("a first reply");
    let mut hanging = client.clone();
    let hanging = tokio::spawn(async move { hanging.say_hello(hello("hold")).await });
    service.stop().await.expect("an orderly stop");
    let status = stream.message().await.expect_err("the server is gone");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("stopping"), "{status}");
    hanging.await.expect("no panic").expect_err("cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_a_stream_that_is_always_ready_with_a_status() {
    let mut service = Service::registered(|serve| serve.stages(Stages { rest: LIMIT / 2, ..STAGES })).await;
    let request = LotsOfRepliesRequest { name: "flood".into(), ..LotsOfRepliesRequest::default() };
    let mut stream = service.client().await.lots_of_replies(request).await.expect("it starts").into_inner();
    let reading = tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(reply) => assert!(reply.is_some(), "an endless stream does not end well"),
                Err(status) => return status,
            }
        }
    });
    let begin = Instant::now();
    service.stop().await.expect("an orderly stop");
    let took = begin.elapsed();
    let status = reading.await.expect("no panic");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("stopping"), "ended by a status, not cut: {status}");
    assert!(took >= STAGES.notice + STAGES.grace, "calls have their grace: {took:?}");
    println!(
        "a stop with a stream that is always ready (0.5 s of notice and grace): {} ms",
        took.as_millis()
    );
}

#[tokio::test]
async fn a_health_stream_holds_up_neither_a_drain_nor_a_stop() {
    let grace = Duration::from_secs(60);
    let mut service = Service::registered(|serve| serve.stages(Stages { grace, ..STAGES })).await;
    let mut health = HealthClient::new(service.channel().await);
    let mut watch =
        health.watch(HealthCheckRequest { service: String::new() }).await.expect("it starts").into_inner();
    let first = watch.message().await.expect("an answer").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    service.intend(Then::Stay).await;
    let second = within(watch.message()).await.expect("an answer").expect("a status");
    assert_eq!(second.status(), ServingStatus::NotServing);
    service.until_state(DRAINING, "drained").await;
    service.stop().await.expect("well before the grace is over");
}

#[tokio::test]
async fn a_drain_waits_for_calls_in_flight_and_exit_ends_the_server() {
    let mut service = Service::registered(|serve| serve).await;
    let mut client = service.client().await;
    let mut stream =
        client.lots_of_replies(LotsOfRepliesRequest::default()).await.expect("it starts").into_inner();
    stream.message().await.expect("a first reply");
    service.intend(Then::Exit).await;
    service.until_state(DRAINING, "draining").await;
    client.say_hello(hello("ada")).await.expect("what still arrives is served");
    // Longer than the notice: it is the stream that holds it up.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(service.state(DRAINING).await.as_deref(), Some("draining"));
    drop(stream);
    service.ended().await.expect("asked to end by the operator");
}

#[tokio::test]
async fn a_newer_owner_of_the_id_ends_the_server_with_an_error() {
    let mut service = Service::registered(|serve| serve).await;
    let newer = Registrar::new(&service.etcd);
    let registration = newer.register(Instance::new("greeter", "i-1", "10.0.0.1:1").expect("valid"));
    let error = service.ended().await.expect_err("superseded");
    assert!(error.is_superseded() && error.to_string().contains("greeter/i-1"), "{error}");
    assert!(registration.status().borrow().is_registered());
    let found = service.etcd.kv().get(SERVING, None).await.expect("etcd answers");
    assert_eq!(found.kvs().len(), 1, "the newer one's record stays");
}

/// Whoever is superseded drains its connections, and a supervisor may well tell it to stop meanwhile.
#[tokio::test]
async fn the_first_signal_cuts_no_stop_that_was_begun_without_one() {
    let mut service = Service::registered(|serve| serve).await;
    let mut client = service.client().await;
    let stream =
        client.lots_of_replies(LotsOfRepliesRequest::default()).await.expect("it starts").into_inner();
    let mut health = HealthClient::new(service.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    let mut health = health.watch(request).await.expect("it starts").into_inner();
    let _newer =
        Registrar::new(&service.etcd).register(Instance::new("greeter", "i-1", "10.0.0.1:1").expect("valid"));
    let not_serving = async {
        while health.message().await.expect("it is told").expect("it goes on").status()
            != ServingStatus::NotServing
        {}
    };
    within(not_serving).await;
    let error = service.stop().await.expect_err("superseded");
    assert!(error.is_superseded(), "{error}");
    drop(stream);
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_the_remedy() {
    let (_server, etcd) = etcd().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let never = ReadinessConfig { failures: 0, ..ReadinessConfig::default() };
    for (serve, part) in [
        (Serve::new(&etcd, "a").readiness(async || Ok::<(), Error>(()), never), "failures"),
        (Serve::new(&etcd, "a/b").listen("127.0.0.1:0"), "service"),
        (Serve::new(&etcd, "a").also("*").listen("127.0.0.1:0"), "service"),
        (Serve::new(&etcd, "a").listen(address), "port 0"),
        (Serve::new(&etcd, "a").listen("nonsense"), "host:port"),
        (Serve::new(&etcd, "a").listen("127.0.0.1:0").advertise("0.0.0.0:1"), "advertise"),
    ] {
        let error = within(serve.run()).await.expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
}
