//! `edge-load`: its flags, and the run that they describe.

use std::time::Duration;

use clap::ValueEnum;
use http::Uri;

use super::shown::ShownArgs;
use super::{Client, Edge, Load, Order, Rpc};
use crate::error::BoxError;
use crate::signal;

/// How long edge and balance are waited for before the first gift.
const READY: Duration = Duration::from_secs(30);

/// Sends gifts, or asks for greetings, through the edge and says what came of it.
///
/// An order that an edge cannot answer is given to the next one, with the same `biz_id`, until its deadline. Exits 0
/// when the run was completed, whatever failed. Ctrl-c ends it early and prints what was measured.
#[derive(Debug, clap::Parser)]
#[command(name = "edge-load", version)]
pub struct EdgeLoadArgs {
    /// Where the edges are, asked by turns; may be given more than once
    #[arg(long, env = "SVC_EDGE", default_value = "http://127.0.0.1:8080", value_name = "URL",
          value_delimiter = ',', value_parser = url)]
    edge: Vec<Uri>,

    /// What is asked for: gift (sent, and waited for until it has arrived) or greeting
    #[arg(long, env = "SVC_CALL", value_enum, default_value_t = Kind::Gift, value_name = "KIND",
          hide_possible_values = true)]
    call: Kind,

    /// Callers, each with at most one order at a time
    #[arg(long, env = "SVC_CALLERS", default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    callers: u32,

    /// Orders a second, of all callers together; 0 is as fast as they can
    #[arg(long, env = "SVC_RATE", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    rate: u32,

    /// How long orders are given; those open at the end are awaited
    #[arg(long, env = "SVC_SECONDS", default_value_t = 10, value_name = "N")]
    seconds: u32,

    /// Deadline of each order, its repetitions included
    #[arg(long, env = "SVC_DEADLINE", default_value = "10s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    deadline: Duration,

    /// The gift that is sent
    #[arg(long, env = "SVC_GIFT", default_value_t = 1, value_name = "ID")]
    gift: i64,

    /// Users who give, by turns; they are new, and given coins first
    #[arg(long, env = "SVC_SENDERS", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    senders: u64,

    /// Users who receive each gift
    #[arg(long, env = "SVC_RECEIVERS", default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=100))]
    receivers: u64,

    /// What each sender is given
    #[arg(long, env = "SVC_COINS", default_value_t = 1_000_000, value_name = "N",
          value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    coins: i64,

    #[command(flatten)]
    shown: ShownArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A gift is sent
    Gift,
    /// Somebody is greeted
    Greeting,
}

fn url(text: &str) -> Result<Uri, String> {
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() => Ok(uri),
        _ => Err("write http://HOST:PORT".to_owned()),
    }
}

impl EdgeLoadArgs {
    /// Gives the orders and prints the result.
    ///
    /// # Errors
    /// Coins cannot be issued; stdout cannot be written. Failed orders are no error: they are the result.
    pub async fn run(&self) -> Result<(), BoxError> {
        let order = match self.call {
            Kind::Greeting => Order::Greeting,
            Kind::Gift => {
                Order::Gift { gift_id: self.gift, senders: self.senders, receivers: self.receivers }
            }
        };
        let edge = Edge::new(self.edge.clone(), order);
        edge.issue(self.coins, READY).await?;
        let load = Load {
            target: self.edge.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            policy: "by turns".to_owned(),
            callers: self.callers,
            rate: self.rate,
            time: Duration::from_secs(self.seconds.into()),
            deadline: self.deadline,
            rpc: Rpc::Unary,
        };
        let mut shown = self.shown.progress();
        let report = load.run(Client::Edge(edge), |report| shown.report(report), signal::stopped()).await;
        drop(shown);
        self.shown.result(&report)
    }
}
