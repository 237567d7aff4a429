//! A service appears only when it is healthy.

use std::sync::Arc;
use std::time::Duration;

use demo_services::greeter::Greeter;
use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::WatchOptions;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_registry::{ReadinessConfig, Serve};
use svc_resolver::{Channel, Endpoint};
use svc_tests::etcd::TestEtcd;
use tokio::sync::{Notify, watch};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{KEY, LIMIT, LONG, Look, connect, report, value};

const DRAINING: &str = "/services-draining/greeter/i-1";

svc_tests::etcd_tests! {
    async fn start_1_the_key_appears_only_after_serving(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let (started, mut address) = watch::channel(String::new());
        let (ready, wait) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (is_ready, stop) = (ready.clone(), wait.clone());
        let serve = Serve::new(&connect(&etcd.url()), "greeter")
            .listen("127.0.0.1:0")
            .instance(|instance| instance.with_id("i-1".parse().expect("valid")))
            .add_service(GreeterServer::new(Greeter::new(Duration::ZERO, 0)))
            .started(move |instance| drop(started.send_replace(instance.address().to_string())))
            .ready(async move { is_ready.notified().await })
            .shutdown(async move { stop.notified().await });
        let served = tokio::spawn(serve.run());
        let address = address.wait_for(|address| !address.is_empty()).await.expect("it listens").clone();
        let mut health = HealthClient::new(Channel::fixed([Endpoint::new(&address).expect("an address")]));
        let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.expect("it answers").into_inner();
        let first = watch.message().await.expect("an answer").expect("a status");
        assert_eq!(first.status(), ServingStatus::NotServing);
        let (watcher, mut events) = look.client.watch(KEY, None).await.expect("etcd is up").split();
        assert!(look.get(KEY).await.is_none(), "slow to become healthy, and not registered");

        ready.notify_one();
        let event = loop {
            let message = tokio::time::timeout(LIMIT, events.message()).await.expect("in time");
            let message = message.expect("etcd is up").expect("the watch goes on");
            if let Some(event) = message.events().first() {
                break event.clone();
            }
        };
        assert_eq!(event.event_type(), etcd_client::EventType::Put);
        let check = health.check(HealthCheckRequest { service: String::new() }).await.expect("it answers");
        assert_eq!(check.into_inner().status(), ServingStatus::Serving, "SERVING before the key");
        drop(watcher);
        drop((watch, health));
        wait.notify_one();
        served.await.expect("no panic").expect("an orderly stop");
        look.until_gone(LIMIT, KEY).await;
    }

    /// etcd is slow to say that an operator wants the instance out: until it has said so nobody may take it for serving.
    async fn law_7_a_server_that_starts_under_an_intent_never_says_serving(etcd: TestEtcd) {
        const INTENT: &str = "/services-control/drain/greeter/i-1";
        let mut look = Look::at(&etcd).await;
        look.client.put(INTENT, r#"{"reason":"update","then":"stay"}"#, None).await.expect("etcd is up");
        let options = WatchOptions::new().with_prefix();
        let (watcher, mut records) =
            look.client.watch("/services/", Some(options)).await.expect("etcd is up").split();
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        proxy.set(Mode::Latency(Duration::from_millis(200)));
        let (started, mut address) = watch::channel(String::new());
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serve = Serve::new(&connect(&format!("http://{}", proxy.address())), "greeter")
            .listen("127.0.0.1:0")
            .instance(|instance| instance.with_id("i-1".parse().expect("valid")))
            .add_service(GreeterServer::new(Greeter::new(Duration::ZERO, 0)))
            .started(move |instance| drop(started.send_replace(instance.address().to_string())))
            .shutdown(async move { stopped.notified().await });
        let served = tokio::spawn(serve.run());
        let address = address.wait_for(|address| !address.is_empty()).await.expect("it listens").clone();
        let mut health = HealthClient::new(Channel::fixed([Endpoint::new(&address).expect("an address")]));
        let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.expect("it answers").into_inner();
        let first = watch.message().await.expect("an answer").expect("a status");
        assert_eq!(first.status(), ServingStatus::NotServing, "etcd has not been asked");
        look.until_there(LONG, DRAINING).await;
        assert_eq!(value(&look.there(DRAINING).await)["state"], "drained");
        // Whatever is said until the intent is gone is said before this key is put.
        look.client.put("/services/end", "", None).await.expect("etcd is up");
        let seen = records.message().await.expect("etcd is up").expect("the watch goes on");
        let seen = match seen.events() {
            [] => records.message().await.expect("etcd is up").expect("the watch goes on"),
            _ => seen,
        };
        let keys: Vec<_> = seen.events().iter().filter_map(|event| event.kv()?.key_str().ok()).collect();
        assert_eq!(keys, ["/services/end"], "no record in clients' sight");
        let quiet = tokio::time::timeout(Duration::from_millis(300), watch.message()).await;
        assert!(quiet.is_err(), "health said {quiet:?}");
        look.client.delete(INTENT, None).await.expect("etcd is up");
        let next = watch.message().await.expect("an answer").expect("a status");
        assert_eq!(next.status(), ServingStatus::Serving, "the first thing that it said");
        look.until_there(LONG, KEY).await;
        drop((watch, health, watcher));
        stop.notify_one();
        served.await.expect("no panic").expect("an orderly stop");
    }

    /// With etcd away nobody knows what an operator wants: who knows the address is served after a while all the same.
    async fn with_etcd_away_health_says_serving_after_a_while(etcd: TestEtcd) {
        etcd.kill().await;
        let (started, mut address) = watch::channel(String::new());
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serve = Serve::new(&connect(&etcd.url()), "greeter")
            .listen("127.0.0.1:0")
            .instance(|instance| instance.with_id("i-1".parse().expect("valid")))
            .add_service(GreeterServer::new(Greeter::new(Duration::ZERO, 0)))
            .started(move |instance| drop(started.send_replace(instance.address().to_string())))
            .shutdown(async move { stopped.notified().await });
        let served = tokio::spawn(serve.run());
        let address = address.wait_for(|address| !address.is_empty()).await.expect("it listens").clone();
        let begin = std::time::Instant::now();
        let mut health = HealthClient::new(Channel::fixed([Endpoint::new(&address).expect("an address")]));
        let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.expect("it answers").into_inner();
        while watch.message().await.expect("an answer").expect("a status").status() != ServingStatus::Serving {}
        report("SERVING without etcd after", begin.elapsed());
        etcd.start().await;
        Look::at(&etcd).await.until_there(LONG, KEY).await;
        drop((watch, health));
        stop.notify_one();
        served.await.expect("no panic").expect("an orderly stop");
    }

    async fn start_1_the_key_is_there_only_while_its_own_check_passes(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let (says, fitness) = watch::channel(Err("cold"));
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let config = ReadinessConfig { interval: Duration::from_millis(20), ..ReadinessConfig::default() };
        let serve = Serve::new(&connect(&etcd.url()), "greeter")
            .listen("127.0.0.1:0")
            .instance(|instance| instance.with_id("i-1".parse().expect("valid")))
            .add_service(GreeterServer::new(Greeter::new(Duration::ZERO, 0)))
            .readiness(move || std::future::ready(*fitness.borrow()), config)
            .shutdown(async move { stopped.notified().await });
        let served = tokio::spawn(serve.run());
        // Time for a few checks and a registration: what is not there cannot be waited for.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(look.get(KEY).await.is_none() && look.get(DRAINING).await.is_none(), "not ready, not registered");
        for round in 0..3 {
            says.send(Ok(())).expect("it is asked");
            let back = look.until_there(LIMIT, KEY).await;
            assert!(look.get(DRAINING).await.is_none(), "round {round}: one record an id");
            says.send(Err("disk full")).expect("it is asked");
            let out = look.until_gone(LIMIT, KEY).await;
            let record = value(&look.there(DRAINING).await);
            assert_eq!((&record["state"], &record["reason"]), (&"draining".into(), &"disk full".into()), "round {round}");
            report("back", back);
            report("out", out);
        }
        stop.notify_one();
        served.await.expect("no panic").expect("an orderly stop");
        look.until_gone(LIMIT, DRAINING).await;
    }
}
