//! A policy of one's own: each tenant's calls go to the same two endpoints, the less loaded of the two, so that one
//! tenant's flood reaches two endpoints only ("shuffle sharding").
//!
//! `cargo run -p svc-channel --example policy`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use svc_channel::{Call, Channel, ConnectivityState, Endpoint, Picker, Policy, Subchannel};
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};

/// The mutable half, owned by the channel: called when the set of ready endpoints changes. With a zone or a split it is
/// called for each part of them, so it keeps nothing between calls.
struct Sharded;

impl Policy for Sharded {
    fn name(&self) -> &'static str {
        "sharded"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(Shards(ready.to_vec()))
    }
}

/// The immutable half, read by every call: no lock, no wait, no allocation.
struct Shards(Vec<Subchannel>);

impl Picker for Shards {
    fn pick(&self, call: &Call<'_>) -> Option<usize> {
        let tenant = call.headers().get("tenant").map(|value| value.as_bytes());
        let mut hasher = DefaultHasher::new();
        tenant.hash(&mut hasher);
        let hash = hasher.finish() as usize;
        let count = self.0.len();
        let first = hash.checked_rem(count)?;
        // A step of 1 to count - 1 from the first: another one, where there is one.
        let second = (first + 1 + (hash >> 32) % (count - 1).max(1)) % count;
        let load = |index: usize| self.0[index].load().value();
        Some(if load(second) < load(first) { second } else { first })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut endpoints = Vec::new();
    for number in 0..5 {
        let name = format!("g{number}");
        endpoints.push(Endpoint::new(support::Named::new(&name).serve().await?)?.instance(name));
    }
    let channel = Channel::builder().name("greeter").policy(Sharded).fixed(endpoints);
    channel.watch_state().wait_for(|state| *state == ConnectivityState::Ready).await?;
    while channel.dump().endpoints.iter().any(|e| e.state != svc_channel::EndpointState::Ready) {
        tokio::task::yield_now().await;
    }

    for tenant in ["acme", "globex", "initech"] {
        let calls = (0..40).map(|_| {
            let mut greeter = GreeterClient::new(channel.clone());
            let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
            request.metadata_mut().insert("tenant", tonic::metadata::MetadataValue::from_static(tenant));
            async move { greeter.say_hello(request).await.map(|reply| reply.into_inner().instance) }
        });
        let mut shares = BTreeMap::new();
        for instance in futures_util::future::try_join_all(calls).await? {
            *shares.entry(instance).or_insert(0) += 1;
        }
        println!("{tenant}: {shares:?}");
    }
    Ok(())
}
