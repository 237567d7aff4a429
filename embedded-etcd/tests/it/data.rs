//! A data folder: what an etcd was told outlives it.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{Client, ConnectOptions, GetOptions, WatchOptions};
use tonic::Code;

use crate::support::{exists, heard, put_leased, refusal, watch};

async fn open(folder: &tempfile::TempDir) -> (EmbeddedEtcd, Client) {
    let etcd = EmbeddedEtcd::builder().open(folder.path()).await.unwrap();
    let client = etcd.client().await.unwrap();
    (etcd, client)
}

#[tokio::test(start_paused = true)]
async fn keys_their_past_leases_and_who_it_is_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (etcd, mut client) = open(&folder).await;
    let first = client.put("k", "1", None).await.unwrap().take_header().unwrap();
    client.put("k", "2", None).await.unwrap();
    let lease = put_leased(&mut client, "leased", 10).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    drop(etcd);

    let (etcd, mut client) = open(&folder).await;
    let newest = client.get("k", None).await.unwrap();
    let header = newest.header().unwrap();
    assert_eq!((newest.kvs()[0].value(), newest.kvs()[0].version()), (&b"2"[..], 2));
    assert_eq!((header.cluster_id(), header.member_id()), (first.cluster_id(), first.member_id()));
    assert_eq!(header.raft_term(), first.raft_term() + 1);
    let past = client.get("k", Some(GetOptions::new().with_revision(first.revision()))).await.unwrap();
    assert_eq!(past.kvs()[0].value(), b"1");
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(first.revision())).await;
    assert_eq!(heard(&mut stream).await, ["1", "2"]);
    // With its full TTL again, as after a change of the leader.
    let left = client.lease_time_to_live(lease, None).await.unwrap();
    assert_eq!((left.granted_ttl(), left.ttl()), (10, 10));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!exists(&mut client, "leased").await);
    drop(etcd);

    let (_etcd, mut client) = open(&folder).await;
    assert!(!exists(&mut client, "leased").await, "its end was written too");
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn users_are_kept_and_tokens_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (etcd, mut client) = open(&folder).await;
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    drop(etcd);
    let (etcd, mut client) = open(&folder).await;
    assert_eq!(refusal(client.get("k", None).await).0, Code::InvalidArgument, "a user is asked for");
    let options = ConnectOptions::new().with_user("root", "secret");
    let channel = etcd_client::Channel::Tonic(etcd.channel());
    let mut root = Client::from_channel(channel, Some(options)).await.unwrap();
    root.get("k", None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wipe_is_kept_and_a_defragmentation_makes_the_file_small() {
    let folder = tempfile::tempdir().unwrap();
    let length = || std::fs::metadata(folder.path().join("journal")).unwrap().len();
    let (etcd, mut client) = open(&folder).await;
    for _ in 0..100 {
        client.put("k", vec![b'v'; 10_000], None).await.unwrap();
    }
    let (before, newest) = (length(), etcd.hooks().revision());
    assert!(before > 1_000_000, "{before}");
    client.compact(newest, None).await.unwrap();
    client.defragment().await.unwrap();
    assert!(length() < 30_000, "{}", length());
    client.put("k", "last", None).await.unwrap();
    drop(etcd);

    let (etcd, mut client) = open(&folder).await;
    let gone = client.get("k", Some(GetOptions::new().with_revision(newest - 1))).await;
    assert_eq!(refusal(gone).0, Code::OutOfRange, "a compaction is kept");
    assert_eq!(client.get("k", None).await.unwrap().kvs()[0].value(), b"last");
    etcd.wipe().await;
    drop(etcd);
    let (etcd, mut client) = open(&folder).await;
    assert!(!exists(&mut client, "k").await);
    assert_eq!(etcd.hooks().revision(), 1);
}
