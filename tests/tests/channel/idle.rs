//! Channels without calls, on sockets: what they hold, and that they wake. When they go idle is proven under a paused
//! clock, in `channel/tests/in_memory.rs`.

use std::time::Duration;

use svc_channel::{Channel, ConnectivityState};
use svc_tests::backends::Fleet;
use tokio::task::JoinSet;

use crate::support::{endpoints, hello, patiently};

#[tokio::test]
async fn an_idle_channel_holds_no_connection_and_wakes_without_a_failed_call() {
    let fleet = Fleet::start(3).await;
    let channel =
        Channel::builder().idle_timeout(Duration::from_millis(100)).fixed(endpoints(&fleet.addresses()));
    let mut state = channel.watch_state();
    for _ in 0..5 {
        hello(&channel).await.expect("the call wakes it and waits");
        let idle = state.wait_for(|state| *state == ConnectivityState::Idle);
        patiently("idleness", idle).await.expect("the channel lives");
        for backend in fleet.iter() {
            backend.until(|counts| counts.connections == 0).await;
        }
    }
    // Callers that rest about as long as it takes: it falls asleep and wakes under their calls.
    let mut callers = JoinSet::new();
    for seed in 0..3 {
        let channel = channel.clone();
        callers.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(rng.u64(80..160))).await;
                hello(&channel).await.expect("no call fails for idleness");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call failed");
    }
}
