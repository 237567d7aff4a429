//! Two processes with one id: the newer one wins, the older one ends, nobody fights.

use std::time::Duration;

use svc_tests::etcd::TestEtcd;

use crate::support::{KEY, LIMIT, LONG, Look, registered, registrar, service, until_status, value};

const TTL: u64 = 2;

/// The older process has ended, by an error; the newer one's record stands and is not written any more.
async fn the_newer_one_stands(look: &mut Look, newer: &str) {
    let record = look.there(KEY).await;
    assert_eq!(value(&record)["incarnation"], newer);
    // As long as a lease of the older one could still run.
    tokio::time::sleep(Duration::from_secs(2 * TTL)).await;
    let later = look.there(KEY).await;
    assert_eq!(later.mod_revision(), record.mod_revision(), "no flapping");
}

svc_tests::etcd_tests! {
    async fn reg_12_a_process_frozen_past_its_ttl_yields_to_its_successor(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut older = service(&etcd, &mut look, "i-1", TTL).await;
        older.freeze();
        look.until_gone(LONG, KEY).await;
        let registrar = registrar(&etcd.url(), TTL);
        let newer = registered(&registrar, "i-1").await;
        older.thaw();
        let status = older.ended_within(LIMIT * 2).await;
        assert_eq!(status.code(), Some(1), "superseded is an error");
        the_newer_one_stands(&mut look, &registrar.incarnation().to_string()).await;
        assert!(newer.status().borrow().is_registered());
    }

    async fn reg_12_the_older_of_two_that_run_ends_at_once(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut older = service(&etcd, &mut look, "i-1", TTL).await;
        let registrar = registrar(&etcd.url(), TTL);
        let _newer = registered(&registrar, "i-1").await;
        assert_eq!(older.ended_within(LIMIT * 2).await.code(), Some(1));
        the_newer_one_stands(&mut look, &registrar.incarnation().to_string()).await;
    }

    async fn reg_12_after_a_wipe_the_newer_one_wins_whoever_comes_first(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut older = service(&etcd, &mut look, "i-1", TTL).await;
        older.freeze();
        look.until_gone(LONG, KEY).await;
        let registrar = registrar(&etcd.url(), TTL);
        let newer = registered(&registrar, "i-1").await;
        // Nothing in etcd tells who is newer: both have to bring it along. The older one may be the first to put.
        etcd.wipe().await;
        older.thaw();
        etcd.start().await;
        assert_eq!(older.ended_within(LONG).await.code(), Some(1));
        until_status("registered", &newer, |status| status.is_registered()).await;
        let ours = registrar.incarnation().to_string();
        look.until(LIMIT, "the newer one's", KEY, |kv| kv.is_some_and(|kv| value(kv)["incarnation"] == *ours)).await;
        the_newer_one_stands(&mut look, &ours).await;
    }
}
