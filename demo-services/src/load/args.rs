//! `greeter-load`: its flags, and the run that they describe.

use std::time::Duration;

use clap::ValueEnum;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_registry::Etcd;
use svc_registry::cli::EtcdArgs;
use svc_resolver::{Balancing, Channel, Resolver, ServiceConfig};

use super::shown::ShownArgs;
use super::{Client, Load, Rpc};
use crate::signal;

/// The policy that stands for tonic's own channel.
const STOCK: &str = "tonic";

/// Calls a greeter steadily and says what came of it.
///
/// Exits 0 when the run was completed, whatever failed. Ctrl-c ends it early and prints what was measured.
#[derive(Debug, clap::Parser)]
#[command(name = "greeter-load", version)]
pub struct LoadArgs {
    #[command(flatten)]
    etcd: EtcdArgs,

    /// What is called: a service's name, or a URI such as etcd:///greeter or static:///127.0.0.1:50051
    #[arg(long, env = "SVC_TARGET", default_value = "greeter", value_name = "URI")]
    target: String,

    /// Callers, each with at most one call in flight
    #[arg(long, env = "SVC_CALLERS", default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    callers: u32,

    /// Calls a second, of all callers together; 0 is as fast as they can
    #[arg(long, env = "SVC_RATE", default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    rate: u32,

    /// How long calls are started; those open at the end are awaited
    #[arg(long, env = "SVC_SECONDS", default_value_t = 10, value_name = "N")]
    seconds: u32,

    /// Deadline of each call
    #[arg(long, env = "SVC_DEADLINE", default_value = "500ms", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    deadline: Duration,

    /// How calls are spread: pick_first, round_robin, weighted_round_robin, least_request, peak_ewma; or tonic, which
    /// is tonic's own channel on the same discovery, for comparison [default: the channel's]
    #[arg(long, env = "SVC_POLICY", value_name = "POLICY", value_parser = policy)]
    policy: Option<String>,

    /// What the channel does with calls, such as retries: gRPC's service config as JSON, for all policies but tonic
    #[arg(long, env = "SVC_SERVICE_CONFIG", value_name = "JSON")]
    service_config: Option<ServiceConfig>,

    /// Kind of call: unary (one request, one reply) or stream (one request, many replies)
    #[arg(long, env = "SVC_RPC", value_enum, default_value_t = Kind::Unary, value_name = "KIND",
          hide_possible_values = true)]
    rpc: Kind,

    /// Replies of each stream, with --rpc stream
    #[arg(long, env = "SVC_STREAM_REPLIES", default_value_t = 10, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    stream_replies: u32,

    /// Pause between them
    #[arg(long, env = "SVC_STREAM_INTERVAL", default_value = "10ms", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    stream_interval: Duration,

    #[command(flatten)]
    shown: ShownArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// One request, one reply
    Unary,
    /// One request, many replies
    Stream,
}

fn policy(text: &str) -> Result<String, String> {
    if text == STOCK {
        return Ok(text.to_owned());
    }
    match text.parse::<Balancing>() {
        Ok(policy) => Ok(policy.to_string()),
        Err(why) => Err(format!("{why}, and {STOCK}")),
    }
}

impl LoadArgs {
    /// Makes the calls and prints the result.
    ///
    /// # Errors
    /// A wrong configuration or target; stdout cannot be written. Failed calls are no error: they are the result.
    pub async fn run(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let resolver = Resolver::new(&Etcd::new(self.etcd.config()?)?);
        let (client, policy) = self.client(&resolver)?;
        let rpc = match self.rpc {
            Kind::Unary => Rpc::Unary,
            Kind::Stream => Rpc::Stream { replies: self.stream_replies, interval: self.stream_interval },
        };
        let load = Load {
            target: self.target.clone(),
            policy,
            callers: self.callers,
            rate: self.rate,
            time: Duration::from_secs(self.seconds.into()),
            deadline: self.deadline,
            rpc,
        };
        let mut shown = self.shown.progress();
        let report = load.run(client, |report| shown.report(report), signal::stopped()).await;
        drop(shown);
        self.shown.result(&report)
    }

    fn client(&self, resolver: &Resolver) -> Result<(Client, String), svc_resolver::Error> {
        let policy = match self.policy.as_deref() {
            Some(STOCK) => {
                let channel = resolver.tonic_channel(&self.target)?;
                return Ok((Client::Stock(GreeterClient::new(channel)), STOCK.to_owned()));
            }
            // Parsed by clap already; what is no policy's name there stays the channel's default here.
            Some(name) => name.parse::<Balancing>().ok(),
            None => None,
        };
        let builder = match policy {
            Some(policy) => policy.apply(Channel::builder()),
            None => Channel::builder(),
        };
        let builder = match &self.service_config {
            Some(config) => builder.service_config(config.clone()),
            None => builder,
        };
        let channel = resolver.channel_with(&self.target, builder)?;
        let policy = policy.map_or_else(|| "default".to_owned(), |policy| policy.to_string());
        Ok((Client::Balanced(GreeterClient::new(channel)), policy))
    }
}
