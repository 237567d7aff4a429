//! Users, roles and permissions: what is refused until it is enabled, what each may do then, and in what words.

use etcd_client::{
    DeleteOptions, GetOptions, Permission, PermissionType, PutOptions, RoleRevokePermissionOptions, Txn,
    TxnOp,
};
use svc_tests::etcd::{Kind, TestEtcd};
use tonic::Code;

use crate::support::{
    add_root, add_user, connect, denied, enable_auth, predates_checks, put, refusal, refused,
};

fn failed(text: &str) -> (Code, String) {
    refused(Code::FailedPrecondition, text)
}

fn prefix() -> GetOptions {
    GetOptions::new().with_prefix()
}

laws! {
    async fn users_are_added_listed_and_deleted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.user_add("ada", "secret", None).await.unwrap();
        client.user_add("bob", "", Some(etcd_client::UserAddOptions::new().with_no_pwd())).await.unwrap();
        let again = client.user_add("ada", "secret", None).await;
        assert_eq!(refusal(again), failed("etcdserver: user name already exists"));
        let nameless = client.user_add("", "secret", None).await;
        assert_eq!(refusal(nameless), refused(Code::InvalidArgument, "etcdserver: user name is empty"));
        assert_eq!(client.user_list().await.unwrap().users(), ["ada", "bob"]);
        assert_eq!(client.user_get("ada").await.unwrap().roles(), [""; 0]);
        client.user_delete("ada").await.unwrap();
        assert_eq!(client.user_list().await.unwrap().users(), ["bob"]);
        let missing = failed("etcdserver: user name not found");
        assert_eq!(refusal(client.user_delete("ada").await), missing);
        assert_eq!(refusal(client.user_get("ada").await), missing);
        assert_eq!(refusal(client.user_change_password("ada", "new").await), missing);
        assert_eq!(refusal(client.user_grant_role("ada", "root").await), missing);
        assert_eq!(refusal(client.user_revoke_role("ada", "root").await), missing);
    }

    async fn maintenance_is_roots(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        // Without etcd's own words and code for it: these are of another layer.
        let text = refused(Code::Unknown, "auth: permission denied");
        assert_eq!(refusal(ada.defragment().await), text);
        assert_eq!(refusal(ada.hash_kv(0).await), text);
        assert_eq!(refusal(ada.hash().await), text);
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        root.hash_kv(0).await.unwrap();
        root.defragment().await.unwrap();
    }

    async fn roles_are_granted_and_revoked_and_end_everywhere_when_deleted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.user_add("ada", "secret", None).await.unwrap();
        client.role_add("reader").await.unwrap();
        client.role_add("writer").await.unwrap();
        assert_eq!(refusal(client.role_add("reader").await), failed("etcdserver: role name already exists"));
        assert_eq!(client.role_list().await.unwrap().roles(), ["reader", "writer"]);
        client.user_grant_role("ada", "writer").await.unwrap();
        client.user_grant_role("ada", "reader").await.unwrap();
        client.user_grant_role("ada", "reader").await.unwrap();
        assert_eq!(client.user_get("ada").await.unwrap().roles(), ["reader", "writer"], "each once, in order");
        client.user_revoke_role("ada", "writer").await.unwrap();
        let text = failed("etcdserver: role is not granted to the user");
        assert_eq!(refusal(client.user_revoke_role("ada", "writer").await), text);
        client.role_delete("reader").await.unwrap();
        assert_eq!(client.user_get("ada").await.unwrap().roles(), [""; 0], "with the role");
        let missing = failed("etcdserver: role name not found");
        assert_eq!(refusal(client.role_delete("reader").await), missing);
        assert_eq!(refusal(client.role_get("reader").await), missing);
        assert_eq!(refusal(client.user_grant_role("ada", "reader").await), missing);
        client.user_grant_role("ada", "root").await.unwrap();
    }

    async fn a_role_has_one_permission_for_each_key_or_range(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.role_add("r").await.unwrap();
        client.role_grant_permission("r", Permission::read("k/").with_prefix()).await.unwrap();
        client.role_grant_permission("r", Permission::read("a")).await.unwrap();
        client.role_grant_permission("r", Permission::read_write("k/").with_prefix()).await.unwrap();
        let granted = client.role_get("r").await.unwrap().permissions();
        let told: Vec<_> = granted.iter().map(|p| (p.key(), p.range_end(), p.get_type())).collect();
        let expected: [(&[u8], &[u8], i32); 2] = [
            (b"a", b"", PermissionType::Read.into()),
            (b"k/", b"k0", PermissionType::Readwrite.into()),
        ];
        assert_eq!(told, expected, "in order, the newer in place of the older");
        let whole = || Some(RoleRevokePermissionOptions::new().with_prefix());
        client.role_revoke_permission("r", "k/", whole()).await.unwrap();
        let text = failed("etcdserver: permission is not granted to the role");
        assert_eq!(refusal(client.role_revoke_permission("r", "k/", whole()).await), text);
        assert_eq!(refusal(client.role_revoke_permission("r", "b", None).await), text);
        let missing = failed("etcdserver: role name not found");
        assert_eq!(refusal(client.role_grant_permission("none", Permission::read("a")).await), missing);
        assert_eq!(refusal(client.role_revoke_permission("none", "a", None).await), missing);
    }

    async fn it_is_enabled_only_with_a_root_who_is_root(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        assert_eq!(refusal(client.auth_enable().await), failed("etcdserver: root user does not exist"));
        client.user_add("root", "secret", None).await.unwrap();
        let text = "etcdserver: root user does not have root role";
        assert_eq!(refusal(client.auth_enable().await), failed(text));
        client.user_grant_role("root", "root").await.unwrap();
        client.auth_enable().await.unwrap();

        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        root.auth_enable().await.unwrap();
        let mgmt = refused(Code::InvalidArgument, "etcdserver: invalid auth management");
        assert_eq!(refusal(root.user_delete("root").await), mgmt);
        assert_eq!(refusal(root.user_revoke_role("root", "root").await), mgmt);
        assert_eq!(refusal(root.role_delete("root").await), mgmt);
        root.auth_disable().await.unwrap();
        client.put("k", "v", None).await.unwrap();
        client.user_delete("root").await.unwrap();
    }

    async fn who_has_no_token_is_told_that_the_user_name_is_empty(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, "k", "v").await;
        enable_auth(&mut client).await;
        let empty = refused(Code::InvalidArgument, "etcdserver: user name is empty");
        assert_eq!(refusal(client.get("k", None).await), empty);
        assert_eq!(refusal(client.put("k", "v", None).await), empty);
        assert_eq!(refusal(client.delete("k", None).await), empty);
        assert_eq!(refusal(client.txn(Txn::new().and_then([TxnOp::get("k", None)])).await), empty);
        if !predates_checks(&etcd) {
            assert_eq!(refusal(client.compact(1, None).await), empty, "older ones let anybody compact");
            assert_eq!(refusal(client.member_list().await), empty, "and list members");
        }
        assert_eq!(refusal(client.user_list().await), empty);
        assert_eq!(refusal(client.auth_disable().await), empty);
        // Its form is looked at before its sender.
        let keyless = refused(Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(refusal(client.get("", None).await), keyless);
    }

    async fn a_wrong_password_and_an_unknown_user_are_told_alike(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.user_add("certified", "", Some(etcd_client::UserAddOptions::new().with_no_pwd())).await.unwrap();
        enable_auth(&mut client).await;
        let text = refused(Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");
        assert_eq!(refusal(connect(&etcd, "root", "wrong").await), text);
        assert_eq!(refusal(connect(&etcd, "nobody", "secret").await), text);
        let text = "auth: authentication failed, password was given for no password user";
        assert_eq!(refusal(connect(&etcd, "certified", "secret").await), refused(Code::Unknown, text));
    }

    async fn a_key_or_range_may_be_read_or_written_as_granted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[
            Permission::read("r/").with_prefix(),
            Permission::write("w/").with_prefix(),
            Permission::read_write("one"),
        ]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();

        ada.get("r/1", None).await.unwrap();
        ada.get("r/", Some(prefix())).await.unwrap();
        ada.get("r/1", Some(GetOptions::new().with_range("r/2"))).await.unwrap();
        ada.put("w/1", "v", None).await.unwrap();
        ada.delete("w/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
        ada.put("one", "v", Some(PutOptions::new().with_prev_key())).await.unwrap();

        assert_eq!(refusal(ada.get("w/1", None).await), denied());
        assert_eq!(refusal(ada.get("r", Some(prefix())).await), denied(), "more than was granted");
        assert_eq!(refusal(ada.get("r/", Some(GetOptions::new().with_from_key())).await), denied());
        assert_eq!(refusal(ada.get("one", Some(prefix())).await), denied(), "one key is no range");
        assert_eq!(refusal(ada.put("r/1", "v", None).await), denied());
        assert_eq!(refusal(ada.delete("r/1", None).await), denied());
        let previous = PutOptions::new().with_prev_key();
        assert_eq!(refusal(ada.put("w/1", "v", Some(previous)).await), denied(), "that would be reading");
        let previous = DeleteOptions::new().with_prev_key();
        assert_eq!(refusal(ada.delete("w/1", Some(previous)).await), denied());
        // Who may not, may not even ask at a revision that is gone.
        assert_eq!(refusal(ada.get("x", Some(GetOptions::new().with_revision(99))).await), denied());
    }

    async fn permissions_on_ranges_add_up_and_an_open_end_is_all_that_follows(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[
            Permission::read("a").with_range_end("c"),
            Permission::read("c").with_range_end("e"),
            Permission::read("x").with_from_key(),
        ]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let until = |end| Some(GetOptions::new().with_range(end));
        ada.get("a", until("e")).await.unwrap();
        ada.get("b", until("d")).await.unwrap();
        ada.get("x", Some(GetOptions::new().with_from_key())).await.unwrap();
        ada.get("y", until("z")).await.unwrap();
        assert_eq!(refusal(ada.get("a", until("f")).await), denied());
        assert_eq!(refusal(ada.get("w", Some(GetOptions::new().with_from_key())).await), denied());
        assert_eq!(refusal(ada.get("", Some(GetOptions::new().with_all_keys())).await), denied());
    }

    async fn a_transaction_is_denied_whole_for_one_key_out_of_reach(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read_write("mine/").with_prefix()]).await;
        enable_auth(&mut client).await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        let put_op = |key: &str| TxnOp::put(key, "v", None);
        let compare = |key: &str| etcd_client::Compare::version(key, etcd_client::CompareOp::Equal, 0);
        ada.txn(Txn::new().when([compare("mine/1")]).and_then([put_op("mine/1")])).await.unwrap();
        for (what, txn) in [
            ("a compare", Txn::new().when([compare("other")]).and_then([put_op("mine/2")])),
            ("an operation", Txn::new().and_then([put_op("mine/2"), put_op("other")])),
            ("a read", Txn::new().and_then([put_op("mine/2"), TxnOp::get("other", None)])),
            ("the branch not taken", Txn::new().and_then([put_op("mine/2")]).or_else([put_op("other")])),
            ("a nested one", Txn::new().and_then([TxnOp::txn(Txn::new().or_else([put_op("other")]))])),
        ] {
            if what == "a nested one" && predates_checks(&etcd) {
                continue; // Older ones let everybody do everything in a nested transaction.
            }
            assert_eq!(refusal(ada.txn(txn).await), denied(), "{what}");
        }
        assert_eq!(ada.get("mine/2", None).await.unwrap().count(), 0, "nothing of them was done");
    }

    async fn root_may_do_everything_and_others_administer_nothing(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read_write("k")]).await;
        client.role_add("other").await.unwrap();
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        let revision = root.put("anything", "v", None).await.unwrap().take_header().unwrap().revision();
        root.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();

        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        assert_eq!(refusal(ada.user_list().await), denied());
        assert_eq!(refusal(ada.user_add("eve", "secret", None).await), denied());
        assert_eq!(refusal(ada.role_list().await), denied());
        assert_eq!(refusal(ada.auth_disable().await), denied());
        assert_eq!(refusal(ada.user_get("root").await), denied());
        assert_eq!(refusal(ada.role_get("other").await), denied());
        if !predates_checks(&etcd) {
            assert_eq!(refusal(ada.compact(revision, None).await), denied());
        }
        assert_eq!(ada.user_get("ada").await.unwrap().roles(), ["ada"], "of itself it may ask");
        assert_eq!(ada.role_get("ada").await.unwrap().permissions().len(), 1);
        root.compact(revision, None).await.unwrap();
        root.auth_disable().await.unwrap();
        client.user_list().await.unwrap();
    }

    async fn a_change_of_permissions_holds_at_once(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("k")]).await;
        enable_auth(&mut client).await;
        let mut root = connect(&etcd, "root", "secret").await.unwrap();
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        ada.get("k", None).await.unwrap();
        root.role_revoke_permission("ada", "k", None).await.unwrap();
        assert_eq!(refusal(ada.get("k", None).await), denied());
        root.role_grant_permission("ada", Permission::read("k")).await.unwrap();
        ada.get("k", None).await.unwrap();
        root.user_revoke_role("ada", "ada").await.unwrap();
        assert_eq!(refusal(ada.get("k", None).await), denied());
    }

    async fn users_outlive_a_restart(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        add_user(&mut client, "ada", &[Permission::read("k")]).await;
        add_root(&mut client).await;
        client.auth_enable().await.unwrap();
        etcd.kill().await;
        etcd.start().await;
        let mut ada = connect(&etcd, "ada", "secret").await.unwrap();
        ada.get("k", None).await.unwrap();
        assert_eq!(refusal(ada.put("k", "v", None).await), denied());
        if etcd.kind() == Kind::Embedded {
            etcd.wipe().await;
            etcd.start().await;
            etcd.client().await.put("k", "v", None).await.expect("users are data too");
        }
    }

}
