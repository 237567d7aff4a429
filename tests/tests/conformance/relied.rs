//! What our code does in several steps: each step is a rule of another file, here they are taken as we take them.

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp,
    TxnOpResponse, WatchOptions,
};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{events, keys, next, put, refusal, told};

/// The catalog's next page: behind the last key, up to the end of the prefix, at the first page's revision.
async fn page(
    client: &mut Client,
    from: &str,
    at: i64,
) -> Result<etcd_client::GetResponse, etcd_client::Error> {
    let options = GetOptions::new().with_range("k0").with_limit(2).with_revision(at);
    client.get(from, Some(options)).await
}

/// The registrar's transaction: both keys as they were read, one put and the other deleted, else both are read.
fn move_to(there: &str, there_was: i64, here: &str, here_was: i64, lease: i64) -> Txn {
    let as_read = |key, revision| Compare::mod_revision(key, CompareOp::Equal, revision);
    Txn::new()
        .when([as_read(there, there_was), as_read(here, here_was)])
        .and_then([
            TxnOp::put(there, "moved", Some(PutOptions::new().with_lease(lease))),
            TxnOp::delete(here, None),
        ])
        .or_else([TxnOp::get(there, None), TxnOp::get(here, None)])
}

laws! {
    async fn pages_at_one_revision_are_its_state_until_it_is_compacted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        for key in ["k/1", "k/2", "k/3", "k/4", "k/5"] {
            put(&mut client, key, "v").await;
        }
        let first = page(&mut client, "k/", 0).await.unwrap();
        let at = first.header().unwrap().revision();
        assert_eq!((keys(first.kvs()), first.more()), (vec!["k/1", "k/2"], true));
        client.delete("k/3", None).await.unwrap();
        let last = put(&mut client, "k/6", "v").await;
        let second = page(&mut client, "k/2\0", at).await.unwrap();
        assert_eq!((keys(second.kvs()), second.more()), (vec!["k/3", "k/4"], true), "as it was");
        client.compact(last, None).await.unwrap();
        let third = page(&mut client, "k/4\0", at).await;
        assert_eq!(refusal(third).0, Code::OutOfRange);
    }

    async fn a_record_moves_between_two_keys_in_one_revision_and_not_over_others(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let chosen = Some(LeaseGrantOptions::new().with_id(77));
        let lease = client.lease_grant(60, chosen).await.unwrap().id();
        let on = Some(PutOptions::new().with_lease(lease));
        let here = client.put("s/1", "v", on).await.unwrap().header().unwrap().revision();
        let mut stream = client.watch("s/", Some(WatchOptions::new().with_prefix().with_watch_id(1))).await.unwrap();
        next(&mut stream).await;
        stream.watch("d/", Some(WatchOptions::new().with_prefix().with_watch_id(2))).await.unwrap();
        next(&mut stream).await;

        let moved = client.txn(move_to("d/1", 0, "s/1", here, lease)).await.unwrap();
        assert!(moved.succeeded());
        let revision = moved.header().unwrap().revision();
        let mut both = [next(&mut stream).await, next(&mut stream).await];
        both.sort_by_key(|answer| answer.watch_id());
        assert_eq!(both.each_ref().map(|answer| told(answer.events())), [vec!["DELETE s/1"], vec!["PUT d/1=moved"]]);
        assert!(both.iter().flat_map(|answer| answer.events()).all(|e| e.kv().unwrap().mod_revision() == revision));

        // Somebody else was there: nothing is done, and what is there is told.
        let refused = client.txn(move_to("s/1", 0, "d/1", here, lease)).await.unwrap();
        assert!(!refused.succeeded());
        let [TxnOpResponse::Get(there), TxnOpResponse::Get(here)] = &refused.op_responses()[..] else {
            panic!("both keys, not {refused:?}")
        };
        assert_eq!((there.count(), here.kvs()[0].mod_revision()), (0, revision));
    }

    async fn the_anchor_is_readable_at_its_revision_even_if_that_is_compacted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let applied = put(&mut client, "k/1", "v").await;
        put(&mut client, "other", "v").await;
        let anchor = |key: &str, at| {
            let options = GetOptions::new().with_revision(at).with_keys_only().with_limit(1);
            let (mut client, key) = (client.clone(), key.to_owned());
            async move { client.get(key, Some(options)).await }
        };
        client.clone().compact(applied, None).await.unwrap();
        let found = anchor("k/1", applied).await.unwrap();
        assert_eq!((found.kvs()[0].create_revision(), found.kvs()[0].mod_revision()), (applied, applied));
        assert_eq!(refusal(anchor("k/1", applied - 1).await).0, Code::OutOfRange);
        assert_eq!(refusal(anchor("k/1", applied + 9).await).0, Code::OutOfRange, "one that was restored is behind");
    }

    async fn a_watch_that_resumes_behind_a_kill_has_no_gap_and_no_double(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = client.watch("k", None).await.unwrap();
        next(&mut stream).await;
        put(&mut client, "k", "1").await;
        let applied = events(&mut stream, 1).await[0].kv().unwrap().mod_revision();
        put(&mut client, "k", "2").await;
        etcd.kill().await;
        etcd.start().await;
        let mut client = etcd.client().await;
        put(&mut client, "k", "3").await;
        let behind = WatchOptions::new().with_start_revision(applied + 1).with_watch_id(9).with_fragment();
        let mut stream = client.watch("k", Some(behind)).await.unwrap();
        assert_eq!(next(&mut stream).await.watch_id(), 9);
        assert_eq!(told(&events(&mut stream, 2).await), ["PUT k=2", "PUT k=3"]);
    }

    /// Each of our calls and streams demands a leader.
    async fn where_there_is_a_leader_to_demand_one_changes_nothing(etcd: TestEtcd) {
        let options = ConnectOptions::new().with_require_leader(true);
        let mut client = Client::connect([etcd.url()], Some(options)).await.unwrap();
        put(&mut client, "k", "v").await;
        let lease = client.lease_grant(60, None).await.unwrap().id();
        client.lease_keep_alive(lease).await.unwrap();
        let mut stream = client.watch("k", None).await.unwrap();
        next(&mut stream).await;
        put(&mut client, "k", "w").await;
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT k=w"]);
    }
}
