//! A cluster of which one member is of no use: calls and registrations go on, on the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use svc_channel::{BoxIo, connector_fn};
use svc_registry::{Etcd, EtcdConfig, Instance, Registrar, RegistrarConfig, RegistrationStatus};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

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

/// The way to a member: what it carries is late, or lost without a word.
#[derive(Clone, Default)]
struct Link {
    late: Arc<AtomicU64>,
    hole: Arc<AtomicBool>,
}

impl Link {
    fn carry(
        &self,
        mut from: impl AsyncRead + Unpin + Send + 'static,
        mut to: impl AsyncWrite + Unpin + Send + 'static,
    ) {
        let (link, (sent, mut arriving)) = (self.clone(), mpsc::channel::<(Instant, Vec<u8>)>(1024));
        tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut bytes).await {
                let at = Instant::now() + Duration::from_millis(link.late.load(Ordering::Relaxed));
                if !link.hole.load(Ordering::Relaxed) && sent.send((at, bytes[..n].to_vec())).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some((at, bytes)) = arriving.recv().await {
                tokio::time::sleep_until(at).await;
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Three members behind links, all of them one etcd.
fn linked(server: &EmbeddedEtcd) -> (Etcd, [Link; 3]) {
    let (links, dialer): ([Link; 3], _) = (Default::default(), server.dialer());
    let to = links.clone();
    let connector = connector_fn(move |address| {
        let member = address.to_string().chars().filter_map(|c| c.to_digit(10)).next().unwrap_or_default();
        let (link, dialer) = (to[member as usize].clone(), dialer.clone());
        async move {
            let (near, far) = tokio::io::duplex(1 << 20);
            let ((far_out, far_in), (member_out, member_in)) =
                (tokio::io::split(far), tokio::io::split(dialer.dial().await?));
            link.carry(far_out, member_in);
            link.carry(member_out, far_in);
            Ok(Box::new(near) as BoxIo)
        }
    });
    let config = EtcdConfig::new(["m-0:2379", "m-1:2379", "m-2:2379"]).expect("valid");
    (Etcd::new(config.with_connector(connector)).expect("inside a runtime"), links)
}

/// Whoever gives a slow etcd time must not give it to a dead member: what is left of the lease has to be enough for another.
#[tokio::test(start_paused = true)]
async fn law_1_a_member_that_dies_while_etcd_is_slow_costs_no_lease() {
    const TTL: Duration = Duration::from_secs(12);
    for (each_way, trial) in
        [10, 1_500, 2_250].into_iter().flat_map(|way| (0..12).map(move |trial| (way, trial)))
    {
        let server = EmbeddedEtcd::start().await;
        let (etcd, links) = linked(&server);
        let config = RegistrarConfig { ttl: TTL, ..RegistrarConfig::default() };
        let registrar = Registrar::with_config(&etcd, config).expect("a valid configuration");
        let instance = Instance::new("greeter", "i-1", "10.0.0.1:50051").expect("valid");
        let registration = registrar.register(instance);
        let mut status = registration.status();
        status.wait_for(RegistrationStatus::is_registered).await.expect("the task lives");
        links.iter().for_each(|link| link.late.store(each_way, Ordering::Relaxed));
        tokio::time::sleep(TTL * 3 + TTL / 12 * trial).await;
        status.wait_for(RegistrationStatus::is_registered).await.expect("the task lives");
        let before = server.hooks().revision();
        links[trial as usize % 3].hole.store(true, Ordering::Relaxed);
        tokio::time::sleep(TTL * 4).await;
        let after = (server.hooks().lease_count(), server.hooks().revision());
        assert_eq!(after, (1, before), "{each_way} ms each way, trial {trial}");
        status.wait_for(RegistrationStatus::is_registered).await.expect("the task lives");
        registration.deregister(TTL * 5).await.expect("two members answer");
    }
}
