//! What a channel measures, by gRPC's names and labels (gRFCs A66 and A96). Each test has a recorder of its own, which
//! the test's thread, its only one, uses.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use prost::Message as _;
use svc_channel::{Channel, ChannelBuilder, FailurePercentage, OutlierDetection, ServiceConfig};
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_tests::backends::{Backend, Fleet};
use svc_tests::raw_h2::{RawServer, error};
use tonic::Code;

use crate::support::{endpoint, endpoints, greeter, hello, hello_within, patiently, until_idle};

/// Everything that was recorded: names with labels, and values.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<String, Vec<f64>>);

/// Keeps a recorder until its end.
pub(crate) struct Recorder {
    snapshotter: Snapshotter,
    _guard: LocalRecorderGuard<'static>,
}

impl Recorder {
    pub(crate) fn install() -> Self {
        // Lives as long as the process: the guard borrows it.
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        Self { snapshotter: recorder.snapshotter(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// What was recorded since this was last asked: a counter's and a gauge's one value, a histogram's all.
    pub(crate) fn seen(&self) -> Seen {
        let mut seen = BTreeMap::new();
        for (key, _, description, value) in self.snapshotter.snapshot().into_vec() {
            let (_, key) = key.into_parts();
            assert!(description.is_some(), "{} is described", key.name());
            let mut labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            labels.sort();
            let values = match value {
                DebugValue::Counter(count) => vec![count as f64],
                DebugValue::Gauge(value) => vec![*value],
                DebugValue::Histogram(values) => values.into_iter().map(|v| *v).collect(),
            };
            seen.insert(format!("{}{{{}}}", key.name(), labels.join(",")), values);
        }
        Seen(seen)
    }
}

impl Seen {
    /// All values of a metric whose labels are exactly these, in alphabetical order.
    pub(crate) fn of(&self, name: &str, labels: &str) -> &[f64] {
        self.0.get(&format!("{name}{{{labels}}}")).map_or(&[], Vec::as_slice)
    }

    /// Whether anything of that name was recorded.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, values)| key.starts_with(name) && !values.is_empty())
    }
}

const HELLO: &str = "grpc.method=greeter.v1.Greeter/SayHello";
const SENT: &str = "grpc.client.attempt.sent_total_compressed_message_size";
const RECEIVED: &str = "grpc.client.attempt.rcvd_total_compressed_message_size";

fn labels(method: &str, status: &str) -> String {
    format!("{method},grpc.status={status},grpc.target=greeter")
}

/// Asserts how often attempts began, and with which statuses attempts and calls ended: one sample for each.
fn assert_ends(seen: &Seen, method: &str, started: u64, attempts: &[(&str, usize)], call: &str) {
    let target = format!("{method},grpc.target=greeter");
    assert_eq!(seen.of("grpc.client.attempt.started", &target), [started as f64]);
    for (status, count) in attempts {
        let labels = labels(method, status);
        for metric in ["grpc.client.attempt.duration", SENT, RECEIVED] {
            assert_eq!(seen.of(metric, &labels).len(), *count, "{metric} {labels}");
        }
    }
    let durations = seen.of("grpc.client.call.duration", &labels(method, call));
    assert_eq!(durations.len(), 1, "one call, {call}: {:?}", seen.0);
    assert!(durations.iter().all(|seconds| (0.0..60.0).contains(seconds)), "in seconds: {durations:?}");
}

fn measured() -> ChannelBuilder {
    Channel::builder().name("greeter").metrics()
}

#[tokio::test]
async fn an_answered_call_is_measured_once_with_the_sizes_of_its_messages() {
    let recorder = Recorder::install();
    let backend = Backend::start("b0").await;
    let channel = measured().fixed([endpoint("b0", &backend.address())]);
    let reply = hello(&channel).await.expect("it serves");
    let seen = recorder.seen();
    assert_ends(&seen, HELLO, 1, &[("OK", 1)], "OK");
    let request = HelloRequest { name: "ada".into() };
    assert_eq!(seen.of(SENT, &labels(HELLO, "OK")), [request.encoded_len() as f64]);
    assert_eq!(seen.of(RECEIVED, &labels(HELLO, "OK")), [reply.encoded_len() as f64]);
    for of_repeated_calls in ["retries", "transparent_retries", "hedges", "retry_delay"] {
        assert!(!seen.has(&format!("grpc.client.call.{of_repeated_calls}")));
    }
}

#[tokio::test]
async fn streams_are_measured_from_their_first_to_their_last_message() {
    let recorder = Recorder::install();
    let backend = Backend::start("b0").await;
    let channel = measured().fixed([endpoint("b0", &backend.address())]);
    let requests: Vec<_> = (0..500).map(|n| HelloRequest { name: format!("n{n}") }).collect();
    let sent: usize = requests.iter().map(prost::Message::encoded_len).sum();
    let mut client = greeter(&channel);
    let call = client.lots_of_greetings(tokio_stream::iter(requests));
    patiently("the call", call).await.expect("it serves");
    let method = "grpc.method=greeter.v1.Greeter/LotsOfGreetings";
    let seen = recorder.seen();
    assert_ends(&seen, method, 1, &[("OK", 1)], "OK");
    assert_eq!(seen.of(SENT, &labels(method, "OK")), [sent as f64]);

    let request = LotsOfRepliesRequest { name: "ada".into(), count: 500, interval_ms: 0 };
    let call = client.lots_of_replies(request);
    let mut replies = patiently("the head", call).await.expect("it serves").into_inner();
    assert!(!recorder.seen().has("grpc.client.call.duration"), "a call ends with its stream");
    let mut received = 0;
    while let Some(reply) = patiently("a reply", replies.message()).await.expect("the stream is whole") {
        received += reply.encoded_len();
    }
    let method = "grpc.method=greeter.v1.Greeter/LotsOfReplies";
    let seen = recorder.seen();
    assert_eq!(seen.of(RECEIVED, &labels(method, "OK")), [received as f64]);
    assert_eq!(seen.of("grpc.client.call.duration", &labels(method, "OK")).len(), 1);
}

/// A server that does not process the first call: it resets it with `code`, or answers UNAVAILABLE.
async fn not_at_first(code: Option<u32>) -> RawServer {
    RawServer::start(move |mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        match code {
            Some(code) => peer.reset(stream, code).await?,
            None => peer.trailers_only(stream, Code::Unavailable as i32, "not now").await?,
        }
        peer.greet("raw").await
    })
    .await
}

#[tokio::test]
async fn a_retry_is_an_attempt_and_its_call_says_how_many_there_were() {
    let recorder = Recorder::install();
    let server = not_at_first(None).await;
    let config: ServiceConfig = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3,
        "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#
        .parse()
        .expect("a service config");
    let channel = measured().service_config(config).fixed([endpoint("raw", &server.address())]);
    hello(&channel).await.expect("sent again");
    let seen = recorder.seen();
    assert_ends(&seen, HELLO, 2, &[("UNAVAILABLE", 1), ("OK", 1)], "OK");
    let labels = format!("{HELLO},grpc.target=greeter");
    assert_eq!(seen.of("grpc.client.call.retries", &labels), [1.0]);
    let delay = seen.of("grpc.client.call.retry_delay", &labels);
    assert!(matches!(delay, [waited] if *waited >= 0.008), "10 ms less a fifth of jitter: {delay:?}");
    assert!(!seen.has("grpc.client.call.transparent_retries") && !seen.has("grpc.client.call.hedges"));
}

#[tokio::test]
async fn what_is_sent_again_unprocessed_is_no_retry_but_a_transparent_one() {
    let recorder = Recorder::install();
    let server = not_at_first(Some(error::REFUSED_STREAM)).await;
    let channel = measured().fixed([endpoint("raw", &server.address())]);
    hello(&channel).await.expect("sent again");
    let seen = recorder.seen();
    assert_ends(&seen, HELLO, 2, &[("UNAVAILABLE", 1), ("OK", 1)], "OK");
    assert_eq!(
        seen.of("grpc.client.call.transparent_retries", &format!("{HELLO},grpc.target=greeter")),
        [1.0]
    );
    assert!(!seen.has("grpc.client.call.retries"));
}

#[tokio::test]
async fn a_hedge_is_an_attempt_and_the_loser_was_cancelled() {
    let recorder = Recorder::install();
    let fleet = Fleet::start(2).await;
    fleet[0].hold();
    let config: ServiceConfig =
        r#"{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}],
        "hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "0.01s"}}]}"#
            .parse()
            .expect("a service config");
    let channel = measured().service_config(config).fixed(endpoints(&fleet.addresses()));
    crate::support::until_ready(&channel, 2).await;
    // One of the two begins with the held one.
    for _ in 0..2 {
        hello(&channel).await.expect("one of them answers");
    }
    until_idle(&channel).await;
    let seen = recorder.seen();
    let labels = format!("{HELLO},grpc.target=greeter");
    let hedges = seen.of("grpc.client.call.hedges", &labels);
    assert!(!hedges.is_empty() && hedges.iter().all(|n| *n == 1.0), "{hedges:?}");
    assert_eq!(seen.of("grpc.client.attempt.started", &labels), [2.0 + hedges.len() as f64]);
    let cancelled = seen.of("grpc.client.attempt.duration", &self::labels(HELLO, "CANCELLED"));
    assert_eq!(cancelled.len(), hedges.len());
    assert_eq!(seen.of("grpc.client.call.duration", &self::labels(HELLO, "OK")).len(), 2);
    fleet[0].release();
}

#[tokio::test]
async fn an_expired_deadline_a_cancelled_call_and_one_without_an_endpoint_say_so() {
    let recorder = Recorder::install();
    let backend = Backend::start("b0").await;
    let channel = measured().fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("it serves");
    recorder.seen();
    backend.hold();
    let status = hello_within(&channel, Some(Duration::from_millis(50))).await.expect_err("it is held");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_ends(&recorder.seen(), HELLO, 1, &[("DEADLINE_EXCEEDED", 1)], "DEADLINE_EXCEEDED");

    tokio::select! {
        answer = hello(&channel) => panic!("it is held: {answer:?}"),
        // Counted from the first on: the call that expired is one of them.
        _ = backend.until(|counts| counts.calls >= 3) => {}
    }
    assert_ends(&recorder.seen(), HELLO, 1, &[("CANCELLED", 1)], "CANCELLED");
    backend.release();

    let nobody = Backend::refusing("gone");
    let channel = measured().fixed([endpoint("gone", &nobody.address())]);
    let status = hello(&channel).await.expect_err("nobody is there");
    assert_eq!(status.code(), Code::Unavailable);
    let seen = recorder.seen();
    assert_ends(&seen, HELLO, 0, &[("UNAVAILABLE", 0)], "UNAVAILABLE");
}

#[tokio::test]
async fn calls_are_measured_only_where_that_was_asked_for() {
    let recorder = Recorder::install();
    let backend = Backend::start("b0").await;
    let channel = Channel::builder().name("greeter").fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("it serves");
    assert!(!recorder.seen().has("grpc.client."));
}

/// Waits until a value has reached what the test needs; values add up over the looks.
async fn until(recorder: &Recorder, name: &str, labels: &str, wanted: f64) {
    let mut sum = 0.0;
    patiently(&format!("{name} {labels}"), async {
        loop {
            sum += recorder.seen().of(name, labels).iter().sum::<f64>();
            if sum == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn because(error: &str) -> String {
    format!("grpc.disconnect_error={error},grpc.target=greeter")
}

const DISCONNECTIONS: &str = "grpc.subchannel.disconnections";

/// A server that answers one call, and then says GOAWAY with this code, or closes without a word.
async fn ending(code: Option<u32>) -> RawServer {
    RawServer::start(move |mut peer| async move {
        peer.handshake(&[]).await?;
        let stream = peer.call().await?;
        peer.answer(stream, "raw").await?;
        match code {
            Some(code) => peer.go_away(stream, code).await?,
            None => return Ok(()),
        }
        peer.until_closed().await
    })
    .await
}

#[tokio::test]
async fn the_end_of_a_connection_says_why() {
    let recorder = Recorder::install();
    let ends = [
        (Some(error::ENHANCE_YOUR_CALM), "GOAWAY ENHANCE_YOUR_CALM"),
        (Some(error::NO_ERROR), "GOAWAY NO_ERROR"),
        (None, "unknown"),
    ];
    for (code, why) in ends {
        let server = ending(code).await;
        let channel = Channel::builder().name("greeter").fixed([endpoint("raw", &server.address())]);
        hello(&channel).await.expect("answered");
        until(&recorder, DISCONNECTIONS, &because(why), 1.0).await;
    }
    let backend = Backend::start("b0").await;
    let channel = Channel::builder().name("greeter").fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("it serves");
    recorder.seen(); // the channels of before have ended their last connections
    drop(channel);
    until(&recorder, DISCONNECTIONS, &because("subchannel shutdown"), 1.0).await;
}

#[tokio::test]
async fn connect_attempts_and_open_connections_are_counted() {
    let recorder = Recorder::install();
    let mut backend = Backend::start("b0").await;
    let nobody = Backend::refusing("gone");
    let both = [endpoint("b0", &backend.address()), endpoint("gone", &nobody.address())];
    let channel = Channel::builder().name("greeter").fixed(both);
    let target = "grpc.target=greeter";
    crate::support::until(&channel, |dump| {
        let failed = dump.endpoints.iter().any(|endpoint| endpoint.last_error.is_some());
        failed && crate::support::in_state(dump, svc_channel::EndpointState::Ready) == 1
    })
    .await;
    let seen = recorder.seen();
    assert_eq!(seen.of("grpc.subchannel.connection_attempts_succeeded", target), [1.0]);
    assert_eq!(seen.of("grpc.subchannel.connection_attempts_failed", target), [1.0]);
    assert_eq!(seen.of("grpc.subchannel.open_connections", target), [1.0]);
    backend.stop().await;
    // A look takes the gauge back to nothing: what follows is the difference.
    until(&recorder, "grpc.subchannel.open_connections", target, -1.0).await;
}

#[tokio::test]
async fn an_ejection_is_counted_with_what_found_it_out() {
    let recorder = Recorder::install();
    let fleet = Fleet::start(2).await;
    let channel = Channel::builder()
        .name("greeter")
        .policy(svc_channel::RoundRobin::new())
        .fixed(endpoints(&fleet.addresses()));
    crate::support::until_ready(&channel, 2).await;
    fleet[0].set_fail_percent(100);
    let mut ejected = 0.0;
    let labels = "grpc.lb.outlier_detection.detection_method=consecutive_failures,grpc.target=greeter";
    for _ in 0..100 {
        let _ = hello(&channel).await; // every second one fails, until
        let seen = recorder.seen();
        ejected += seen.of("grpc.lb.outlier_detection.ejections_enforced", labels).iter().sum::<f64>();
    }
    assert_eq!(ejected, 1.0);
}

#[tokio::test]
async fn an_endpoint_that_is_found_out_and_spared_is_counted_with_the_reason() {
    let recorder = Recorder::install();
    let fleet = Fleet::start(2).await;
    let mut outliers = OutlierDetection::default();
    outliers.interval = Duration::from_millis(100);
    outliers.consecutive_failures = None;
    outliers.failure_percentage = Some(FailurePercentage {
        threshold: 50,
        enforcement_percent: 0,
        minimum_hosts: 1,
        request_volume: 5,
    });
    let channel = Channel::builder()
        .name("greeter")
        .policy(svc_channel::RoundRobin::new())
        .outlier_detection(outliers)
        .fixed(endpoints(&fleet.addresses()));
    crate::support::until_ready(&channel, 2).await;
    fleet[0].set_fail_percent(100);
    let labels = "grpc.lb.outlier_detection.detection_method=failure_percentage,\
                  grpc.lb.outlier_detection.unenforced_reason=enforcement_percentage,grpc.target=greeter";
    let (begun, mut spared) = (std::time::Instant::now(), 0.0);
    while spared < 1.0 {
        assert!(begun.elapsed() < svc_tests::backends::PATIENCE, "nobody was spared");
        let _ = hello(&channel).await; // every second one fails
        let seen = recorder.seen();
        assert!(!seen.has("grpc.lb.outlier_detection.ejections_enforced"));
        spared += seen.of("grpc.lb.outlier_detection.ejections_unenforced", labels).iter().sum::<f64>();
    }
}
