//! A cluster of which one member is of no use: calls and registrations go on, on the others.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use svc_channel::{BoxIo, connector_fn};
use svc_registry::{Etcd, EtcdConfig, Instance, Registrar, RegistrationStatus};

/// Three names: two lead to the same etcd, as two members of one cluster would, and one to `odd`.
fn cluster(good: &EmbeddedEtcd, odd: Option<&EmbeddedEtcd>) -> Etcd {
    let (good, odd) = (good.dialer(), odd.map(EmbeddedEtcd::dialer));
    let connector = connector_fn(move |address| {
        let dialer = if address.to_string().starts_with("odd") { odd.clone() } else { Some(good.clone()) };
        async move {
            let dialer = dialer.ok_or_else(|| std::io::Error::other("this member is dead"))?;
            Ok(Box::new(dialer.dial().await?) as BoxIo)
        }
    });
    let config = EtcdConfig::new(["odd:2379", "good-1:2379", "good-2:2379"]).expect("valid");
    Etcd::new(config.with_connector(connector)).expect("inside a runtime")
}

async fn no_call_fails(etcd: &Etcd) {
    etcd.ready(Duration::from_secs(10)).await.expect("two members answer");
    for call in 0..50 {
        let mut kv = etcd.kv();
        kv.put(format!("/k/{call}"), "v", None).await.expect("a write");
        kv.get(format!("/k/{call}"), None).await.expect("a read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_member_costs_no_failed_call() {
    let good = EmbeddedEtcd::start().await;
    no_call_fails(&cluster(&good, None)).await;
}

#[tokio::test(start_paused = true)]
async fn a_leaderless_member_costs_no_failed_call_and_no_registration() {
    let (good, odd) = (EmbeddedEtcd::start().await, EmbeddedEtcd::start().await);
    odd.hooks().lose_leader();
    let etcd = cluster(&good, Some(&odd));
    no_call_fails(&etcd).await;

    let instance = Instance::new("greeter", "i-1", "10.0.0.1:50051").expect("valid");
    let registration = Registrar::new(&etcd).register(instance);
    let mut status = registration.status();
    status.wait_for(RegistrationStatus::is_registered).await.expect("the task lives");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(registration.status().borrow().is_registered(), "keepalives find the members that lead");
    assert_eq!(good.hooks().lease_count(), 1, "on one lease all the while");
}
