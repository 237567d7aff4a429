//! What those who look after an etcd ask of it: figures, hashes, room, alarms.

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, DeleteOptions, PutOptions, Txn, TxnOp};
use svc_tests::etcd::{Kind, Options, TestEtcd, run};
use tonic::Code;

use crate::support::{put, refusal, refused};

async fn alarms(client: &mut Client) -> Vec<(u64, AlarmType)> {
    let answer = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    answer.alarms().iter().map(|alarm| (alarm.member_id(), alarm.alarm())).collect()
}

laws! {
    async fn the_status_counts_what_was_written(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let before = client.status().await.unwrap();
        for i in 0..10 {
            put(&mut client, &format!("k/{i}"), "v").await;
        }
        let after = client.status().await.unwrap();
        assert!(after.raft_index() >= before.raft_index() + 10, "{after:?}");
        assert!(after.raft_applied_index() >= before.raft_applied_index() + 10, "{after:?}");
        assert!(after.db_size() > 0 && after.raft_used_db_size() <= after.db_size(), "{after:?}");
        client.defragment().await.unwrap();
        assert_eq!(client.get("k/0", None).await.unwrap().count(), 1, "nothing is lost by it");
    }

    async fn a_hash_changes_with_what_is_written_and_not_by_itself(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k", "1").await;
        let second = put(&mut client, "k", "2").await;
        let hash = async |revision| etcd.client().await.hash_kv(revision).await.map(|answer| answer.hash());
        let (newest, older) = (hash(0).await.unwrap(), hash(first).await.unwrap());
        assert_eq!((hash(0).await.unwrap(), hash(second).await.unwrap()), (newest, newest));
        assert_ne!(newest, older, "another value");
        put(&mut client, "other", "v").await;
        assert_ne!(hash(0).await.unwrap(), newest);
        assert_eq!(hash(first).await.unwrap(), older, "the past stays");
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(refusal(hash(second + 9).await), refused(Code::OutOfRange, future));
        let last = put(&mut client, "k", "3").await;
        client.compact(last, Some(etcd_client::CompactionOptions::new().with_physical())).await.unwrap();
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(refusal(hash(first).await), refused(Code::OutOfRange, compacted));
        let all = client.hash_kv(0).await.unwrap();
        assert_eq!(all.compact_version(), last);
        client.hash().await.unwrap();
    }

    async fn no_alarm_is_raised_and_one_that_is_can_be_disarmed(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        assert_eq!(alarms(&mut client).await, []);
        let member = client.status().await.unwrap().header().unwrap().member_id();
        let mut of = AlarmOptions::new();
        of.with_member(member);
        client.alarm(AlarmAction::Activate, AlarmType::Nospace, Some(of.clone())).await.unwrap();
        assert_eq!(alarms(&mut client).await, [(member, AlarmType::Nospace)]);
        let full = refused(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert_eq!(refusal(client.put("k", "v", None).await), full);
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.unwrap();
        assert_eq!(alarms(&mut client).await.len(), 1, "no member is named, none is meant");
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of)).await.unwrap();
        assert_eq!(alarms(&mut client).await, []);
        put(&mut client, "k", "v").await;
    }
}

/// A full etcd takes no puts and grants no leases; what is there is read, renewed and deleted.
mod a_full_store_raises_the_alarm_until_room_is_made_and_it_is_disarmed {
    use super::*;

    const KEYS: usize = 1000;

    async fn law(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = client.lease_grant(600, None).await.unwrap().id();
        client.put("leased", "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        let full = refused(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        let mut refusals = Vec::new();
        for i in 0..KEYS {
            if let Err(refused) = client.put(format!("k/{i}"), vec![b'v'; 100_000], None).await {
                refusals.push(refused);
                break;
            }
        }
        assert_eq!(refusal::<()>(Err(refusals.pop().expect("a full etcd"))), full);
        let status = client.status().await.unwrap();
        let member = status.header().unwrap().member_id();
        assert_eq!(alarms(&mut client).await, [(member, AlarmType::Nospace)]);
        assert_eq!(status.errors().len(), 1, "{status:?}");

        assert_eq!(refusal(client.put("small", "v", None).await), full, "not even a small one");
        assert_eq!(refusal(client.lease_grant(60, None).await), full);
        let txn = Txn::new().or_else([TxnOp::put("small", "v", None)]);
        assert_eq!(refusal(client.txn(txn).await), full, "it might put something");
        if etcd.kind() != Kind::Etcd351 {
            // That one refuses those that read, too.
            client.txn(Txn::new().and_then([TxnOp::get("k/0", None)])).await.unwrap();
        }
        client.get("k/0", None).await.unwrap();
        client.lease_keep_alive(lease).await.unwrap();
        let all = DeleteOptions::new().with_prefix();
        let gone = client.delete("k/", Some(all)).await.unwrap();
        client.lease_revoke(lease).await.unwrap();

        // Room is made, and the alarm stays all the same.
        let last = gone.header().unwrap().revision();
        client.compact(last, Some(etcd_client::CompactionOptions::new().with_physical())).await.unwrap();
        client.defragment().await.unwrap();
        assert_eq!(refusal(client.put("small", "v", None).await), full);
        let mut of = AlarmOptions::new();
        of.with_member(member);
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of)).await.unwrap();
        put(&mut client, "small", "v").await;
    }

    fn small() -> Options {
        Options { quota_bytes: Some(1024 * 1024), ..Options::default() }
    }

    #[test]
    fn embedded() {
        run(Kind::Embedded, &small(), law);
    }

    #[test]
    fn etcd_3_4() {
        run(Kind::Etcd34, &small(), law);
    }

    #[test]
    fn etcd_3_5() {
        run(Kind::Etcd35, &small(), law);
    }

    #[test]
    fn etcd_3_5_1() {
        run(Kind::Etcd351, &small(), law);
    }
}
