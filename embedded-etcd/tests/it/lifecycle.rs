//! Starting, stopping, restarting, wiping; in memory and over TCP; the clock.

use std::io::ErrorKind;
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{Client, Txn, TxnOp, WatchOptions};
use tokio::io::AsyncReadExt;
use tonic::Code;

use crate::support::{exists, heard, put_leased, refusal, watch};

#[tokio::test(start_paused = true)]
async fn under_a_paused_clock_a_lease_runs_out_at_once_and_not_before() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    put_leased(&mut client, "k", 86_400).await;
    tokio::time::sleep(Duration::from_secs(86_399)).await;
    assert!(exists(&mut client, "k").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!exists(&mut client, "k").await);
}

#[tokio::test(start_paused = true)]
async fn a_progress_interval_of_nothing_or_for_ever_harms_no_watch() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let etcd = EmbeddedEtcd::builder().progress_interval(interval).start().await;
        let mut client = etcd.client().await.unwrap();
        let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
        client.put("k", "v", None).await.unwrap();
        assert_eq!(heard(&mut stream).await, ["v"]);
    }
}

#[tokio::test(start_paused = true)]
async fn options_are_kept_over_a_wipe() {
    let etcd = EmbeddedEtcd::builder().min_lease_ttl(7).identity(1, 2).start().await;
    for _ in 0..2 {
        let mut client = etcd.client().await.unwrap();
        let granted = client.lease_grant(1, None).await.unwrap();
        assert_eq!(granted.ttl(), 7);
        let header = granted.header().unwrap();
        assert_eq!((header.cluster_id(), header.member_id()), (1, 2));
        etcd.wipe().await;
        etcd.restart().await.unwrap();
    }
    etcd.wipe_to_another_cluster().await;
    etcd.restart().await.unwrap();
    let other = etcd.client().await.unwrap().get("k", None).await.unwrap();
    assert_ne!(other.header().unwrap().cluster_id(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_connections_and_refuses_new_ones_until_the_restart() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    client.put("k", "v", None).await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    let mut raw = etcd.dial().await.unwrap();

    etcd.stop().await;
    stream.message().await.expect_err("the stream is lost");
    // A server speaks first in HTTP/2: what it said may still come, then the end.
    let mut said = Vec::new();
    raw.read_to_end(&mut said).await.unwrap();
    assert_eq!(etcd.dial().await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let address = ([127, 0, 0, 1], 0).into();
    assert_eq!(etcd.listen(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    etcd.stop().await;

    etcd.restart().await.unwrap();
    assert!(exists(&mut client, "k").await, "the same client, the same data");
}

#[tokio::test]
async fn tcp_and_memory_lead_to_the_same_etcd_and_the_port_outlives_restarts() {
    let etcd = EmbeddedEtcd::start().await;
    let address = etcd.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut tcp = Client::connect([address.to_string()], None).await.unwrap();
    let mut memory = etcd.client().await.unwrap();
    let mut stream = watch(&mut tcp, "k", WatchOptions::new()).await;
    memory.put("k", "v", None).await.unwrap();
    assert_eq!(heard(&mut stream).await, ["v"]);
    etcd.restart().await.unwrap();
    let mut again = Client::connect([address.to_string()], None).await.unwrap();
    assert!(exists(&mut again, "k").await);
}

#[tokio::test]
async fn a_dropped_etcd_closes_its_port_and_refuses_dials() {
    let etcd = EmbeddedEtcd::start().await;
    let address = etcd.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let dialer = etcd.dialer();
    drop(etcd);
    assert_eq!(dialer.dial().await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    tokio::time::timeout(Duration::from_secs(10), async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the port is closed");
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_no_task_is_left() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let lease = put_leased(&mut client, "k", 60).await;
    let stream = watch(&mut client, "k", WatchOptions::new()).await;
    let keeper = client.lease_keep_alive(lease).await.unwrap();
    assert!(tasks() > before);
    etcd.stop().await;
    drop((client, stream, keeper));
    // The client's own tasks end when they are next polled; virtual time passes only when all have been.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn limits_are_as_the_builder_says() {
    let builder = EmbeddedEtcd::builder().max_request_bytes(10_000).max_txn_ops(2).quota_bytes(50_000);
    let etcd = builder.start().await;
    let mut client = etcd.client().await.unwrap();
    client.put("k", vec![b'v'; 9_000], None).await.unwrap();
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(refusal(client.put("k", vec![b'v'; 10_000], None).await), too_large);
    let gets = |count| Txn::new().and_then(vec![TxnOp::get("k", None); count]);
    client.txn(gets(2)).await.unwrap();
    let too_many = (Code::InvalidArgument, "etcdserver: too many operations in txn request".to_owned());
    assert_eq!(refusal(client.txn(gets(3)).await), too_many);
    for _ in 0..4 {
        client.put("k", vec![b'v'; 9_000], None).await.unwrap();
    }
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(client.put("k", vec![b'v'; 9_000], None).await), full, "the past counts");
}
