//! BAL-2, BAL-5, BAL-6, BAL-7 and BAL-14: backends that refuse, die, freeze and say GOAWAY, under load.

use std::time::Duration;

use svc_channel::{Channel, ChannelBuilder, EndpointState, RoundRobin};
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_tests::backends::{Backend, Fleet};
use svc_tests::process::Process;
use tonic::Code;

use crate::load::Load;
use crate::support::{endpoint, endpoints, hello, in_state, seen, until, until_idle, until_ready};

/// With a second to start from, a test of several redials would take its time.
const MAX_BACKOFF: Duration = Duration::from_millis(100);

#[tokio::test]
async fn bal_2_one_of_eight_refuses_connections_and_no_call_fails() {
    const CALLS: usize = 2_000;
    let fleet = Fleet::start(7).await;
    let refusing = Backend::refusing("b7");
    let mut addresses = fleet.addresses();
    addresses.push(refusing.address());

    let channel = Channel::fixed(endpoints(&addresses));
    for number in 0..CALLS {
        hello(&channel).await.unwrap_or_else(|status| panic!("call {number} failed: {status}"));
    }
    assert!(fleet.calls().iter().all(|calls| *calls > 0), "all seven were used: {:?}", fleet.calls());

    // The same calls over what tonic has, for comparison; nothing is promised of it.
    let stock = addresses.iter().map(|address| {
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("a good address")
    });
    let mut client = GreeterClient::new(tonic::transport::Channel::balance_list(stock));
    let mut failed = 0;
    for _ in 0..CALLS {
        failed += u32::from(client.say_hello(HelloRequest { name: "ada".into() }).await.is_err());
    }
    println!("BAL-2: of {CALLS} calls failed: ours 0, tonic's balance_list {failed}");
}

#[tokio::test]
async fn bal_5_each_backend_is_stopped_and_restarted_in_turn_and_all_are_used_again() {
    let mut fleet = Fleet::start(4).await;
    let channel = Channel::builder().max_backoff(MAX_BACKOFF).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 4).await;
    let load = Load::start(&channel, 8, None);
    for number in 0..4 {
        let name = fleet[number].name().to_owned();
        fleet[number].stop().await;
        until_ready(&channel, 3).await;
        load.more(50).await;
        let before = load.tally().of(&name);
        fleet[number].restart().await;
        load.until("its share", |tally| tally.of(&name) > before + 5).await;
    }
    let tally = load.finish().await;
    // A stop cuts what is in flight on that backend: of 8 callers at most 8 calls, four times.
    assert!(tally.failed.len() <= 32, "{:?}", tally.failed);
    assert!(tally.failed.iter().all(|(code, _)| *code == Code::Unavailable), "{:?}", tally.failed);
    until_idle(&channel).await;
}

/// Eight backends in processes of their own, each answer 5 ms late, and a channel over them.
async fn eight_processes(builder: ChannelBuilder) -> (Vec<Process>, Channel) {
    let names: Vec<_> = (0..8).map(|number| format!("b{number}")).collect();
    let processes: Vec<_> =
        names.iter().map(|name| Process::spawn(env!("CARGO_BIN_EXE_backend"), &[name, "5"])).collect();
    let all: Vec<_> = names.iter().zip(&processes).map(|(name, p)| endpoint(name, p.line())).collect();
    let channel = builder.max_backoff(MAX_BACKOFF).fixed(all);
    until_ready(&channel, 8).await;
    (processes, channel)
}

#[tokio::test]
async fn bal_6_kill_of_one_of_eight_fails_only_what_was_in_flight_on_it() {
    const CALLERS: usize = 16;
    let (mut processes, channel) = eight_processes(Channel::builder()).await;
    let load = Load::start(&channel, CALLERS, None);
    load.until("all are used", |tally| tally.by_instance.len() == 8).await;
    processes[3].kill();
    until(&channel, |dump| in_state(dump, EndpointState::Ready) == 7).await;
    let failed = load.tally().failed.len();
    load.more(500).await;
    let tally = load.finish().await;
    println!("BAL-6: of {} calls failed: {:?}", tally.ok, tally.failed.len());
    assert!(failed <= CALLERS, "more than could be in flight: {:?}", tally.failed);
    for (code, message) in &tally.failed {
        assert_eq!(*code, Code::Unavailable, "{message}");
        assert!(message.contains("b3"), "only calls on the killed one: {message}");
    }
    until_idle(&channel).await;
}

#[tokio::test]
async fn bal_6_with_a_retry_policy_kill_of_one_of_eight_fails_no_call() {
    const RETRY: &str = r#"{"methodConfig": [{"name": [{"service": "greeter.v1.Greeter"}], "retryPolicy": {
        "maxAttempts": 4, "initialBackoff": "0.001s", "maxBackoff": "0.01s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;
    let config = RETRY.parse().expect("a good config");
    let (mut processes, channel) = eight_processes(Channel::builder().service_config(config)).await;
    let load = Load::start(&channel, 16, None);
    load.until("all are used", |tally| tally.by_instance.len() == 8).await;
    for killed in [3, 6] {
        processes[killed].kill();
        load.more(200).await;
    }
    load.finish_unharmed().await;
    until_idle(&channel).await;
}

/// Freezes some of eight at load. Calls have a second.
async fn frozen(count: usize) {
    const DEADLINE: Duration = Duration::from_secs(1);
    let (processes, channel) = eight_processes(Channel::builder().policy(RoundRobin::new())).await;
    let load = Load::start(&channel, 16, Some(DEADLINE));
    load.until("all are used", |tally| tally.by_instance.len() == 8).await;
    for process in &processes[..count] {
        process.freeze();
    }
    until(&channel, |dump| in_state(dump, EndpointState::Ready) == 8 - count).await;
    // What was sent before the ejection may still expire; from then on nothing does.
    tokio::time::sleep(DEADLINE + DEADLINE / 2).await;
    let expired = load.tally().failed;
    assert!(expired.len() >= 3 * count, "the first expiries are what finds it: {}", expired.len());
    assert!(expired.iter().all(|(code, _)| *code == Code::DeadlineExceeded), "{expired:?}");
    load.more(500).await;
    assert_eq!(load.tally().failed.len(), expired.len(), "0 failed once ejected");

    for process in &processes[..count] {
        process.thaw();
    }
    let before = load.tally();
    back_without_a_call(&channel, count).await;
    load.until("all are used again", |tally| {
        (0..count).all(|number| tally.of(&format!("b{number}")) > before.of(&format!("b{number}")))
    })
    .await;
    let tally = load.finish().await;
    assert_eq!(tally.failed.len(), expired.len(), "none failed when they came back: {:?}", tally.failed);
    println!("BAL-7: {count} of 8 frozen: {} of {} calls expired", expired.len(), tally.ok);
    until_idle(&channel).await;
}

/// Waits until all are ready; while one is not, no call is tried on it: a PING decides.
async fn back_without_a_call(channel: &Channel, frozen: usize) {
    let mut before = channel.dump();
    until(channel, |now| {
        for number in 0..frozen {
            let name = format!("b{number}");
            let (Some(then), Some(now)) = (seen(&before, &name), seen(now, &name)) else { continue };
            // Still out now, so it was out when its calls were counted a moment ago.
            if now.state != EndpointState::Ready && now.since > Duration::from_secs(2) {
                assert_eq!(then.in_flight, 0, "a call was tried on {name}");
            }
        }
        before = now.clone();
        in_state(now, EndpointState::Ready) == 8
    })
    .await;
}

#[tokio::test]
async fn bal_7_one_of_eight_frozen_is_ejected_after_the_first_expiries_and_taken_back_unseen() {
    frozen(1).await;
}

#[tokio::test]
async fn bal_7_three_of_eight_frozen_are_ejected_after_the_first_expiries_and_taken_back_unseen() {
    frozen(3).await;
}

#[tokio::test]
async fn bal_14_goaway_under_load_fails_no_call() {
    let fleet = Fleet::start(3).await;
    for backend in fleet.iter() {
        backend.set_delay(Duration::from_millis(3));
    }
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 3).await;
    let load = Load::start(&channel, 12, None);
    for _ in 0..10 {
        for backend in fleet.iter() {
            let accepted = backend.counts().accepted;
            backend.goaway().await;
            backend.until(|counts| counts.accepted > accepted).await;
            load.more(10).await;
        }
    }
    load.finish_unharmed().await;
}

#[tokio::test]
async fn bal_14_a_graceful_stop_under_load_fails_no_call() {
    let mut fleet = Fleet::start(3).await;
    for backend in fleet.iter() {
        backend.set_delay(Duration::from_millis(3));
    }
    let channel = Channel::builder().max_backoff(MAX_BACKOFF).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 3).await;
    let load = Load::start(&channel, 12, None);
    for _ in 0..3 {
        for number in 0..3 {
            fleet[number].stop_gracefully().await;
            load.more(20).await;
            fleet[number].restart().await;
            until_ready(&channel, 3).await;
        }
    }
    load.finish_unharmed().await;
}

#[tokio::test]
async fn bal_14_max_connection_age_fails_no_call() {
    let fleet = Fleet::start_with(3, |server| server.max_connection_age(Duration::from_millis(500))).await;
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 3).await;
    let load = Load::start(&channel, 12, None);
    for backend in fleet.iter() {
        backend.until(|counts| counts.accepted >= 4).await;
    }
    load.finish_unharmed().await;
}
