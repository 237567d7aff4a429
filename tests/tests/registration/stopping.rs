//! Goodbyes: with etcd down, with a successor there, with a put still on the wire, and of five backends in turn.

use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::PutOptions;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_registry::RegistrationStatus;
use svc_resolver::{Channel, Endpoint, Resolver};
use svc_tests::etcd::TestEtcd;
use svc_tests::process::Process;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{
    KEY, LIMIT, Look, connect, instance, registered, registrar, report, service, until_status, value,
};

svc_tests::etcd_tests! {
    /// kratos#1537: a shutdown hung for as long as etcd was down.
    async fn stop_1_a_stop_ends_within_its_deadline_while_etcd_is_down(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut process = service(&etcd, &mut look, "i-1", 15).await;
        let registration = registered(&registrar(&etcd.url(), 15), "i-2").await;
        etcd.kill().await;
        let begin = Instant::now();
        let error = registration.deregister(Duration::from_millis(500)).await.expect_err("etcd is down");
        report("a goodbye without etcd (500 ms allowed)", begin.elapsed());
        assert!(error.is_timeout() && error.to_string().contains("greeter/i-2"), "{error}");
        let begin = Instant::now();
        process.terminate();
        // Its stages: 0.5 s for the record, 0.5 s notice, no calls, 1 s for the goodbye.
        assert_eq!(process.ended_within(LIMIT * 2).await.code(), Some(0), "an orderly stop");
        report("a stop without etcd", begin.elapsed());
    }

    /// registrator#621: the old process's goodbye deleted its successor's key.
    async fn stop_2_a_late_goodbye_leaves_the_successors_key(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let old = registered(&registrar(&proxy.url(), 15), "i-1").await;
        proxy.set(Mode::Blackhole);
        let registrar = registrar(&etcd.url(), 15);
        let successor = registered(&registrar, "i-1").await;
        let before = look.there(KEY).await;
        // The old one does not know of its successor when it begins its goodbye.
        let goodbye = tokio::spawn(old.deregister(LIMIT * 3));
        proxy.set(Mode::Pass);
        goodbye.await.expect("no panic").expect("etcd can be reached again");
        let after = look.there(KEY).await;
        assert_eq!(after.mod_revision(), before.mod_revision(), "untouched");
        assert!(successor.status().borrow().is_registered());
    }

    /// kratos#3179: a re-registration that was under way put the key back after the goodbye.
    async fn stop_3_a_put_that_lands_after_the_goodbye_is_deleted(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registrar = registrar(&etcd.url(), 15);
        // The other instance keeps the lease alive: nothing runs out by itself.
        let other = registered(&registrar, "i-2").await;
        let leaving = registered(&registrar, "i-1").await;
        let record = look.there(KEY).await;
        leaving.deregister(LIMIT).await.expect("etcd is up");
        assert!(look.get(KEY).await.is_none());
        // The very bytes that were on the wire, on the lease that lives.
        let options = PutOptions::new().with_lease(record.lease());
        look.client.put(KEY, record.value(), Some(options)).await.expect("the lease lives");
        let took = look.until_gone(LIMIT, KEY).await;
        report("a put after the goodbye is gone", took);
        assert!(other.status().borrow().is_registered());
    }

    async fn stop_3_a_put_held_back_by_the_network_leaves_no_key(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let registrar = registrar(&proxy.url(), 15);
        let other = registered(&registrar, "i-2").await;
        // The other one's watches are open, and all is quiet.
        let mut before = u64::MAX;
        while std::mem::replace(&mut before, proxy.counts().bytes_down) != before {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        proxy.set(Mode::Latency(Duration::from_millis(300)));
        let leaving = registrar.register(instance("i-1"));
        // It reads first. That answer is followed by its first put, on the lease that the other one keeps alive.
        while proxy.counts().bytes_down == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.set(Mode::Blackhole);
        tokio::time::sleep(Duration::from_millis(200)).await;
        // It cannot be said, unless the put has not been sent: then there is nothing to say.
        let said = leaving.deregister(Duration::from_millis(200)).await;
        println!("the goodbye of a put that is held back: {said:?}");
        proxy.set(Mode::Pass);
        until_status("registered", &other, RegistrationStatus::is_registered).await;
        // Whether or not the put has landed meanwhile: two answers of "gone" around a whole second of quiet.
        look.until_gone(LIMIT * 4, KEY).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        look.until_gone(LIMIT, KEY).await;
        assert!(look.get("/services/greeter/i-2").await.is_some());
    }

    /// grpc-go#1387, #4282.
    async fn stop_4_a_rolling_restart_fails_no_call(etcd: TestEtcd) {
        const BACKENDS: usize = 5;
        let mut look = Look::at(&etcd).await;
        let mut backends = Vec::new();
        for number in 0..BACKENDS {
            backends.push(service(&etcd, &mut look, &format!("g{number}"), 5).await);
        }
        let resolver = Resolver::new(&connect(&etcd.url()));
        let channel = resolver.channel("greeter").expect("a valid target");
        hello(&channel).await.expect("five backends serve");
        let load = Load::start(&channel, 2_000);
        for (number, backend) in backends.iter_mut().enumerate() {
            backend.terminate();
            assert_eq!(backend.ended_within(LIMIT * 4).await.code(), Some(0));
            *backend = service(&etcd, &mut look, &format!("g{number}"), 5).await;
        }
        let (calls, failures, took) = load.finish().await;
        println!("rolling restart: {calls} calls in {took:?}, {} failed", failures.len());
        assert_eq!(failures, Vec::<String>::new());
        assert!(calls > 1_000, "{calls} calls are no load");
    }

    /// The same with long streams: they end by GOAWAY and a status within the stages, and none is cut before.
    async fn stop_5_long_streams_live_through_the_notice_and_end_with_a_status(etcd: TestEtcd) {
        const STREAMS: usize = 100;
        let mut look = Look::at(&etcd).await;
        let mut backend = service(&etcd, &mut look, "g0", 15).await;
        let resolver = Resolver::new(&connect(&etcd.url()));
        let channel = resolver.channel("greeter").expect("a valid target");
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let request = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 50 };
            let mut stream = GreeterClient::new(channel.clone()).lots_of_replies(request).await.expect("it serves").into_inner();
            stream.message().await.expect("a first reply").expect("it goes on");
            streams.push(stream);
        }
        let begin = Instant::now();
        backend.terminate();
        let ends = streams.into_iter().map(|mut stream| async move {
            loop {
                match stream.message().await {
                    Ok(reply) => assert!(reply.is_some(), "an endless stream does not end well"),
                    Err(status) => return (status, Instant::now()),
                }
            }
        });
        let ends = futures_util::future::join_all(ends).await;
        assert_eq!(backend.ended_within(LIMIT * 4).await.code(), Some(0));
        let first = ends.iter().map(|(_, at)| *at).min().expect("a hundred");
        report("the first of 100 streams has ended", first - begin);
        // 0.5 s notice and 5 s grace, as the service has them: no stream may end before.
        assert!(first - begin >= Duration::from_millis(5_500), "cut {:?} after the signal", first - begin);
        for (status, _) in ends {
            assert_eq!(status.code(), tonic::Code::Unavailable);
            assert!(status.message().contains("stopping"), "ended by a status, not cut: {status}");
        }
    }

    async fn a_stop_tells_how_many_calls_it_waits_for(etcd: TestEtcd) {
        const DRAINING: &str = "/services-draining/greeter/g0";
        let mut look = Look::at(&etcd).await;
        let mut backend = service(&etcd, &mut look, "g0", 15).await;
        let resolver = Resolver::new(&connect(&etcd.url()));
        let channel = resolver.channel("greeter").expect("a valid target");
        let request = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 50 };
        let open = |mut client: GreeterClient<Channel>| async move {
            let mut stream = client.lots_of_replies(request).await.expect("it serves").into_inner();
            stream.message().await.expect("a first reply").expect("it goes on");
            stream
        };
        let first = open.clone()(GreeterClient::new(channel.clone())).await;
        let second = open(GreeterClient::new(channel)).await;
        backend.terminate();
        look.until(LIMIT, "two calls in flight", DRAINING, |kv| kv.is_some_and(|kv| value(kv)["inflight"] == 2)).await;
        drop(first);
        look.until(LIMIT, "one call in flight", DRAINING, |kv| kv.is_some_and(|kv| value(kv)["inflight"] == 1)).await;
        drop(second);
        assert_eq!(backend.ended_within(LIMIT).await.code(), Some(0));
    }

    async fn a_second_signal_aborts_a_stop(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut backend = service(&etcd, &mut look, "g0", 15).await;
        let resolver = Resolver::new(&connect(&etcd.url()));
        let channel = resolver.channel("greeter").expect("a valid target");
        let request = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 50 };
        let mut stream = GreeterClient::new(channel).lots_of_replies(request).await.expect("it serves").into_inner();
        stream.message().await.expect("a first reply").expect("it goes on");
        backend.terminate();
        look.until_gone(LIMIT, "/services/greeter/g0").await;
        backend.terminate();
        assert_eq!(backend.ended_within(LIMIT).await.code(), Some(1), "not an orderly stop");
    }

    async fn a_second_signal_aborts_a_stop_before_registration(etcd: TestEtcd) {
        let program = env!("CARGO_BIN_EXE_service");
        let mut backend = Process::spawn(program, &[&etcd.url(), "g0", "15", "unready"]);
        let channel = Channel::fixed([Endpoint::new(backend.line()).expect("an address")]);
        let request = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 50 };
        let mut stream = GreeterClient::new(channel).lots_of_replies(request).await.expect("it serves").into_inner();
        stream.message().await.expect("a first reply").expect("it goes on");
        backend.terminate();
        // It has heard it once it no longer listens.
        while tokio::net::TcpStream::connect(backend.line()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begin = Instant::now();
        backend.terminate();
        assert_eq!(backend.ended_within(LIMIT).await.code(), Some(1), "not an orderly stop");
        report("a stop before registration, asked for twice", begin.elapsed());
    }
}

async fn hello(channel: &Channel) -> Result<(), tonic::Status> {
    let request = HelloRequest { name: "ada".into() };
    GreeterClient::new(channel.clone()).say_hello(request).await.map(drop)
}

/// Unary calls at a steady rate, from as many callers as that takes at a call each 10 ms.
struct Load {
    stop: CancellationToken,
    callers: JoinSet<(usize, Vec<String>)>,
    begin: Instant,
}

impl Load {
    fn start(channel: &Channel, per_second: usize) -> Load {
        let (stop, mut callers) = (CancellationToken::new(), JoinSet::new());
        for _ in 0..per_second / 100 {
            let (channel, stop) = (channel.clone(), stop.clone());
            callers.spawn(async move {
                let (mut calls, mut failures) = (0, Vec::new());
                let mut tick = tokio::time::interval(Duration::from_millis(10));
                tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.is_cancelled() {
                    tick.tick().await;
                    let call = tokio::time::timeout(LIMIT * 2, hello(&channel)).await;
                    let failure = call.map_or_else(
                        |_| Some("no answer".to_owned()),
                        |call| call.err().map(|e| e.to_string()),
                    );
                    failures.extend(failure);
                    calls += 1;
                }
                (calls, failures)
            });
        }
        Load { stop, callers, begin: Instant::now() }
    }

    async fn finish(self) -> (usize, Vec<String>, Duration) {
        self.stop.cancel();
        let took = self.begin.elapsed();
        let (calls, failures): (Vec<_>, Vec<_>) = self.callers.join_all().await.into_iter().unzip();
        (calls.into_iter().sum(), failures.into_iter().flatten().collect(), took)
    }
}
