//! A client of greeter as users have it: a resolver, its channel, and calls that are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_resolver::{Channel, ChannelDump, Etcd, EtcdConfig, Resolver, WaitForReady};
use tokio::task::JoinSet;
use tonic::Status;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn etcd_at(url: &str) -> Etcd {
    Etcd::new(EtcdConfig::new([url]).expect("an endpoint")).expect("inside a runtime")
}

pub(crate) fn resolver(url: &str) -> Resolver {
    Resolver::new(&etcd_at(url))
}

/// One call; who answered.
pub(crate) async fn hello(channel: &Channel) -> Result<String, Status> {
    say(channel, tonic::Request::new(HelloRequest { name: "ada".into() })).await
}

/// One call that waits until there is somebody to answer.
pub(crate) async fn hello_when_ready(channel: &Channel) -> Result<String, Status> {
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    request.extensions_mut().insert(WaitForReady);
    say(channel, request).await
}

async fn say(channel: &Channel, request: tonic::Request<HelloRequest>) -> Result<String, Status> {
    let mut greeter = GreeterClient::new(channel.clone());
    let reply = tokio::time::timeout(LIMIT, greeter.say_hello(request)).await.expect("a call ends");
    reply.map(|reply| reply.into_inner().instance)
}

/// Waits until the channel sees what the test needs.
pub(crate) async fn until_seen(what: &str, channel: &Channel, wanted: impl Fn(&ChannelDump) -> bool) {
    until(&format!("the channel sees {what}"), async || wanted(&channel.dump())).await;
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut wanted: impl AsyncFnMut() -> bool) {
    let looking = async {
        let mut look = tokio::time::interval(Duration::from_millis(2));
        while !wanted().await {
            look.tick().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, looking).await.is_ok(), "not within {LIMIT:?}: {what}");
}

/// Callers that call one after the other until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: JoinSet<Vec<Status>>,
}

impl Load {
    pub(crate) fn start(channel: &Channel, callers: usize) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (channel, stop, calls) = (channel.clone(), stop.clone(), calls.clone());
            set.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    failures.extend(hello(&channel).await.err());
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await; // the rate of a user, not of a bench
                }
                failures
            });
        }
        Self { stop, calls, callers: set }
    }

    /// Waits until so many more calls have ended.
    pub(crate) async fn more(&self, calls: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        until("calls go on", async || self.calls.load(Ordering::Relaxed) >= goal).await;
    }

    /// Ends it; how many calls there were, and those that failed.
    pub(crate) async fn finish(self) -> (u64, Vec<Status>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.callers.join_all().await.into_iter().flatten().collect();
        (self.calls.load(Ordering::Relaxed), failures)
    }
}
