//! What becomes of the weights that servers report (gRFC A78). In come their standings at each update of a policy that
//! reads reports; off the request path, and always on.

use std::sync::Arc;

use metrics::Unit::Count;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

use crate::health::orca::Standing;

/// gRFC A58: with fewer usable weights there is nothing to compare.
const FEWEST: usize = 2;

/// The handles of one channel.
#[derive(Debug)]
pub(crate) struct Weights {
    fallback: Counter,
    not_yet_usable: Counter,
    stale: Counter,
    weights: Histogram,
}

impl Weights {
    pub(crate) fn new(target: &Arc<str>) -> Self {
        describe_counter!(
            "grpc.lb.wrr.rr_fallback",
            Count,
            "Updates in which too few endpoints had a usable weight"
        );
        describe_counter!(
            "grpc.lb.wrr.endpoint_weight_not_yet_usable",
            Count,
            "Endpoints, of each update, that have reported nothing yet or are within the blackout period"
        );
        describe_counter!(
            "grpc.lb.wrr.endpoint_weight_stale",
            Count,
            "Endpoints, of each update, whose last report has expired"
        );
        describe_histogram!(
            "grpc.lb.wrr.endpoint_weights",
            Count,
            "Reported weight of each endpoint at each update, 0 where it is not usable"
        );
        Self {
            fallback: counter!("grpc.lb.wrr.rr_fallback", "grpc.target" => target.clone()),
            not_yet_usable: counter!(
                "grpc.lb.wrr.endpoint_weight_not_yet_usable", "grpc.target" => target.clone()
            ),
            stale: counter!("grpc.lb.wrr.endpoint_weight_stale", "grpc.target" => target.clone()),
            weights: histogram!("grpc.lb.wrr.endpoint_weights", "grpc.target" => target.clone()),
        }
    }

    /// The policy has made a picker of endpoints with these; without endpoints there is none.
    pub(crate) fn updated(&self, standings: impl Iterator<Item = Standing>) {
        let (mut known, mut usable) = (0usize, 0usize);
        for standing in standings {
            known += 1;
            let weight = match standing {
                Standing::Usable(weight) => {
                    usable += 1;
                    weight
                }
                Standing::NotYet => {
                    self.not_yet_usable.increment(1);
                    0.0
                }
                Standing::Stale => {
                    self.stale.increment(1);
                    0.0
                }
            };
            self.weights.record(weight);
        }
        if known > 0 && usable < FEWEST {
            self.fallback.increment(1);
        }
    }
}
