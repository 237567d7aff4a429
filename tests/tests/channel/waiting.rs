//! Law 1: a request never goes to an endpoint that is known not to be ready; it waits where there is hope, bounded,
//! and else fails at once with the reason.

use std::time::{Duration, Instant};

use svc_channel::{Channel, Resolution, WaitForReady};
use svc_proto::greeter::v1::HelloRequest;
use svc_tests::backends::Backend;
use svc_tests::raw_h2;
use tokio::sync::watch;
use tonic::Code;

use crate::support::{changing, endpoint, greeter, hello, hello_within, patiently, until};

#[tokio::test]
async fn a_call_waits_for_discoverys_first_answer() {
    let backend = Backend::start("b0").await;
    let (changes, discover) = changing();
    let channel = Channel::builder().build(discover);
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    tokio::task::yield_now().await;
    changes.insert(endpoint("b0", &backend.address())).await;
    assert_eq!(call.await.expect("no panic").expect("it was worth waiting").instance, "b0");
}

#[tokio::test]
async fn a_call_to_a_service_that_is_known_to_be_empty_fails_at_once_and_says_so() {
    let (_changes, discover) = changing();
    let (resolution, receiver) = watch::channel(Resolution::Pending);
    let channel = Channel::builder().name("greeter").resolution(receiver).build(discover);
    resolution.send_replace(Resolution::Live { known: 0 });
    let begun = Instant::now();
    let status = hello(&channel).await.expect_err("there is none");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("greeter") && status.message().contains("none is known"), "{status}");
    // The wait for discovery is 5 s: this did not wait.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stale_discovery_gives_the_error_its_reason() {
    let (_changes, discover) = changing();
    let stale = Resolution::Stale { since: tokio::time::Instant::now(), reason: "etcd is on fire".into() };
    let (_resolution, receiver) = watch::channel(stale);
    let channel = Channel::builder().name("greeter").resolution(receiver).build(discover);
    let status = hello(&channel).await.expect_err("there is none");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("etcd is on fire"), "{status}");
}

#[tokio::test]
async fn waiting_for_discovery_is_bounded_and_the_deadline_bounds_it_further() {
    let (_changes, discover) = changing();
    let channel = Channel::builder().build(discover);
    let status = hello_within(&channel, Some(Duration::from_millis(100))).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let status = hello(&channel).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn a_call_waits_while_its_endpoint_is_connected_for_the_first_time() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    // No wait before it: the dial has not even begun.
    assert_eq!(hello(&channel).await.expect("it waits").instance, "b0");
}

#[tokio::test]
async fn a_call_waits_for_the_first_redial_after_a_connection_has_ended() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    for _ in 0..10 {
        hello(&channel).await.expect("it serves, or will in a moment");
        backend.goaway().await;
    }
    backend.until(|counts| counts.accepted == 11).await;
}

#[tokio::test]
async fn a_call_fails_at_once_when_every_endpoint_has_failed_and_says_why() {
    let backends = [Backend::refusing("b0"), Backend::refusing("b1")];
    let all = backends.iter().map(|backend| endpoint(backend.name(), &backend.address()));
    let channel = Channel::builder().name("greeter").fixed(all);
    let first = hello(&channel).await.expect_err("nobody listens");
    let begun = Instant::now();
    let second = hello(&channel).await.expect_err("nobody listens");
    // Backoff begins with a second: this did not wait for the next attempt.
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    for status in [first, second] {
        assert_eq!(status.code(), Code::Unavailable);
        for part in ["greeter", "2 known", "2 failed", "refused"] {
            assert!(status.message().contains(part), "{part:?} is missing in {status}");
        }
    }
}

#[tokio::test]
async fn a_call_that_waits_for_ready_succeeds_when_the_server_appears() {
    let mut backend = Backend::refusing("b0");
    let channel =
        Channel::builder().max_backoff(Duration::from_millis(50)).fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect_err("nobody listens yet");
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    request.extensions_mut().insert(WaitForReady);
    let mut client = greeter(&channel);
    let call = tokio::spawn(async move { client.say_hello(request).await });
    tokio::task::yield_now().await;
    backend.restart().await;
    let reply = patiently("the call", call).await.expect("no panic").expect("it waited");
    assert_eq!(reply.get_ref().instance, "b0");
}

#[tokio::test]
async fn an_endpoint_that_never_speaks_is_waited_for_no_longer_than_the_connect_timeout() {
    let silent = raw_h2::silent().await;
    let channel = Channel::builder()
        .connect_timeout(Duration::from_millis(200))
        .fixed([endpoint("mute", &silent.address())]);
    let status = hello(&channel).await.expect_err("it never speaks");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(silent.accepted() >= 1);
}

#[tokio::test]
async fn calls_go_to_the_ready_while_another_is_still_being_connected() {
    let silent = raw_h2::silent().await;
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("mute", &silent.address()), endpoint("b0", &backend.address())]);
    for _ in 0..50 {
        assert_eq!(hello(&channel).await.expect("one is ready").instance, "b0");
    }
    let dump = until(&channel, |dump| dump.endpoints.len() == 2).await;
    assert_eq!(crate::support::in_state(&dump, svc_channel::EndpointState::Connecting), 1, "{dump:?}");
}

#[tokio::test]
async fn more_endpoints_than_turns_to_dial_are_all_connected() {
    let fleet = svc_tests::backends::Fleet::start(6).await;
    let channel = Channel::builder().max_dials(1).fixed(crate::support::endpoints(&fleet.addresses()));
    crate::support::until_ready(&channel, 6).await;
    assert_eq!(fleet.accepted(), 6);
}
