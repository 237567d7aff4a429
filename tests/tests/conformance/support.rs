//! Short ways to say what the laws say.

use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, Error, Event, EventType, GetOptions, KeyValue, Permission, WatchResponse,
    WatchStream,
};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The code and text that a call was refused with.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::GRpcStatus(status)) => (status.code(), status.message().to_owned()),
        Err(other) => panic!("expected a refusal by etcd, not {other:?}"),
        Ok(_) => panic!("expected a refusal by etcd, and it did as asked"),
    }
}

/// What a refusal is compared with.
pub(crate) fn refused(code: Code, text: &str) -> (Code, String) {
    (code, text.to_owned())
}

/// Puts a key and gives the revision.
pub(crate) async fn put(client: &mut Client, key: &str, value: &str) -> i64 {
    client.put(key, value, None).await.unwrap().header().unwrap().revision()
}

/// The keys and values of what a read gives.
pub(crate) async fn read(client: &mut Client, key: &str, options: GetOptions) -> Vec<(String, String)> {
    pairs(client.get(key, Some(options)).await.unwrap().kvs())
}

pub(crate) fn pairs(kvs: &[KeyValue]) -> Vec<(String, String)> {
    kvs.iter().map(|kv| (kv.key_str().unwrap().to_owned(), kv.value_str().unwrap().to_owned())).collect()
}

pub(crate) fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| kv.key_str().unwrap()).collect()
}

/// The next answer on a watch stream.
pub(crate) async fn next(stream: &mut WatchStream) -> WatchResponse {
    tokio::time::timeout(LIMIT, stream.message())
        .await
        .expect("an answer in time")
        .expect("a stream that goes on")
        .expect("a stream that does not end")
}

/// Answers until so many events came, of any watch; gives the events.
pub(crate) async fn events(stream: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend_from_slice(next(stream).await.events());
    }
    assert_eq!(events.len(), count, "no event too many: {events:?}");
    events
}

/// An event in a line: `PUT k=v`, `DELETE k`.
pub(crate) fn told(events: &[Event]) -> Vec<String> {
    let told = |event: &Event| {
        let kv = event.kv().expect("an event has a key");
        match event.event_type() {
            EventType::Put => format!("PUT {}={}", kv.key_str().unwrap(), kv.value_str().unwrap()),
            EventType::Delete => format!("DELETE {}", kv.key_str().unwrap()),
        }
    };
    events.iter().map(told).collect()
}

// --- users ---

pub(crate) fn denied() -> (Code, String) {
    refused(Code::PermissionDenied, "etcdserver: permission denied")
}

/// Whether this one lacks the checks of permissions that came with 3.5.29 and 3.6.10: of compaction, nested
/// transactions, and what is told of leases and members.
pub(crate) fn predates_checks(etcd: &TestEtcd) -> bool {
    etcd.version().is_some_and(|(minor, patch)| match minor {
        ..=4 => true,
        5 => patch < 29,
        6 => patch < 10,
        _ => false,
    })
}

/// Whether this one looks at tokens even while authentication is off: before 3.4.28 and 3.5.10.
pub(crate) fn looks_at_tokens_when_off(etcd: &TestEtcd) -> bool {
    etcd.version().is_some_and(|(minor, patch)| match minor {
        ..=4 => patch < 28,
        5 => patch < 10,
        _ => false,
    })
}

/// A client that logs in by a password.
pub(crate) async fn connect(etcd: &TestEtcd, user: &str, password: &str) -> Result<Client, Error> {
    let options = ConnectOptions::new().with_user(user, password);
    Client::connect([etcd.url()], Some(options)).await
}

/// The user `root`, whose password is `secret`.
pub(crate) async fn add_root(client: &mut Client) {
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
}

/// From now on everybody needs a token.
pub(crate) async fn enable_auth(client: &mut Client) {
    add_root(client).await;
    client.auth_enable().await.unwrap();
}

/// A user with the password `secret`, and a role of the same name that has these permissions.
pub(crate) async fn add_user(client: &mut Client, name: &str, permissions: &[Permission]) {
    client.user_add(name, "secret", None).await.unwrap();
    client.role_add(name).await.unwrap();
    for permission in permissions {
        client.role_grant_permission(name, permission.clone()).await.unwrap();
    }
    client.user_grant_role(name, name).await.unwrap();
}
