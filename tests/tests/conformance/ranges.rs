//! Reads: which keys, at which revision, in which order, how many.

use etcd_client::{Client, CompactionOptions, GetOptions, SortOrder, SortTarget};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{keys, put, read, refusal, refused};

async fn fill(client: &mut Client, keys: &[&str]) {
    for key in keys {
        put(client, key, &format!("v-{key}")).await;
    }
}

async fn found(client: &mut Client, key: &str, options: GetOptions) -> Vec<String> {
    let answer = client.get(key, Some(options)).await.unwrap();
    keys(answer.kvs()).into_iter().map(str::to_owned).collect()
}

laws! {
    async fn a_range_is_a_key_an_interval_a_prefix_or_all(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        fill(&mut client, &["a", "a/1", "a/2", "a0", "b"]).await;
        let get = GetOptions::new;
        assert_eq!(found(&mut client, "a", get()).await, ["a"]);
        assert_eq!(found(&mut client, "a/", get().with_prefix()).await, ["a/1", "a/2"]);
        assert_eq!(found(&mut client, "a/2", get().with_range("b")).await, ["a/2", "a0"]);
        assert_eq!(found(&mut client, "a0", get().with_from_key()).await, ["a0", "b"]);
        assert_eq!(found(&mut client, "", get().with_all_keys()).await, ["a", "a/1", "a/2", "a0", "b"]);
        assert_eq!(found(&mut client, "b", get().with_range("a")).await, [""; 0], "an interval that ends before it begins");
        assert_eq!(found(&mut client, "a", get().with_serializable()).await, ["a"]);
    }

    async fn a_range_without_a_key_is_refused(etcd: TestEtcd) {
        let answer = etcd.client().await.get("", None).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, "etcdserver: key is not provided"));
    }

    async fn a_limit_tells_that_there_is_more_and_the_count_is_of_all(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        fill(&mut client, &["k/1", "k/2", "k/3"]).await;
        for (limit, more) in [(2, true), (3, false), (0, false)] {
            let options = GetOptions::new().with_prefix().with_limit(limit);
            let answer = client.get("k/", Some(options)).await.unwrap();
            assert_eq!(answer.kvs().len() as i64, if limit == 0 { 3 } else { limit });
            assert_eq!((answer.more(), answer.count()), (more, 3), "limit {limit}");
        }
    }

    async fn count_only_and_keys_only_leave_out_the_rest(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        fill(&mut client, &["k/1", "k/2"]).await;
        let count = client.get("k/", Some(GetOptions::new().with_prefix().with_count_only())).await.unwrap();
        assert_eq!((count.kvs().len(), count.count(), count.more()), (0, 2, false));
        let names = client.get("k/", Some(GetOptions::new().with_prefix().with_keys_only())).await.unwrap();
        assert_eq!(keys(names.kvs()), ["k/1", "k/2"]);
        assert!(names.kvs().iter().all(|kv| kv.value().is_empty() && kv.mod_revision() > 0));
    }

    async fn keys_are_counted_as_of_a_revision(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        fill(&mut client, &["k/1", "k/2"]).await;
        let two = put(&mut client, "other", "").await;
        client.delete("k/1", None).await.unwrap();
        let count = |revision| {
            GetOptions::new().with_prefix().with_count_only().with_serializable().with_revision(revision)
        };
        for (revision, expected) in [(two, 2), (two + 1, 1), (0, 1)] {
            assert_eq!(client.get("k/", Some(count(revision))).await.unwrap().count(), expected, "at {revision}");
        }
        client.compact(two + 1, None).await.unwrap();
        assert_eq!(refusal(client.get("k/", Some(count(two))).await).0, Code::OutOfRange);
    }

    async fn keys_are_sorted_by_each_target_in_either_order(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, "k/b", "2").await;
        put(&mut client, "k/a", "3").await;
        put(&mut client, "k/c", "1").await;
        put(&mut client, "k/b", "2").await;
        let cases = [
            (SortTarget::Key, ["k/a", "k/b", "k/c"]),
            (SortTarget::Version, ["k/a", "k/c", "k/b"]),
            (SortTarget::Create, ["k/b", "k/a", "k/c"]),
            (SortTarget::Mod, ["k/a", "k/c", "k/b"]),
            (SortTarget::Value, ["k/c", "k/b", "k/a"]),
        ];
        for (target, ascending) in cases {
            let sorted = |order| GetOptions::new().with_prefix().with_sort(target, order);
            assert_eq!(found(&mut client, "k/", sorted(SortOrder::Ascend)).await, ascending, "{target:?}");
            if target != SortTarget::Version {
                let mut descending = ascending;
                descending.reverse();
                assert_eq!(found(&mut client, "k/", sorted(SortOrder::Descend)).await, descending, "{target:?}");
            }
            let first = sorted(SortOrder::Ascend).with_limit(1);
            assert_eq!(found(&mut client, "k/", first).await, ascending[..1], "the limit applies after sorting");
        }
    }

    async fn revision_filters_leave_out_keys_but_not_from_the_count(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k/1", "").await;
        let second = put(&mut client, "k/2", "").await;
        let third = put(&mut client, "k/1", "").await;
        let all = || GetOptions::new().with_prefix();
        assert_eq!(found(&mut client, "k/", all().with_min_mod_revision(third)).await, ["k/1"]);
        assert_eq!(found(&mut client, "k/", all().with_max_mod_revision(second)).await, ["k/2"]);
        assert_eq!(found(&mut client, "k/", all().with_min_create_revision(second)).await, ["k/2"]);
        assert_eq!(found(&mut client, "k/", all().with_max_create_revision(first)).await, ["k/1"]);
        let answer = client.get("k/", Some(all().with_min_mod_revision(third))).await.unwrap();
        assert_eq!((answer.count(), answer.more()), (2, false));
    }

    async fn the_past_is_read_at_its_revision_until_it_is_compacted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k", "1").await;
        let second = put(&mut client, "k", "2").await;
        let gone = client.delete("k", None).await.unwrap().header().unwrap().revision();
        let last = put(&mut client, "k", "4").await;
        let at = |revision| GetOptions::new().with_revision(revision);
        for (revision, value) in [(first, Some("1")), (second, Some("2")), (gone, None), (last, Some("4"))] {
            let answer = client.get("k", Some(at(revision))).await.unwrap();
            assert_eq!(answer.kvs().first().map(|kv| kv.value_str().unwrap()), value, "at {revision}");
            assert_eq!(answer.header().unwrap().revision(), last, "the header tells the newest revision");
        }
        let future = client.get("k", Some(at(last + 1))).await;
        let text = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(refusal(future), refused(Code::OutOfRange, text));

        client.compact(second, Some(CompactionOptions::new().with_physical())).await.unwrap();
        assert_eq!(read(&mut client, "k", at(second)).await, [("k".into(), "2".into())], "itself stays readable");
        let compacted = client.get("k", Some(at(first))).await;
        let text = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(refusal(compacted), refused(Code::OutOfRange, text));
    }
}
