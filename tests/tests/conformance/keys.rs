//! Writes: revisions and versions, previous values, what is kept, what is refused; compaction.

use etcd_client::{DeleteOptions, GetOptions, PutOptions};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{pairs, put, refusal, refused};

laws! {
    async fn each_write_is_one_revision_and_a_key_counts_its_versions(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let empty = client.get("k", None).await.unwrap().header().unwrap().revision();
        assert_eq!(empty, 1, "an etcd that nothing was written to");
        let first = put(&mut client, "k", "1").await;
        assert_eq!(first, 2);
        let second = put(&mut client, "k", "1").await;
        assert_eq!(second, 3, "an unchanged value is a write too");
        let kv = client.get("k", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()), (first, second, 2, 0));

        client.delete("k", None).await.unwrap();
        let again = put(&mut client, "k", "1").await;
        assert_eq!(again, 5);
        let kv = client.get("k", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.create_revision(), kv.version()), (again, 1), "created anew");
    }

    async fn previous_values_are_told_to_those_who_ask(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let ask = || Some(PutOptions::new().with_prev_key());
        assert!(client.put("k/1", "1", ask()).await.unwrap().prev_key().is_none(), "there was none");
        let answer = client.put("k/1", "2", ask()).await.unwrap();
        assert_eq!(answer.prev_key().unwrap().value(), b"1");
        assert!(client.put("k/1", "3", None).await.unwrap().prev_key().is_none(), "not asked for");

        put(&mut client, "k/2", "4").await;
        let all = DeleteOptions::new().with_prefix().with_prev_key();
        let answer = client.delete("k/", Some(all)).await.unwrap();
        let before = [("k/1".into(), "3".into()), ("k/2".into(), "4".into())];
        assert_eq!((answer.deleted(), pairs(answer.prev_kvs())), (2, before.to_vec()));
    }

    async fn a_delete_of_many_keys_is_one_revision_and_of_none_is_none(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, "k/1", "").await;
        let before = put(&mut client, "k/2", "").await;
        let both = client.delete("k/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
        assert_eq!((both.deleted(), both.header().unwrap().revision()), (2, before + 1));
        let none = client.delete("k/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
        assert_eq!((none.deleted(), none.header().unwrap().revision()), (0, before + 1));
    }

    async fn ignore_value_and_ignore_lease_keep_what_is_there(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = client.lease_grant(60, None).await.unwrap().id();
        let keep_value = || PutOptions::new().with_ignore_value();
        let keep_lease = || PutOptions::new().with_ignore_lease();

        let missing = refused(Code::InvalidArgument, "etcdserver: key not found");
        assert_eq!(refusal(client.put("k", "", Some(keep_value())).await), missing);
        assert_eq!(refusal(client.put("k", "1", Some(keep_lease())).await), missing);
        let unknown = refused(Code::NotFound, "etcdserver: requested lease not found");
        assert_eq!(refusal(client.put("k", "", Some(keep_value().with_lease(4711))).await), unknown, "the lease first");

        client.put("k", "1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        client.put("k", "2", Some(keep_lease())).await.unwrap();
        let kv = client.get("k", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.value(), kv.lease()), (&b"2"[..], lease), "a new value on the old lease");
        client.put("k", "", Some(keep_value())).await.unwrap();
        let kv = client.get("k", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.value(), kv.lease()), (&b"2"[..], 0), "the old value on no lease");

        let given = client.put("k", "3", Some(keep_value())).await;
        assert_eq!(refusal(given), refused(Code::InvalidArgument, "etcdserver: value is provided"));
        let given = client.put("k", "3", Some(keep_lease().with_lease(lease))).await;
        assert_eq!(refusal(given), refused(Code::InvalidArgument, "etcdserver: lease is provided"));
    }

    async fn writes_without_a_key_are_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let text = refused(Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(refusal(client.put("", "v", None).await), text);
        assert_eq!(refusal(client.delete("", None).await), text);
    }

    async fn a_put_on_an_unknown_lease_is_refused(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let answer = client.put("k", "v", Some(PutOptions::new().with_lease(4711))).await;
        assert_eq!(refusal(answer), refused(Code::NotFound, "etcdserver: requested lease not found"));
        assert_eq!(client.get("k", None).await.unwrap().count(), 0);
    }

    async fn compaction_goes_forward_and_not_beyond_the_present(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, "gone", "").await;
        client.delete("gone", None).await.unwrap();
        put(&mut client, "k", "1").await;
        let last = put(&mut client, "k", "2").await;
        let header = client.compact(last, None).await.unwrap().take_header().unwrap();
        assert_eq!(header.revision(), last, "no revision of its own");
        let compacted = refused(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(refusal(client.compact(last, None).await), compacted, "the same again");
        assert_eq!(refusal(client.compact(1, None).await), compacted, "an earlier one");
        let future = refused(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        assert_eq!(refusal(client.compact(last + 1, None).await), future);
        let left = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
        assert_eq!(pairs(left.kvs()), [("k".into(), "2".into())], "the present is untouched");
    }
}
