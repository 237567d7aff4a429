//! etcd away for five times the TTL, then back: with its data, or empty.

use std::collections::HashSet;
use std::time::Duration;

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::GetOptions;
use svc_registry::RegistrationStatus;
use svc_tests::etcd::TestEtcd;

use crate::support::{
    KEY, LIMIT, LONG, Look, instance, registered, registrar, report, service, until_status,
};

/// The lease's time to live, in seconds. An etcd that comes back gives a lease its full time to live, and has to be
/// found within it.
const TTL: u64 = 3;

svc_tests::etcd_tests! {
    /// kratos#3883, gf#3167, go-kit#1043: after an outage the service had to be restarted.
    async fn reg_1_after_an_outage_with_data_kept_the_same_lease_goes_on(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), TTL), "i-1").await;
        let before = look.there(KEY).await;
        etcd.kill().await;
        until_status("suspect", &registration, |status| matches!(status, RegistrationStatus::Suspect { .. })).await;
        // The fault itself is time: five TTLs.
        tokio::time::sleep(Duration::from_secs(4 * TTL)).await;
        etcd.start().await;
        until_status("registered", &registration, RegistrationStatus::is_registered).await;
        // Two more TTLs: were the lease not renewed, the key would be gone by then.
        tokio::time::sleep(Duration::from_secs(2 * TTL)).await;
        let after = look.there(KEY).await;
        assert_eq!(after.lease(), before.lease(), "the same lease");
        assert_eq!(after.create_revision(), before.create_revision(), "never gone");
        assert_eq!(look.leases().await, 1, "no second lease");
    }

    async fn reg_1_after_an_outage_with_data_lost_the_key_is_back(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), TTL), "i-1").await;
        etcd.kill().await;
        until_status("suspect", &registration, |status| matches!(status, RegistrationStatus::Suspect { .. })).await;
        tokio::time::sleep(Duration::from_secs(4 * TTL)).await;
        etcd.wipe().await;
        etcd.start().await;
        let took = look.until_there(LIMIT * 2, KEY).await;
        report("after a wipe the key is back", took);
        until_status("registered", &registration, RegistrationStatus::is_registered).await;
        assert_eq!(look.leases().await, 1);
    }

    /// kratos#2398: everybody came back in the same instant.
    async fn reg_2_after_a_wipe_two_hundred_registrars_are_back_spread_by_jitter(etcd: TestEtcd) {
        const COUNT: usize = 200;
        // So many registrars in one process, unoptimised, on a busy machine: an answer may take more than a second.
        const TTL: u64 = 12;
        let mut look = Look::at(&etcd).await;
        let registrars: Vec<_> = (0..COUNT).map(|_| registrar(&etcd.url(), TTL)).collect();
        let registrations: Vec<_> = registrars
            .iter()
            .enumerate()
            .map(|(number, registrar)| registrar.register(instance(&format!("i-{number}"))))
            .collect();
        for registration in &registrations {
            until_status("registered", registration, RegistrationStatus::is_registered).await;
        }
        etcd.wipe().await;
        etcd.start().await;
        let all = || Some(GetOptions::new().with_prefix().with_count_only());
        let begin = std::time::Instant::now();
        let mut counts = HashSet::new();
        loop {
            let found = look.client.get("/services/greeter/", all()).await.map(|found| found.count());
            counts.extend(found.as_ref().ok().copied());
            if found.is_ok_and(|count| count == COUNT as i64) {
                break;
            }
            assert!(begin.elapsed() < LONG, "some are missing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        report("after a wipe 200 registrars are back", begin.elapsed());
        assert!(counts.len() > 3, "they came in one wave: {counts:?}");
    }

    /// go-zero#4201: a half-open connection was never noticed.
    async fn reg_4_after_a_link_that_swallowed_everything_the_key_is_back(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let registration = registered(&registrar(&proxy.url(), TTL), "i-1").await;
        proxy.set(Mode::Blackhole);
        look.until_gone(LONG, KEY).await;
        until_status("suspect", &registration, |status| matches!(status, RegistrationStatus::Suspect { .. })).await;
        proxy.set(Mode::Pass);
        let took = look.until_there(LIMIT * 2, KEY).await;
        report("after a silent link the key is back", took);
        until_status("registered", &registration, RegistrationStatus::is_registered).await;
    }

    /// kratos#3464: a link that came and went left the service unregistered. Shorter turns, of which each silent one is
    /// longer than the TTL.
    async fn reg_3_a_link_that_comes_and_goes_leaves_it_registered(etcd: TestEtcd) {
        const DOWN: Duration = Duration::from_millis(1_500);
        let mut look = Look::at(&etcd).await;
        let proxy = Proxy::start(etcd.address()).await.expect("a free port");
        let registration = registered(&registrar(&proxy.url(), 1), "i-1").await;
        for _ in 0..5 {
            proxy.set(Mode::Blackhole);
            tokio::time::sleep(DOWN).await;
            proxy.set(Mode::Pass);
            tokio::time::sleep(DOWN).await;
        }
        let took = look.until_there(LIMIT * 2, KEY).await;
        report("after the last turn of a flapping link the key is there", took);
        until_status("registered", &registration, RegistrationStatus::is_registered).await;
    }

    /// dubbo-go#3146: the keepalive waited for somebody to read its events.
    async fn reg_8_the_lease_is_kept_although_nobody_reads_the_status(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registrar = registrar(&etcd.url(), 1);
        let _never_read = registrar.register(instance("i-1"));
        drop(registrar.register(instance("i-2")));
        look.until_there(LONG, KEY).await;
        look.until_there(LONG, "/services/greeter/i-2").await;
        let before = look.there(KEY).await;
        // The fault is time: five TTLs.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = look.there(KEY).await;
        assert_eq!((after.mod_revision(), after.lease()), (before.mod_revision(), before.lease()), "never gone");
        assert!(look.get("/services/greeter/i-2").await.is_some(), "a handle that is dropped leaves it registered");
    }

    /// dubbo#5625: a process that was stopped for a while stayed away.
    async fn reg_9_a_process_stopped_for_three_ttls_is_back_when_it_goes_on(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let process = service(&etcd, &mut look, "i-1", 2).await;
        process.freeze();
        look.until_gone(LONG, KEY).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        process.thaw();
        let took = look.until_there(LIMIT, KEY).await;
        report("a process that goes on is back", took);
    }
}
