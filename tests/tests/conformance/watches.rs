//! Watches: what is told, from when on, in which order, to whom.

use std::time::Duration;

use etcd_client::{Client, DeleteOptions, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream};
use svc_tests::etcd::{Kind, Options, TestEtcd, run};

use crate::support::{events, next, put, told};

fn prefix() -> WatchOptions {
    WatchOptions::new().with_prefix()
}

/// A watch that etcd has said to be there.
async fn watch(client: &mut Client, key: &str, options: WatchOptions) -> WatchStream {
    let mut stream = client.watch(key, Some(options)).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created() && !created.canceled() && created.events().is_empty(), "{created:?}");
    stream
}

/// Adds a watch to a stream; gives its id.
async fn also(stream: &mut WatchStream, key: &str, options: WatchOptions) -> i64 {
    stream.watch(key, Some(options)).await.unwrap();
    let created = next(stream).await;
    assert!(created.created() && !created.canceled(), "{created:?}");
    created.watch_id()
}

laws! {
    async fn changes_are_told_in_order_with_their_revisions(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = client.watch("k/", Some(prefix())).await.unwrap();
        let created = next(&mut stream).await;
        assert_eq!((created.watch_id(), created.created(), created.canceled()), (0, true, false));
        let header = created.header().unwrap();
        assert_eq!(header.revision(), 1, "the revision that it begins after");
        assert!(header.cluster_id() != 0 && header.member_id() != 0 && header.raft_term() != 0);

        put(&mut client, "k/1", "a").await;
        put(&mut client, "other", "a").await;
        put(&mut client, "k/1", "b").await;
        let last = client.delete("k/1", None).await.unwrap().header().unwrap().revision();
        let heard = events(&mut stream, 3).await;
        assert_eq!(told(&heard), ["PUT k/1=a", "PUT k/1=b", "DELETE k/1"]);
        let revisions: Vec<i64> = heard.iter().map(|event| event.kv().unwrap().mod_revision()).collect();
        assert_eq!(revisions, [2, 4, last]);
        let gone = heard[2].kv().unwrap();
        assert_eq!((gone.create_revision(), gone.version(), gone.lease()), (0, 0, 0), "only key and revision");
        assert!(heard.iter().all(|event| event.prev_kv().is_none()), "not asked for");
    }

    async fn an_answer_tells_the_revision_that_it_covers(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
        let revision = put(&mut client, "k", "v").await;
        assert_eq!(next(&mut stream).await.header().unwrap().revision(), revision);
    }

    async fn the_value_before_is_told_unless_it_is_compacted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k", "1").await;
        put(&mut client, "k", "2").await;
        let deleted = client.delete("k", None).await.unwrap().header().unwrap().revision();
        put(&mut client, "k", "3").await;
        let past = |from| WatchOptions::new().with_prev_key().with_start_revision(from);
        let mut stream = watch(&mut client, "k", past(first)).await;
        let before: Vec<Option<String>> = events(&mut stream, 4)
            .await
            .iter()
            .map(|event| event.prev_kv().map(|kv| kv.value_str().unwrap().to_owned()))
            .collect();
        assert_eq!(before, [None, Some("1".into()), Some("2".into()), None], "what was created had none");

        put(&mut client, "k", "4").await;
        client.compact(deleted + 2, None).await.unwrap();
        let mut stream = watch(&mut client, "k", past(deleted + 2)).await;
        let heard = events(&mut stream, 1).await;
        assert_eq!(told(&heard), ["PUT k=4"], "the compacted revision itself can be watched from");
        assert!(heard[0].prev_kv().is_none(), "the revision before is compacted");
    }

    async fn a_watch_in_the_past_catches_up_without_gap_or_double(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut expected = Vec::new();
        let first = put(&mut client, "k/0", "v").await;
        for i in 1..=50 {
            put(&mut client, &format!("k/{i}"), "v").await;
            expected.push(format!("PUT k/{i}=v"));
        }
        let mut stream = watch(&mut client, "k/", prefix().with_start_revision(first + 1)).await;
        for i in 51..=100 {
            put(&mut client, &format!("k/{i}"), "v").await;
            expected.push(format!("PUT k/{i}=v"));
        }
        assert_eq!(told(&events(&mut stream, 100).await), expected);
    }

    async fn a_watch_in_the_future_is_silent_until_then(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let now = put(&mut client, "k", "0").await;
        let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(now + 3)).await;
        for value in ["1", "2", "3", "4"] {
            put(&mut client, "k", value).await;
        }
        assert_eq!(told(&events(&mut stream, 2).await), ["PUT k=3", "PUT k=4"]);
    }

    async fn a_range_is_watched_as_it_is_read(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let all = [
            ("b", WatchOptions::new(), 1),
            ("b", prefix(), 2),
            ("b", WatchOptions::new().with_range("c"), 2),
            ("b", WatchOptions::new().with_from_key(), 3),
            ("", WatchOptions::new().with_all_keys(), 4),
        ];
        for key in ["a", "b", "b/1", "c"] {
            put(&mut client, key, "").await;
        }
        for (key, options, count) in all {
            let mut stream = watch(&mut client, key, options.clone().with_start_revision(2)).await;
            assert_eq!(events(&mut stream, count).await.len(), count, "{options:?}");
        }
    }

    async fn a_transaction_is_told_in_one_answer(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "k/", prefix()).await;
        let puts: Vec<TxnOp> = (0..100).map(|i| TxnOp::put(format!("k/{i:02}"), "v", None)).collect();
        let revision = client.txn(Txn::new().and_then(puts)).await.unwrap().header().unwrap().revision();
        let answer = next(&mut stream).await;
        assert_eq!(answer.events().len(), 100);
        assert!(answer.events().iter().all(|event| event.kv().unwrap().mod_revision() == revision));
        client.delete("k/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
        assert_eq!(next(&mut stream).await.events().len(), 100);
    }

    async fn filters_leave_out_puts_or_deletes(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let filtered = |filter| WatchOptions::new().with_filters([filter]);
        let mut deletes = watch(&mut client, "k", filtered(WatchFilterType::NoPut)).await;
        let mut puts = watch(&mut client, "k", filtered(WatchFilterType::NoDelete)).await;
        for value in ["1", "2"] {
            put(&mut client, "k", value).await;
            client.delete("k", None).await.unwrap();
        }
        assert_eq!(told(&events(&mut deletes, 2).await), ["DELETE k", "DELETE k"]);
        assert_eq!(told(&events(&mut puts, 2).await), ["PUT k=1", "PUT k=2"]);
    }

    async fn one_stream_carries_many_watches_with_ids_given_or_chosen(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "a", WatchOptions::new()).await;
        assert_eq!(also(&mut stream, "b", WatchOptions::new().with_watch_id(7)).await, 7);
        assert_eq!(also(&mut stream, "c", WatchOptions::new()).await, 1, "the next unused one");
        for (key, id) in [("a", 0), ("b", 7), ("c", 1)] {
            put(&mut client, key, "v").await;
            let answer = next(&mut stream).await;
            assert_eq!((answer.watch_id(), told(answer.events())), (id, vec![format!("PUT {key}=v")]));
        }
        // Two watches of one key are both told.
        assert_eq!(also(&mut stream, "a", WatchOptions::new()).await, 2);
        put(&mut client, "a", "w").await;
        let mut ids = [next(&mut stream).await.watch_id(), next(&mut stream).await.watch_id()];
        ids.sort_unstable();
        assert_eq!(ids, [0, 2]);
    }

    async fn a_cancelled_watch_says_so_and_is_silent_and_its_siblings_go_on(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "a", WatchOptions::new()).await;
        also(&mut stream, "b", WatchOptions::new()).await;
        stream.cancel(0).await.unwrap();
        let end = next(&mut stream).await;
        assert_eq!((end.watch_id(), end.canceled(), end.created(), end.compact_revision()), (0, true, false, 0));
        put(&mut client, "a", "v").await;
        put(&mut client, "b", "v").await;
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT b=v"]);
        // One that does not exist is passed over in silence.
        stream.cancel(99).await.unwrap();
        assert_eq!(also(&mut stream, "c", WatchOptions::new().with_watch_id(5)).await, 5);
    }

    async fn a_progress_request_is_answered_for_the_whole_stream(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
        let revision = put(&mut client, "other", "v").await;
        stream.request_progress().await.unwrap();
        let progress = next(&mut stream).await;
        assert_eq!(progress.watch_id(), -1);
        assert_eq!(progress.header().unwrap().revision(), revision);
        assert!(progress.events().is_empty() && !progress.created() && !progress.canceled());
    }

    async fn large_answers_are_split_for_those_who_allow_it(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k", &"a".repeat(1_400_000)).await;
        put(&mut client, "k", &"b".repeat(1_400_000)).await;
        let past = || WatchOptions::new().with_start_revision(first);
        let mut whole = watch(&mut client, "k", past()).await;
        assert_eq!(next(&mut whole).await.events().len(), 2, "one answer, however large");
        let mut split = watch(&mut client, "k", past().with_fragment()).await;
        for (value, fragment) in [(b'a', true), (b'b', false)] {
            let part = next(&mut split).await;
            assert_eq!((part.watch_id(), part.0.fragment, part.events().len()), (0, fragment, 1));
            assert_eq!(part.events()[0].kv().unwrap().value()[0], value);
        }
    }

    async fn an_etcd_that_dies_ends_the_stream_with_an_error(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
        etcd.kill().await;
        stream.message().await.expect_err("an error, not an end or silence");
    }
}

/// A watcher that asked for it and hears of nothing else is told at intervals how far it is.
mod a_quiet_watch_is_told_its_progress {
    use super::*;

    async fn law(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = watch(&mut client, "k", WatchOptions::new().with_progress_notify()).await;
        also(&mut stream, "k", WatchOptions::new()).await;
        let revision = put(&mut client, "other", "v").await;
        loop {
            let notice = next(&mut stream).await;
            assert_eq!(notice.watch_id(), 0, "the other one did not ask");
            assert!(notice.events().is_empty(), "{notice:?}");
            if notice.header().unwrap().revision() == revision {
                break;
            }
        }
    }

    fn often() -> Options {
        Options { progress_interval: Duration::from_millis(200), ..Options::default() }
    }

    #[test]
    fn embedded() {
        run(Kind::Embedded, &often(), law);
    }

    #[test]
    fn etcd_3_4() {
        run(Kind::Etcd34, &often(), law);
    }

    #[test]
    fn etcd_3_5() {
        run(Kind::Etcd35, &often(), law);
    }

    #[test]
    fn etcd_3_5_1() {
        run(Kind::Etcd351, &often(), law);
    }
}
