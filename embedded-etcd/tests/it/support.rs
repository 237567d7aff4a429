//! What the tests share.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{Client, ConnectOptions, Error, PutOptions, WatchOptions, WatchResponse, WatchStream};
use tonic::Code;

/// A client that wants an error rather than an etcd without a leader.
pub(crate) async fn strict_client(etcd: &EmbeddedEtcd) -> Client {
    let options = ConnectOptions::new().with_require_leader(true);
    let channel = etcd_client::Channel::Tonic(etcd.channel());
    Client::from_channel(channel, Some(options)).await.unwrap()
}

/// Puts a key on a fresh lease; gives the lease.
pub(crate) async fn put_leased(client: &mut Client, key: &str, ttl: i64) -> i64 {
    let lease = client.lease_grant(ttl, None).await.unwrap().id();
    client.put(key, "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    lease
}

pub(crate) async fn exists(client: &mut Client, key: &str) -> bool {
    client.get(key, None).await.unwrap().count() > 0
}

/// A watch that is there.
pub(crate) async fn watch(client: &mut Client, key: &str, options: WatchOptions) -> WatchStream {
    let mut stream = client.watch(key, Some(options)).await.unwrap();
    assert!(next(&mut stream).await.created());
    stream
}

pub(crate) async fn next(stream: &mut WatchStream) -> WatchResponse {
    stream.message().await.expect("no error").expect("no end")
}

/// The values that the next answer tells of.
pub(crate) async fn heard(stream: &mut WatchStream) -> Vec<String> {
    let answer = next(stream).await;
    answer.events().iter().map(|event| event.kv().unwrap().value_str().unwrap().to_owned()).collect()
}

/// Nothing comes for a long time, which under a paused clock is no time.
pub(crate) async fn silent(stream: &mut WatchStream) {
    tokio::time::timeout(Duration::from_secs(3600), stream.message()).await.expect_err("silence");
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::GRpcStatus(status)) => (status.code(), status.message().to_owned()),
        other => panic!("expected a refusal, not {other:?}"),
    }
}
