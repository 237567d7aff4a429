//! Laws 5 and 6: what discovery changes while calls are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use svc_channel::{Call, Channel, LeastRequest, Picker, Policy, RoundRobin, Subchannel};
use svc_tests::backends::{Backend, Fleet};

use crate::load::Load;
use crate::support::{
    Changes, changing, endpoint, endpoints, hello, hello_within, seen, until, until_idle, until_ready,
};

async fn over(fleet: &Fleet) -> (Changes, Channel) {
    let (changes, discover) = changing();
    let channel = Channel::builder().policy(RoundRobin::new()).build(discover);
    for endpoint in endpoints(&fleet.addresses()) {
        changes.insert(endpoint).await;
    }
    until_ready(&channel, fleet.len()).await;
    (changes, channel)
}

#[tokio::test]
async fn bal_1_a_changed_weight_zone_or_tag_keeps_the_connection() {
    let fleet = Fleet::start(2).await;
    let (changes, channel) = over(&fleet).await;
    let load = Load::start(&channel, 4, None);
    let plain = endpoint("b0", &fleet[0].address());
    let all = [
        plain.clone().weight(7),
        plain.clone().zone("z"),
        plain.clone().tag("version", "v2"),
        plain.weight(3),
    ];
    for changed in all {
        let (weight, zone) = (changed.weight, changed.zone.clone());
        changes.insert(changed).await;
        until(&channel, |dump| seen(dump, "b0").is_some_and(|b0| b0.weight == weight && b0.zone == zone))
            .await;
        load.more(20).await;
    }
    load.finish_unharmed().await;
    assert_eq!(fleet.accepted(), 2, "not one reconnect");
}

#[tokio::test]
async fn a_changed_address_is_connected_before_the_old_connection_is_drained() {
    let fleet = Fleet::start(2).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().build(discover);
    changes.insert(endpoint("moving", &fleet[0].address())).await;
    until_ready(&channel, 1).await;
    fleet[0].hold();
    let old = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    fleet[0].until(|counts| counts.open == 1).await;
    changes.insert(endpoint("moving", &fleet[1].address())).await;
    fleet[1].until(|counts| counts.connections == 1).await;
    until(&channel, |dump| seen(dump, "moving").is_some_and(|m| m.address == fleet[1].address())).await;
    // The new connection is up; from the moment that the channel knows it no call goes to the old one.
    // Until then some may, where they are held.
    const MOMENT: Duration = Duration::from_millis(100);
    while hello_within(&channel, Some(MOMENT)).await.map_or(true, |reply| reply.instance != "b1") {}
    assert_eq!(fleet[0].counts().connections, 1, "the old one drains: a call is under way");
    fleet[0].release();
    assert_eq!(old.await.expect("no panic").expect("it was let finish").instance, "b0");
    fleet[0].until(|counts| counts.connections == 0).await;
}

#[tokio::test]
async fn a_changed_address_that_cannot_be_reached_keeps_the_old_connection() {
    let backend = Backend::start("b0").await;
    let nobody = Backend::refusing("nobody");
    let (changes, discover) = changing();
    let channel = Channel::builder().build(discover);
    changes.insert(endpoint("moving", &backend.address())).await;
    until_ready(&channel, 1).await;
    changes.insert(endpoint("moving", &nobody.address())).await;
    until(&channel, |dump| seen(dump, "moving").is_some_and(|m| m.last_error.is_some())).await;
    assert_eq!(hello(&channel).await.expect("the old address still serves").instance, "b0");
}

#[tokio::test]
async fn bal_3_the_first_call_after_every_endpoint_was_replaced_succeeds() {
    let mut before = Fleet::start(3).await;
    let (changes, channel) = over(&before).await;
    hello(&channel).await.expect("it serves");
    for round in 0..5 {
        // No call is made meanwhile: the channel has to move by itself, and the first call must not pay for it.
        let mut after = Vec::new();
        for number in 0..3 {
            let backend = Backend::start(&format!("r{round}-{number}")).await;
            changes.insert(endpoint(backend.name(), &backend.address())).await;
            after.push(backend);
        }
        for (number, backend) in before.iter_mut().enumerate() {
            let old = if round == 0 { format!("b{number}") } else { backend.name().to_owned() };
            changes.remove(&old).await;
            backend.stop().await;
        }
        let reply = hello(&channel).await.expect("the first call succeeds");
        assert!(reply.instance.starts_with(&format!("r{round}-")), "{reply:?}");
        before = Fleet::of(after);
    }
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_new_call_finishes_those_it_has_and_is_closed() {
    let fleet = Fleet::start(2).await;
    let (changes, channel) = over(&fleet).await;
    fleet[0].hold();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { hello(&channel).await })
        })
        .collect();
    let held = fleet[0].until(|counts| counts.open == 2).await.calls;
    changes.remove("b0").await;
    until(&channel, |dump| dump.endpoints.len() == 1).await;
    for _ in 0..20 {
        assert_eq!(hello(&channel).await.expect("the other").instance, "b1");
    }
    assert_eq!(fleet[0].counts().calls, held, "no new call");
    assert_eq!(fleet[0].counts().connections, 1, "calls are under way");
    fleet[0].release();
    for call in calls {
        call.await.expect("no panic").expect("removal cuts no call");
    }
    fleet[0].until(|counts| counts.connections == 0).await;
    until_idle(&channel).await;
}

/// Round robin that stops in the middle of one pick, until the test lets it go on.
struct Stopping {
    armed: Arc<AtomicBool>,
    picked: mpsc::SyncSender<()>,
    go_on: Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
}

struct StoppingPicker {
    first: Option<usize>,
    armed: Arc<AtomicBool>,
    picked: mpsc::SyncSender<()>,
    go_on: Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Policy for Stopping {
    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        let first = ready.iter().position(|subchannel| &*subchannel.endpoint().instance == "b0");
        let (armed, picked, go_on) = (self.armed.clone(), self.picked.clone(), self.go_on.clone());
        Arc::new(StoppingPicker { first: first.or((!ready.is_empty()).then_some(0)), armed, picked, go_on })
    }
}

impl Picker for StoppingPicker {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        if self.armed.swap(false, SeqCst) {
            self.picked.send(()).expect("the test listens");
            let go_on = self.go_on.lock().expect("one pick at a time");
            go_on.recv_timeout(Duration::from_secs(10)).expect("the test goes on");
        }
        self.first
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bal_4_an_endpoint_removed_between_pick_and_call_fails_no_call() {
    let fleet = Fleet::start(2).await;
    let armed = Arc::new(AtomicBool::new(false));
    let (picked, was_picked) = mpsc::sync_channel(1);
    let (let_go, go_on) = mpsc::sync_channel(1);
    let (changes, discover) = changing();
    let policy = Stopping { armed: armed.clone(), picked, go_on: Arc::new(go_on.into()) };
    let channel = Channel::builder().policy(policy).build(discover);
    for endpoint in endpoints(&fleet.addresses()) {
        changes.insert(endpoint).await;
    }
    until_ready(&channel, 2).await;
    for _ in 0..5 {
        armed.store(true, SeqCst);
        let call = tokio::spawn({
            let channel = channel.clone();
            async move { hello(&channel).await }
        });
        tokio::task::spawn_blocking({
            let was_picked = was_picked.recv_timeout(Duration::from_secs(10));
            move || was_picked
        })
        .await
        .expect("no panic")
        .expect("it picked b0");
        changes.remove("b0").await;
        until(&channel, |dump| seen(dump, "b0").is_none()).await;
        fleet[0].until(|counts| counts.connections == 0).await;
        let_go.send(()).expect("the pick waits");
        let reply = call.await.expect("no panic").expect("it goes to the one that is left");
        assert_eq!(reply.instance, "b1");
        changes.insert(endpoint("b0", &fleet[0].address())).await;
        until_ready(&channel, 2).await;
    }
}

#[tokio::test]
async fn bal_4_endpoints_that_come_and_go_under_load_fail_no_call() {
    let fleet = Fleet::start(4).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().policy(LeastRequest::new()).build(discover);
    changes.insert(endpoint("b0", &fleet[0].address())).await;
    until_ready(&channel, 1).await;
    let load = Load::start(&channel, 8, None);
    for _ in 0..30 {
        for number in 1..4 {
            changes.insert(endpoint(&format!("b{number}"), &fleet[number].address())).await;
        }
        load.more(10).await;
        for number in 1..4 {
            changes.remove(&format!("b{number}")).await;
        }
        load.more(5).await;
    }
    let tally = load.finish_unharmed().await;
    assert!(tally.by_instance.len() > 1, "more than one was used: {:?}", tally.by_instance);
    for backend in &fleet[1..] {
        backend.until(|counts| counts.connections == 0).await;
    }
}
