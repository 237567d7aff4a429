//! The `Discover` on an etcd: what a consumer that is polled sees, and what it does not.

use std::net::SocketAddr;
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use futures_util::{FutureExt, StreamExt};
use svc_resolver::{
    ChannelEndpoints, Etcd, EtcdConfig, EtcdDiscover, InstanceKey, MakeEndpoint, Resolution, Resolved,
    Resolver,
};
use tower::BoxError;
use tower::discover::Change;

const LIMIT: Duration = Duration::from_secs(20);

struct Bed {
    server: EmbeddedEtcd,
    address: SocketAddr,
    resolver: Resolver,
}

impl Bed {
    async fn new() -> Self {
        let server = EmbeddedEtcd::start().await;
        let address = server.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let etcd = Etcd::new(EtcdConfig::new([address.to_string()]).unwrap()).unwrap();
        Self { resolver: Resolver::new(&etcd), server, address }
    }

    async fn put(&self, key: &str, value: &str) {
        self.server.client().await.unwrap().put(key, value, None).await.unwrap();
    }

    async fn instance(&self, id: &str, port: u16, weight: u32) {
        let value = format!(r#"{{"state":"serving","address":"10.0.0.1:{port}","weight":{weight}}}"#);
        self.put(&format!("/services/greeter/{id}"), &value).await;
    }

    async fn delete(&self, key: &str) {
        self.server.client().await.unwrap().delete(key, None).await.unwrap();
    }
}

/// A consumer to whom every insert is a new connection.
struct Balance;

impl MakeEndpoint for Balance {
    type Service = String;

    fn make(&mut self, instance: &Resolved) -> Result<String, BoxError> {
        Ok(instance.address.to_string())
    }
}

fn shown<S>(change: &Change<InstanceKey, S>, service: impl Fn(&S) -> String) -> String {
    match change {
        Change::Insert(key, s) => format!("+{key} {}", service(s)),
        Change::Remove(key) => format!("-{key}"),
    }
}

async fn next<M: MakeEndpoint>(
    discover: &mut EtcdDiscover<M>,
    service: impl Fn(&M::Service) -> String,
) -> String {
    let change = tokio::time::timeout(LIMIT, discover.next()).await.expect("something happens");
    let Ok(change) = change.expect("it never ends");
    shown(&change, service)
}

#[tokio::test]
async fn our_channel_gets_updates_in_place() {
    let bed = Bed::new().await;
    let mut discover = bed.resolver.discover("greeter", ChannelEndpoints).unwrap();
    let weight = |endpoint: &svc_resolver::Endpoint| format!("{} {}", endpoint.address, endpoint.weight);
    bed.instance("a", 1, 100).await;
    assert_eq!(next(&mut discover, weight).await, "+a 10.0.0.1:1 100");
    bed.instance("a", 1, 50).await;
    assert_eq!(next(&mut discover, weight).await, "+a 10.0.0.1:1 50");
    bed.instance("a", 2, 50).await;
    assert_eq!(next(&mut discover, weight).await, "+a 10.0.0.1:2 50");
    bed.delete("/services/greeter/a").await;
    assert_eq!(next(&mut discover, weight).await, "-a");
}

#[tokio::test]
async fn any_other_consumer_gets_changed_addresses_only() {
    let bed = Bed::new().await;
    let mut discover = bed.resolver.discover("greeter", Balance).unwrap();
    let address = String::clone;
    bed.instance("a", 1, 100).await;
    assert_eq!(next(&mut discover, address).await, "+a 10.0.0.1:1");
    bed.instance("a", 1, 50).await;
    bed.instance("b", 2, 50).await;
    assert_eq!(next(&mut discover, address).await, "+b 10.0.0.1:2", "a changed weight is not told");
    bed.instance("a", 3, 50).await;
    assert_eq!(next(&mut discover, address).await, "-a");
    assert_eq!(next(&mut discover, address).await, "+a 10.0.0.1:3");
}

#[tokio::test]
async fn a_slow_consumer_gets_the_latest_state_and_no_backlog() {
    let bed = Bed::new().await;
    let mut discover = bed.resolver.discover("greeter", Balance).unwrap();
    bed.instance("a", 1, 100).await;
    assert_eq!(next(&mut discover, String::clone).await, "+a 10.0.0.1:1");
    for port in 2..500 {
        bed.instance("a", port, 100).await;
        bed.instance(&format!("passing-{port}"), 1000 + port, 100).await;
        bed.delete(&format!("/services/greeter/passing-{port}")).await;
    }
    // Another follower of the same watch tells when all of it has arrived.
    let mut fresh = bed.resolver.discover("greeter", Balance).unwrap();
    while next(&mut fresh, String::clone).await != "+a 10.0.0.1:499" {}
    assert_eq!(next(&mut discover, String::clone).await, "-a");
    assert_eq!(next(&mut discover, String::clone).await, "+a 10.0.0.1:499");
    assert!(discover.next().now_or_never().is_none(), "nothing else");
}

#[tokio::test]
async fn operators_intents_and_selectors_are_obeyed() {
    let bed = Bed::new().await;
    bed.put("/services/greeter/dead", "10.0.0.1:9").await;
    bed.put("/services-control/drain/greeter/dead", "{}").await;
    bed.put("/services-control/drain/other/*", "{}").await;
    bed.instance("a", 1, 100).await;
    let mut discover = bed.resolver.discover("greeter", Balance).unwrap();
    assert_eq!(next(&mut discover, String::clone).await, "+a 10.0.0.1:1");
    bed.delete("/services-control/drain/greeter/dead").await;
    assert_eq!(next(&mut discover, String::clone).await, "+dead 10.0.0.1:9");
    let why = bed.resolver.explain("greeter?version=v2").await.unwrap();
    assert_eq!(why.len(), 2);
    assert!(why.iter().all(|c| c.excluded.as_deref().is_some_and(|why| why.contains("version"))), "{why:?}");
}

#[tokio::test]
async fn it_says_when_it_is_live_and_when_it_is_stale() {
    let bed = Bed::new().await;
    let mut discover = bed.resolver.discover("greeter", Balance).unwrap();
    let mut resolution = discover.resolution();
    assert_eq!(*resolution.borrow_and_update(), Resolution::Pending);
    let drive = tokio::spawn(async move { while discover.next().await.is_some() {} });
    let mut wait = async |what: fn(&Resolution) -> bool| {
        tokio::time::timeout(LIMIT, resolution.wait_for(what))
            .await
            .expect("in time")
            .expect("it lives")
            .clone()
    };
    wait(|r| *r == Resolution::Live { known: 0 }).await;
    bed.instance("a", 1, 100).await;
    wait(|r| *r == Resolution::Live { known: 1 }).await;
    bed.server.stop().await;
    let stale = wait(|r| matches!(r, Resolution::Stale { .. })).await;
    assert!(format!("{stale:?}").contains(&bed.address.to_string()), "the reason names etcd: {stale:?}");
    bed.server.restart().await.unwrap();
    wait(|r| *r == Resolution::Live { known: 1 }).await;
    drive.abort();
}

#[tokio::test]
async fn a_fixed_resolver_needs_no_etcd() {
    let resolver = Resolver::fixed([("greeter", vec!["127.0.0.1:1"]), ("broken", vec!["127.0.0.1"])]);
    let mut discover = resolver.discover("greeter", Balance).unwrap();
    assert_eq!(next(&mut discover, String::clone).await, "+127.0.0.1:1 127.0.0.1:1");
    assert!(discover.next().now_or_never().is_none());
    assert_eq!(*discover.resolution().borrow(), Resolution::Live { known: 1 });
    assert!(resolver.channel("broken").unwrap_err().to_string().contains("host:port"));
    let channel = resolver.channel("greeter?policy=round_robin").unwrap();
    assert_eq!(resolver.dump().channels.len(), 1);
    drop(channel);
    let mut unknown = resolver.discover("unknown", Balance).unwrap();
    assert!(unknown.next().now_or_never().is_none());
    assert_eq!(*unknown.resolution().borrow(), Resolution::Live { known: 0 });
}

#[test]
fn outside_of_a_runtime_it_is_refused_rather_than_a_panic() {
    let resolver = Resolver::fixed([("greeter", ["127.0.0.1:1"])]);
    for error in [resolver.channel("greeter").unwrap_err(), resolver.tonic_channel("greeter").unwrap_err()] {
        assert!(error.to_string().contains("tokio runtime") && !error.is_target(), "{error}");
    }
}
