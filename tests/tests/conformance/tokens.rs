//! Tokens, and what leases and watches ask of them: the stale ones above all, since clients must know each way in
//! which that is said.

use std::time::Duration;

use etcd_client::{LeaseKeeper, LeaseTimeToLiveOptions, Permission, PutOptions, WatchOptions, WatchResponse};
use svc_tests::etcd::{Kind, Options, TestEtcd, run};
use tonic::Code;

use crate::support::{
    LIMIT, add_user, connect, denied, enable_auth, events, looks_at_tokens_when_off, next, predates_checks,
    refusal, refused, told,
};

fn invalid() -> (Code, String) {
    refused(Code::Unauthenticated, "etcdserver: invalid auth token")
}

/// How a watch is refused; 3.5.1 has one reason for all, and gives the id that was asked for.
fn assert_refused(etcd: &TestEtcd, answer: &WatchResponse, reason: &str) {
    assert!(answer.created() && answer.canceled(), "{answer:?}");
    let old = etcd.kind() == Kind::Etcd351;
    let reason =
        if old { "rpc error: code = PermissionDenied desc = etcdserver: permission denied" } else { reason };
    assert_eq!((answer.watch_id(), answer.cancel_reason()), (if old { 0 } else { -1 }, reason));
}

laws! {
    async fn a_token_ends_with_its_user_its_password_and_with_authentication(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("k")]).await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();

        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        ada.get("k", None).await.unwrap();
        root.user_change_password("ada", "other").await.unwrap();
        assert_eq!(refusal(ada.get("k", None).await), invalid());
        assert_eq!(refusal(ada.put("k", "v", None).await), invalid(), "before what it may do is looked at");

        let mut ada = connect(&etcd, "ada", "other").await.unwrap();
        root.user_delete("ada").await.unwrap();
        assert_eq!(refusal(ada.get("k", None).await), invalid());

        root.auth_disable().await.unwrap();
        let off = root.get("k", None).await;
        if looks_at_tokens_when_off(&etcd) {
            assert_eq!(refusal(off), invalid(), "older ones look at tokens even now");
            root = etcd.client().await;
        } else {
            off.expect("nobody looks at tokens now");
        }
        root.auth_enable().await.unwrap();
        if !looks_at_tokens_when_off(&etcd) {
            assert_eq!(refusal(root.get("k", None).await), invalid(), "those from before are gone");
        }
    }

    async fn a_token_outlives_a_restart(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        root.put("k", "v", None).await.unwrap();
        etcd.kill().await;
        etcd.start().await;
        let answer = loop {
            match root.get("k", None).await {
                // The connection is made anew meanwhile.
                Err(etcd_client::Error::GRpcStatus(status)) if status.code() != Code::Unauthenticated => {}
                answer => break answer,
            }
        };
        answer.expect("its log tells of logins too");
    }

    async fn a_watch_needs_the_right_to_read_its_range_and_siblings_live_on(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("mine/").with_prefix()]).await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let options = || Some(WatchOptions::new().with_prefix());
        // With an id, since etcd 3.5.1 stops watch 0 when it refuses another.
        let first = WatchOptions::new().with_prefix().with_watch_id(7);
        let mut stream = ada.watch("mine/", Some(first)).await.unwrap();
        assert!(!next(&mut stream).await.canceled());
        stream.watch("other/", options()).await.unwrap();
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_refused(&etcd, &next(&mut stream).await, reason);
        root.put("mine/1", "v", None).await.unwrap();
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT mine/1=v"]);

        // What is permitted later is, and what was permitted once goes on to be told.
        root.role_grant_permission("ada", Permission::read("other/").with_prefix()).await.unwrap();
        root.role_revoke_permission("ada", "mine/", Some(etcd_client::RoleRevokePermissionOptions::new().with_prefix()))
            .await
            .unwrap();
        stream.watch("other/", Some(WatchOptions::new().with_prefix().with_watch_id(8))).await.unwrap();
        assert!(!next(&mut stream).await.canceled());
        root.put("mine/1", "w", None).await.unwrap();
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT mine/1=w"]);
    }

    async fn only_3_5_1_stops_watch_0_when_it_refuses_another(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("k")]).await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let mut stream = ada.watch("k", None).await.unwrap();
        assert_eq!(next(&mut stream).await.watch_id(), 0);
        stream.watch("k", Some(WatchOptions::new().with_watch_id(9))).await.unwrap();
        assert_eq!(next(&mut stream).await.watch_id(), 9);
        stream.watch("other", None).await.unwrap();
        assert!(next(&mut stream).await.canceled());
        root.put("k", "v", None).await.unwrap();
        let mut heard = vec![next(&mut stream).await.watch_id()];
        if etcd.kind() == Kind::Etcd351 {
            // What watch 0 has to tell would come before the answer to a request that is made later.
            stream.watch("k", Some(WatchOptions::new().with_watch_id(10))).await.unwrap();
            heard.push(next(&mut stream).await.watch_id());
            assert_eq!(heard, [9, 10]);
        } else {
            heard.push(next(&mut stream).await.watch_id());
            heard.sort_unstable();
            assert_eq!(heard, [0, 9]);
        }
    }

    async fn a_new_watch_on_a_stream_with_a_stale_token_or_none_is_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("k")]).await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let first = WatchOptions::new().with_watch_id(7);
        let mut stream = ada.watch("k", Some(first)).await.unwrap();
        assert!(!next(&mut stream).await.canceled());
        root.user_change_password("ada", "other").await.unwrap();
        stream.watch("k", None).await.unwrap();
        let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
        assert_refused(&etcd, &next(&mut stream).await, reason);
        root.put("k", "v", None).await.unwrap();
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT k=v"], "the older one is not asked again");

        let mut nobody = client.watch("k", None).await.unwrap();
        let reason = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
        assert_refused(&etcd, &next(&mut nobody).await, reason);
    }

    async fn a_lease_belongs_to_those_who_may_write_all_its_keys(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read_write("a/").with_prefix()]).await;
        add_user(&mut client, "bob", &[Permission::read_write("b/").with_prefix()]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let mut bob = connect(&etcd, "bob", "secret").await.unwrap();

        let lease = ada.lease_grant(60, None).await.unwrap().id();
        let on = || Some(PutOptions::new().with_lease(lease));
        ada.put("a/1", "v", on()).await.unwrap();
        assert_eq!(refusal(bob.put("b/1", "v", on()).await), denied(), "he could not end it");
        assert_eq!(refusal(bob.lease_revoke(lease).await), denied());
        let short = bob.lease_time_to_live(lease, None).await.unwrap();
        assert_eq!(short.granted_ttl(), 60, "how long it lives is no secret");
        ada.lease_revoke(lease).await.unwrap();
        assert_eq!(ada.get("a/1", None).await.unwrap().count(), 0);

        let empty = ada.lease_grant(60, None).await.unwrap().id();
        bob.lease_revoke(empty).await.expect("one without keys may be ended by anyone");
    }

    /// Since 3.5.29; before, anybody listed leases, and in the oldest kept them and saw their keys.
    async fn a_lease_is_kept_and_its_keys_are_seen_by_those_who_may(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read_write("a/").with_prefix()]).await;
        add_user(&mut client, "bob", &[Permission::read_write("b/").with_prefix()]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let mut bob = connect(&etcd, "bob", "secret").await.unwrap();
        let lease = ada.lease_grant(60, None).await.unwrap().id();
        ada.put("a/1", "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        let (_keeper, _answers) = ada.lease_keep_alive(lease).await.unwrap();
        let keys = || Some(LeaseTimeToLiveOptions::new().with_keys());
        assert_eq!(ada.lease_time_to_live(lease, keys()).await.unwrap().keys(), [b"a/1"]);
        if predates_checks(&etcd) {
            client.lease_grant(60, None).await.expect("even without a token");
            return;
        }
        assert_eq!(refusal(bob.lease_time_to_live(lease, keys()).await), denied());
        assert_eq!(refusal(bob.leases().await), denied());
        assert_eq!(refusal(bob.lease_keep_alive(lease).await.map(|_| ())), denied());
        let empty = refused(Code::InvalidArgument, "etcdserver: user name is empty");
        assert_eq!(refusal(client.lease_grant(60, None).await), empty);
        assert_eq!(refusal(client.lease_revoke(lease).await), empty);
        assert_eq!(refusal(client.leases().await), empty);
        assert_eq!(refusal(client.lease_keep_alive(lease).await.map(|_| ())), empty);
        assert_eq!(refusal(client.lease_time_to_live(lease, None).await), empty);

        // A renewal that is refused ends the stream, with those behind it.
        let mine = bob.lease_grant(60, None).await.unwrap().id();
        let (keeper, mut answers) = bob.lease_keep_alive(mine).await.unwrap();
        LeaseKeeper { id: lease, sender: keeper.sender.clone() }.keep_alive().await.unwrap();
        let end = tokio::time::timeout(LIMIT, answers.message()).await.expect("an end in time");
        assert_eq!(refusal(end), denied());
    }
}

/// A token ends when nobody used it for its time.
mod a_token_that_nobody_uses_runs_out {
    use super::*;

    async fn law(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        enable_auth(&mut client).await;
        let mut idle = connect(&etcd, "root", "secret").await.unwrap();
        let mut used = connect(&etcd, "root", "secret").await.unwrap();
        for _ in 0..15 {
            used.get("k", None).await.expect("one that is used lives on");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(refusal(idle.get("k", None).await), invalid());
    }

    fn short() -> Options {
        Options { token_ttl: Duration::from_secs(3), ..Options::default() }
    }

    #[test]
    fn embedded() {
        run(Kind::Embedded, &short(), law);
    }

    #[test]
    fn etcd_3_4() {
        run(Kind::Etcd34, &short(), law);
    }

    #[test]
    fn etcd_3_5() {
        run(Kind::Etcd35, &short(), law);
    }

    #[test]
    fn etcd_3_5_1() {
        run(Kind::Etcd351, &short(), law);
    }
}
