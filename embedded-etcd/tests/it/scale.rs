//! Many watchers, many keys, slow readers.

use std::time::Instant;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{GetOptions, Txn, TxnOp, WatchOptions};

use crate::support::{next, watch};

const WATCHERS: usize = 10_000;
const KEYS: usize = 100_000;
#[tokio::test]
async fn a_put_is_told_to_whom_it_concerns_among_many_watchers_and_keys() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    for first in (0..KEYS).step_by(100) {
        let puts: Vec<TxnOp> =
            (first..first + 100).map(|i| TxnOp::put(format!("k/{i:06}/x"), "v", None)).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let count = client.get("k/", Some(GetOptions::new().with_prefix().with_count_only())).await.unwrap();
    assert_eq!(count.count(), KEYS as i64);

    let prefix = |i: usize| format!("k/{i:06}/");
    let mut stream = watch(&mut client, &prefix(0), WatchOptions::new().with_prefix()).await;
    for i in 1..WATCHERS {
        stream.watch(prefix(i), Some(WatchOptions::new().with_prefix())).await.unwrap();
        assert!(next(&mut stream).await.created());
    }
    assert_eq!(etcd.hooks().watch_count(), WATCHERS);

    let begun = Instant::now();
    for i in 0..1000 {
        let watched = i * 7 % WATCHERS;
        client.put(format!("k/{watched:06}/x"), "w", None).await.unwrap();
        let told = next(&mut stream).await;
        assert_eq!((told.watch_id(), told.events().len()), (watched as i64, 1), "only whom it concerns");
    }
    println!("1,000 puts, each told to 1 of {WATCHERS} watchers: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reader_too_slow_for_a_compaction_is_cancelled_without_a_gap() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    let first = etcd.hooks().revision() + 1;
    // More than the windows of a connection and the answers that are prepared ahead can hold.
    for _ in 0..100 {
        client.put("k", vec![b'v'; 1_000_000], None).await.unwrap();
    }
    let compacted = etcd.hooks().compact_now();
    let mut expected = first;
    loop {
        let answer = next(&mut stream).await;
        for event in answer.events() {
            assert_eq!(event.kv().unwrap().mod_revision(), expected);
            expected += 1;
        }
        if answer.canceled() {
            assert_eq!(answer.compact_revision(), compacted);
            break;
        }
    }
    assert!(expected < compacted, "it heard of all before the compaction could harm it");
}
