//! Many leases and many instances: few keepalives, few leases, one stream.

use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::GetOptions;
use svc_registry::{Registrar, RegistrarConfig, RegistrationStatus};
use svc_tests::etcd::TestEtcd;

use crate::support::{KEY, LONG, Look, connect, counted, instance, report, until_status};

/// Messages that etcd has received on keepalive streams.
const KEEPALIVES: &str = "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\"";
/// Keepalive streams that etcd has seen begin.
const STREAMS: &str = "grpc_server_started_total{grpc_method=\"LeaseKeepAlive\"";

svc_tests::etcd_tests! {
    /// etcd#9911: a client asked again each half second while an answer was late.
    async fn storm_1_a_slow_etcd_gets_at_most_four_keepalives_for_a_lease_in_a_ttl(etcd: TestEtcd) {
        const LEASES: usize = 1_000;
        const HANDLES: usize = 20;
        // A thousand registrars in one process, unoptimised, beside other tests: with a TTL of 4 s they had no time to answer.
        const TTL: Duration = Duration::from_secs(12);
        if counted(&etcd, KEEPALIVES).await.is_none() {
            println!("skipped: the embedded etcd has no metrics to count keepalives by");
            return;
        }
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let mut look = Look::at(&etcd).await;
        let config = RegistrarConfig { ttl: TTL, ..RegistrarConfig::default() };
        // A registrar has one lease for a hundred instances: as many leases take as many registrars. Each has two streams; a
        // connection takes 200 of some servers, and a handle ten connections.
        let handles: Vec<_> = (0..HANDLES).map(|_| connect(&proxy.url())).collect();
        let registrars: Vec<_> =
            (0..LEASES).map(|at| Registrar::with_config(&handles[at % HANDLES], config).expect("a valid configuration")).collect();
        let registrations: Vec<_> =
            registrars.iter().enumerate().map(|(at, registrar)| registrar.register(instance(&format!("i-{at}")))).collect();
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        // Answers that are late, and answers that come after the stream was given up for silent.
        for latency in [TTL / 10, TTL / 4] {
            proxy.set(Mode::Latency(latency));
            let (begin, before) = (Instant::now(), counted(&etcd, KEEPALIVES).await);
            // The law is about time: a TTL of it.
            tokio::time::sleep(TTL).await;
            let (took, after) = (begin.elapsed(), counted(&etcd, KEEPALIVES).await);
            if let (Some(before), Some(after)) = (before, after) {
                let each = (after - before) / LEASES as f64 / took.div_duration_f64(TTL);
                println!("{latency:?} each way: {each:.2} keepalives for a lease in a TTL");
                assert!(each <= 4.0, "{each} keepalives for a lease in a TTL, {latency:?} each way");
                assert!(each > 0.5, "{each} keepalives for a lease in a TTL: it is not counted");
            }
        }
        proxy.set(Mode::Pass);
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        assert!(look.leases().await >= LEASES);
    }

    /// An answer that takes more than a third of the TTL comes all the same: a stream that is given up each time is a storm of its
    /// own, and the lease is never known to live.
    async fn storm_1_an_etcd_that_answers_late_keeps_its_stream(etcd: TestEtcd) {
        const TTL: Duration = Duration::from_secs(6);
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let mut look = Look::at(&etcd).await;
        let config = RegistrarConfig { ttl: TTL, ..RegistrarConfig::default() };
        let registrar = Registrar::with_config(&connect(&proxy.url()), config).expect("a valid configuration");
        let registrations: Vec<_> = (0..250).map(|at| registrar.register(instance(&format!("i-{at}")))).collect();
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        let lease = look.there(KEY).await.lease();
        proxy.set(Mode::Latency(TTL / 5));
        // It is silent once, at the most twice, until its pace is known.
        tokio::time::sleep(TTL).await;
        let before = counted(&etcd, STREAMS).await;
        tokio::time::sleep(TTL * 2).await;
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        // Given up each time it would be six; one or two are a busy machine's.
        let opened = counted(&etcd, STREAMS).await.zip(before).map(|(after, before)| after - before);
        assert!(opened.is_none_or(|opened| opened <= 2.0), "{opened:?} keepalive streams were opened");
        assert_eq!(look.there(KEY).await.lease(), lease, "the same lease");
    }

    /// etcd#18069, kubernetes#96836: a lease and a stream for each key.
    async fn storm_2_five_thousand_instances_have_fifty_leases_and_one_stream(etcd: TestEtcd) {
        const COUNT: usize = 5_000;
        let mut look = Look::at(&etcd).await;
        let streams = counted(&etcd, STREAMS).await.unwrap_or_default();
        let registrar = Registrar::new(&connect(&etcd.url()));
        let begin = Instant::now();
        let registrations: Vec<_> =
            (0..COUNT).map(|at| registrar.register(instance(&format!("i-{at}")))).collect();
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        report("5,000 instances are registered", begin.elapsed());
        assert_eq!(look.leases().await, COUNT / 100);
        let all = GetOptions::new().with_prefix().with_count_only();
        let found = look.client.get("/services/greeter/", Some(all)).await.expect("etcd is up");
        assert_eq!(found.count(), COUNT as i64);
        // Until each lease was renewed, which takes a third of its TTL.
        while counted(&etcd, KEEPALIVES).await.is_some_and(|keepalives| keepalives < 50.0) {
            assert!(begin.elapsed() < LONG, "50 leases are not renewed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(now) = counted(&etcd, STREAMS).await {
            assert_eq!(now - streams, 1.0, "one keepalive stream");
        }
        assert!(registrations.iter().all(|registration| registration.status().borrow().is_registered()));
    }
}
