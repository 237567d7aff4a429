//! The etcds of the tests themselves: killed, started, wiped and frozen alike.

use std::time::Duration;

use svc_tests::etcd::TestEtcd;

laws! {
    async fn data_outlive_a_kill_but_not_a_wipe(etcd: TestEtcd) {
        let first = etcd.client().await.put("k", "v", None).await.unwrap();
        let cluster = first.header().unwrap().cluster_id();

        etcd.kill().await;
        etcd.start().await;
        let kept = etcd.client().await.get("k", None).await.unwrap();
        assert_eq!(kept.kvs().len(), 1, "kept over a kill");
        assert_eq!(kept.header().unwrap().cluster_id(), cluster);

        etcd.wipe().await;
        etcd.start().await;
        let wiped = etcd.client().await.get("k", None).await.unwrap();
        assert_eq!(wiped.kvs().len(), 0, "gone with a wipe");
        assert_eq!(wiped.header().unwrap().cluster_id(), cluster, "the same identity");

        etcd.wipe_to_another_cluster().await;
        etcd.start().await;
        let other = etcd.client().await.get("k", None).await.unwrap();
        assert_ne!(other.header().unwrap().cluster_id(), cluster, "another identity");
    }

    async fn frozen_it_is_silent_and_thawed_it_answers(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        etcd.freeze();
        let mut asking = std::pin::pin!(client.get("k", None));
        tokio::time::timeout(Duration::from_millis(300), &mut asking).await.expect_err("an answer while frozen");
        etcd.thaw();
        asking.await.unwrap();
    }
}
