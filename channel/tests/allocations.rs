//! Heap allocations: a pick makes none, whatever the policy; nor do metrics, once a call's method and status have been seen.
//! A binary of its own: the crate that counts is the process's allocator. It counts one thread, which has client and server
//! on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use svc_channel::{
    BoxIo, Call, Channel, ChannelBuilder, Endpoint, LeastRequest, PeakEwma, PickFirst, Policy, RingHash,
    RoundRobin, Subchannel, WeightedRoundRobin, connector_fn,
};
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

#[path = "../examples/support/mod.rs"]
mod support;

const CALLS: u64 = 500;
const ROUNDS: usize = 5;

/// Counts samples; it allocates where handles are registered only.
#[derive(Default)]
struct Samples(Arc<Count>);

#[derive(Default)]
struct Count(AtomicU64);

impl HistogramFn for Count {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Recorder for Samples {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(AtomicU64::new(0)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(AtomicU64::new(0)))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.0.clone())
    }
}

/// A client of a greeter at the other end of a pipe.
fn greeter(builder: ChannelBuilder) -> GreeterClient<Channel> {
    let (connections, incoming) = mpsc::channel::<std::io::Result<_>>(16);
    let server = Server::builder().add_service(GreeterServer::new(support::Named::new("a")));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming))); // ends with the runtime
    let connector = connector_fn(move |_address| {
        let connections = connections.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            connections.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
            Ok(Box::new(ours) as BoxIo)
        }
    });
    let endpoints = [Endpoint::new("greeter:1").expect("an address")];
    GreeterClient::new(builder.connector(connector).fixed(endpoints))
}

async fn calls(client: &mut GreeterClient<Channel>) {
    for _ in 0..CALLS {
        client.say_hello(HelloRequest { name: "ada".into() }).await.expect("it serves");
    }
}

#[test]
fn a_call_with_metrics_allocates_no_more_than_one_without() {
    let recorder = Samples::default();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // No sockets: where all wait for a timer the clock jumps to it.
    let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        let _within = runtime.enter();
        let mut plain = greeter(Channel::builder());
        let mut measured = greeter(Channel::builder().metrics());
        let count = |client: &mut GreeterClient<Channel>| {
            allocation_counter::measure(|| runtime.block_on(calls(client))).count_total
        };
        // The first round connects, registers the method's handles and fills every buffer.
        let [mut least_plain, mut least_measured] = [u64::MAX; 2];
        for round in 0..=ROUNDS {
            let (without, with) = (count(&mut plain), count(&mut measured));
            if round > 0 {
                (least_plain, least_measured) = (least_plain.min(without), least_measured.min(with));
            }
        }
        assert!(
            recorder.0.0.load(Relaxed) >= 4 * CALLS * ROUNDS as u64,
            "attempts, calls and sizes were recorded"
        );
        // A few are the timers' and the buffers' own; one in a hundred calls would be the metrics'.
        assert!(
            least_measured <= least_plain + CALLS / 100,
            "{least_measured} allocations in {CALLS} calls with metrics, {least_plain} without"
        );
    });
}

#[test]
fn a_pick_allocates_nothing_whatever_the_policy() {
    // Weights that differ, so that tables by weight are in use.
    let endpoint =
        |i: u32| Endpoint::new(format!("10.0.0.1:{}", 1 + i)).expect("an address").weight(1 + i % 7);
    let ready: Vec<_> = (0..100).map(|i| Subchannel::new(endpoint(i))).collect();
    let policies: [(&str, Box<dyn Policy>); 6] = [
        ("pick_first", Box::new(PickFirst::new())),
        ("round_robin", Box::new(RoundRobin::new())),
        ("weighted_round_robin", Box::new(WeightedRoundRobin::new())),
        ("least_request", Box::new(LeastRequest::new())),
        ("peak_ewma", Box::new(PeakEwma::new())),
        ("ring_hash", Box::new(RingHash::new(HeaderName::from_static("x-user")))),
    ];
    let path = Uri::from_static("/greeter.v1.Greeter/SayHello");
    let headers =
        HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static("ada"))]);
    for (name, mut policy) in policies {
        let picker = policy.update(&ready);
        let call = Call::new(&path, &headers);
        assert!(picker.pick(&call).is_some(), "{name} warms up");
        let counted = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                assert!(picker.pick(&call).is_some());
            }
        });
        assert_eq!(counted.count_total, 0, "{name}");
    }
}
