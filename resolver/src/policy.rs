//! Load-balancing policies by name, for targets and command lines.

use std::fmt;
use std::str::FromStr;

use svc_channel::{ChannelBuilder, LeastRequest, PeakEwma, PickFirst, RoundRobin, WeightedRoundRobin};

/// One of the built-in policies that need no settings; for others see
/// [`Resolver::channel_with`](crate::Resolver::channel_with).
///
/// ```
/// use svc_resolver::Balancing;
/// assert_eq!("round_robin".parse(), Ok(Balancing::RoundRobin));
/// assert!("fastest".parse::<Balancing>().unwrap_err().contains("least_request"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balancing {
    /// One endpoint for everything, the next when it fails.
    PickFirst,
    /// Each in turn.
    RoundRobin,
    /// Each in turn, as often as its weight says.
    WeightedRoundRobin,
    /// Of two at random the one with fewer calls in flight.
    LeastRequest,
    /// Of two at random the one with the lower expected latency.
    PeakEwma,
}

const ALL: [Balancing; 5] = [
    Balancing::PickFirst,
    Balancing::RoundRobin,
    Balancing::WeightedRoundRobin,
    Balancing::LeastRequest,
    Balancing::PeakEwma,
];

impl Balancing {
    /// The name, as targets and gRPC's service config write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PickFirst => "pick_first",
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
        }
    }

    /// A channel that balances so.
    pub fn apply(self, builder: ChannelBuilder) -> ChannelBuilder {
        match self {
            Self::PickFirst => builder.policy(PickFirst::new()),
            Self::RoundRobin => builder.policy(RoundRobin::new()),
            Self::WeightedRoundRobin => builder.policy(WeightedRoundRobin::new()),
            Self::LeastRequest => builder.policy(LeastRequest::new()),
            Self::PeakEwma => builder.policy(PeakEwma::new()),
        }
    }
}

impl FromStr for Balancing {
    type Err = String;

    /// gRPC's `_experimental` suffix is taken too.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix("_experimental").unwrap_or(text);
        ALL.into_iter().find(|policy| policy.as_str() == name).ok_or_else(|| {
            let known = ALL.map(Self::as_str).join(", ");
            format!("policy {text:?} is unknown; known are {known}")
        })
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
