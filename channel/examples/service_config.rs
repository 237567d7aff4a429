//! Behaviour by gRPC's service config: policy, timeout and retries; and another config while calls run.
//!
//! `cargo run -p svc-channel --example service_config`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::time::Duration;

use svc_channel::{Channel, Endpoint, ServiceConfig};
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
use tokio::sync::watch;

/// One document, of which the same file serves clients in Go or Java. `methodConfig` entries are chosen by method, by
/// service or, with an empty name, for all.
const CONFIG: &str = r#"{
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{"service": "greeter.v1.Greeter"}],
        "timeout": "0.5s",
        "retryPolicy": {
            "maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]
        }
    }],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut flaky = support::Named::new("flaky");
    flaky.failing = 2.into();
    let mut slow = support::Named::new("slow");
    slow.delay = Duration::from_secs(5);
    let (flaky, slow) = (flaky.serve().await?, slow.serve().await?);

    // Given at once with `service_config`, or as they change.
    let (live, configs) = watch::channel(Some(CONFIG.parse::<ServiceConfig>()?));
    let builder = || Channel::builder().name("greeter").service_config_watch(configs.clone());
    let hello = || HelloRequest { name: "ada".into() };

    let mut greeter = GreeterClient::new(builder().fixed([Endpoint::new(&flaky)?]));
    println!("the third attempt: {}", greeter.say_hello(hello()).await?.into_inner().message);

    let channel = builder().fixed([Endpoint::new(&slow)?]);
    let status = GreeterClient::new(channel.clone()).say_hello(hello()).await.unwrap_err();
    println!("the timeout: {status}");

    // A config that cannot be read is refused with the path of the field, and never gets to a channel.
    let error = CONFIG.replace("0.5s", "half a second").parse::<ServiceConfig>().unwrap_err();
    println!("refused: {error}");

    let next = CONFIG.replace("0.5s", "10s").replace("round_robin", "least_request");
    live.send_replace(Some(next.parse()?));
    while channel.dump().policy != "least_request" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "with ten seconds: {}",
        GreeterClient::new(channel).say_hello(hello()).await?.into_inner().message
    );
    Ok(())
}
