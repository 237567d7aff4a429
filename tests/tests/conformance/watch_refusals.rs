//! Watches that cannot be: the answer is `created` and `canceled` at once, and the stream goes on.

use etcd_client::{WatchOptions, WatchStream};
use svc_tests::etcd::TestEtcd;

use crate::support::{events, next, put, told};

async fn is_refused(stream: &mut WatchStream, key: &str, options: WatchOptions, reason: &str) {
    stream.watch(key, Some(options)).await.unwrap();
    let answer = next(stream).await;
    assert!(answer.created() && answer.canceled(), "both at once: {answer:?}");
    assert_eq!((answer.watch_id(), answer.cancel_reason(), answer.compact_revision()), (-1, reason, 0));
}

laws! {
    async fn an_empty_range_and_a_used_id_are_refused_and_siblings_live_on(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = client.watch("a", Some(WatchOptions::new().with_watch_id(3))).await.unwrap();
        assert_eq!(next(&mut stream).await.watch_id(), 3);
        let empty = "mvcc: watcher range is empty";
        is_refused(&mut stream, "b", WatchOptions::new().with_range("b"), empty).await;
        is_refused(&mut stream, "b", WatchOptions::new().with_range("a"), empty).await;
        let used = "mvcc: duplicate watch ID provided on the WatchStream";
        is_refused(&mut stream, "b", WatchOptions::new().with_watch_id(3), used).await;
        put(&mut client, "a", "v").await;
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT a=v"]);
    }

    async fn a_compacted_start_is_cancelled_with_the_revision_to_start_from(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let first = put(&mut client, "k", "1").await;
        put(&mut client, "k", "2").await;
        let last = put(&mut client, "k", "3").await;
        client.compact(last, None).await.unwrap();
        let mut stream = client.watch("k", Some(WatchOptions::new().with_start_revision(first))).await.unwrap();
        let created = next(&mut stream).await;
        assert!(created.created() && !created.canceled(), "it is created first: {created:?}");
        let end = next(&mut stream).await;
        assert_eq!((end.watch_id(), end.canceled(), end.created()), (0, true, false));
        assert_eq!(end.compact_revision(), last);
        assert_eq!(end.header().unwrap().revision(), 0, "no revision is told");

        // The stream goes on, and from that revision nothing is missed.
        stream.watch("k", Some(WatchOptions::new().with_start_revision(end.compact_revision()))).await.unwrap();
        assert!(next(&mut stream).await.created());
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT k=3"]);
    }

    async fn a_watch_that_is_up_to_date_outlives_a_compaction(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let mut stream = client.watch("quiet", None).await.unwrap();
        next(&mut stream).await;
        let mut last = 0;
        for value in ["1", "2", "3"] {
            last = put(&mut client, "busy", value).await;
        }
        client.compact(last, None).await.unwrap();
        put(&mut client, "quiet", "v").await;
        assert_eq!(told(&events(&mut stream, 1).await), ["PUT quiet=v"]);
    }
}
