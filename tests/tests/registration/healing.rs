//! Keys deleted or overwritten, leases revoked: put right at once.

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, PutOptions};
use svc_registry::{RegistrationStatus, Weight};
use svc_tests::etcd::TestEtcd;

use crate::support::{
    KEY, LIMIT, Look, instance, registered, registrar, report, service, until_status, value,
};

svc_tests::etcd_tests! {
    /// go-zero#4960: a deleted key never came back.
    async fn reg_5_a_deleted_key_is_back_within_a_second(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), 15), "i-1").await;
        let before = look.there(KEY).await;
        look.client.delete(KEY, None).await.expect("etcd is up");
        let took = look.until_there(LIMIT, KEY).await;
        report("a deleted key is back", took);
        let after = look.there(KEY).await;
        assert_eq!((after.value(), after.lease()), (before.value(), before.lease()), "on the same lease");
        drop(registration);
    }

    async fn reg_5_a_revoked_lease_is_replaced_within_a_second(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), 15), "i-1").await;
        let lease = look.there(KEY).await.lease();
        look.client.lease_revoke(lease).await.expect("etcd is up");
        let took = look.until_there(LIMIT, KEY).await;
        report("the key of a revoked lease is back", took);
        assert_ne!(look.there(KEY).await.lease(), lease);
        drop(registration);
    }

    /// rpcx#420: a put on the dead lease was tried again and again.
    async fn reg_6_a_put_after_the_lease_is_lost_goes_on_a_fresh_one(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), 15), "i-1").await;
        let lease = look.there(KEY).await.lease();
        // The update meets the dead lease, or the key's DELETE is seen first: the outcome is the same.
        look.client.lease_revoke(lease).await.expect("etcd is up");
        registration.update(|instance| instance.set_weight(Weight::new(7).expect("in range")));
        let took = look
            .until(LIMIT, "the update is in etcd", KEY, |kv| kv.is_some_and(|kv| value(kv)["weight"] == 7))
            .await;
        report("an update on a lost lease", took);
        assert_ne!(look.there(KEY).await.lease(), lease);
        assert_eq!(look.leases().await, 1);
    }

    /// A full etcd renews leases and deletes keys, and takes nothing new until an operator has made room.
    async fn what_is_registered_outlives_a_full_etcd_and_what_is_new_waits_for_room(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let (stays, leaves) =
            (registered(&registrar(&etcd.url(), 2), "i-1").await, registered(&registrar(&etcd.url(), 2), "i-2").await);
        let before = look.there(KEY).await;
        let member = look.client.status().await.expect("etcd is up").header().map(|header| header.member_id());
        let mut of = AlarmOptions::new();
        of.with_member(member.expect("a header"));
        look.client.alarm(AlarmAction::Activate, AlarmType::Nospace, Some(of.clone())).await.expect("etcd is up");

        let new = registrar(&etcd.url(), 2).register(instance("i-3"));
        until_status("told why", &new, |status| {
            let text = format!("{status:?}");
            text.contains("out of space") && text.contains("NOSPACE")
        })
        .await;
        leaves.deregister(LIMIT).await.expect("a delete needs no room");
        look.until_gone(LIMIT, "/services/greeter/i-2").await;
        // Two lives of the lease.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let after = look.there(KEY).await;
        assert_eq!((after.mod_revision(), after.lease()), (before.mod_revision(), before.lease()), "as it was");
        assert!(stays.status().borrow().is_registered());

        look.client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of)).await.expect("etcd is up");
        until_status("registered", &new, RegistrationStatus::is_registered).await;
    }

    async fn reg_7_the_key_of_a_killed_service_is_gone_with_its_ttl(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut process = service(&etcd, &mut look, "i-1", 2).await;
        process.kill();
        // TTL + 2 s on an idle machine.
        let took = look.until_gone(LIMIT * 4, KEY).await;
        report("the key of a killed service is gone (TTL 2 s)", took);
    }

    /// etcd#8185: the late end of an old lease took a key along that had moved to a new one.
    async fn reg_11_a_late_revoke_of_the_old_lease_leaves_the_key(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let mut killed = service(&etcd, &mut look, "i-1", 60).await;
        let old = look.there(KEY).await.lease();
        killed.kill();
        let successor = registered(&registrar(&etcd.url(), 15), "i-1").await;
        let moved = look.there(KEY).await;
        assert_ne!(moved.lease(), old, "re-registered on a lease of its own");
        look.client.lease_revoke(old).await.expect("it was still there");
        let after = look.there(KEY).await;
        assert_eq!(after.mod_revision(), moved.mod_revision(), "untouched");
        assert!(successor.status().borrow().is_registered());
    }

    async fn reg_13_a_plain_put_is_put_right_within_a_second(etcd: TestEtcd) {
        let mut look = Look::at(&etcd).await;
        let registration = registered(&registrar(&etcd.url(), 15), "i-1").await;
        let before = look.there(KEY).await;
        let ours = (before.value().to_vec(), before.lease());
        // What `etcdctl put` does: another value, and no lease.
        look.client.put(KEY, "10.9.9.9:1", None).await.expect("etcd is up");
        let took = look
            .until(LIMIT, "value and lease are ours again", KEY, |kv| {
                kv.is_some_and(|kv| (kv.value(), kv.lease()) == (ours.0.as_slice(), ours.1))
            })
            .await;
        report("a plain put is put right", took);
        // Our own value without our lease: it would outlive us.
        look.client.put(KEY, ours.0.clone(), Some(PutOptions::new())).await.expect("etcd is up");
        look.until(LIMIT, "the lease is ours again", KEY, |kv| kv.is_some_and(|kv| kv.lease() == ours.1)).await;
        drop(registration);
    }
}
