//! How an endpoint is chosen. A [`Policy`] is mutable and belongs to the channel's owner; each time the set of ready
//! endpoints changes it makes a [`Picker`], an immutable snapshot that requests read. Which endpoints are healthy is
//! not a policy's business: it is shown ready ones only. Nor is which of them a call may go to: `split.rs` and `zone.rs`
//! say what part goes where, and `arrange.rs` asks the policy for each part.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use crate::health::orca::LoadReports;
use crate::subchannel::Subchannel;

pub(crate) mod arrange;
mod least_request;
mod peak_ewma;
mod pick_first;
mod ring_hash;
mod round_robin;
pub(crate) mod slow_start;
pub(crate) mod split;
pub(crate) mod warming;
mod weighted_round_robin;
mod zone;

pub use least_request::LeastRequest;
pub use peak_ewma::PeakEwma;
pub use pick_first::PickFirst;
pub use ring_hash::RingHash;
pub use round_robin::RoundRobin;
pub use warming::SlowStart;
pub use weighted_round_robin::WeightedRoundRobin;

/// A load-balancing policy.
///
/// ```
/// use std::sync::Arc;
/// use svc_channel::{Call, Picker, Policy, Subchannel};
///
/// /// Sends everything to the endpoint with the smallest instance name.
/// struct Smallest;
/// struct At(Option<usize>);
///
/// impl Policy for Smallest {
///     fn name(&self) -> &'static str {
///         "smallest"
///     }
///     fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
///         Arc::new(At((0..ready.len()).min_by_key(|&i| ready[i].endpoint().instance.clone())))
///     }
/// }
/// impl Picker for At {
///     fn pick(&self, _: &Call<'_>) -> Option<usize> {
///         self.0
///     }
/// }
/// let channel = svc_channel::Channel::builder().policy(Smallest);
/// # drop(channel);
/// ```
pub trait Policy: Send + 'static {
    /// The policy's name in dumps and metrics: as gRPC's service config writes it, where it is one of gRPC's.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// Called by the owner, once for each batch of changes, with all endpoints that are ready (none, at times), in the
    /// order in which discovery gave them. Where the channel has a zone, a split or slow start it is called several times for each
    /// batch, with parts of the endpoints, and all pickers that come of it are in use together: what is returned
    /// has to stand on its own, without a cell that the next call writes. It must not block. State that is to survive
    /// changes belongs into the endpoints' [`Load`](crate::Load), or into the policy by endpoint.
    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker>;

    /// What it makes of the load reports that servers send in trailers; `None`: trailers are not looked at. Where it wants
    /// them [`Load::reported_weight`](crate::Load::reported_weight) tells the weights, and [`update`](Self::update) is
    /// called for them as well, at most once a `weight_update_period`.
    fn load_reports(&self) -> Option<LoadReports> {
        None
    }

    /// Whether all endpoints are to be connected; else one after the other, until one is ready.
    fn connects_all(&self) -> bool {
        true
    }
}

/// What requests ask: which of the ready endpoints?
pub trait Picker: Send + Sync {
    /// Called for each call, by any thread: no lock, no wait, no allocation; O(1), or O(log n) at most. The answer is
    /// an index of the slice that [`Policy::update`] was given (reduced modulo its length); `None` where the policy has
    /// none to offer, which fails the call with UNAVAILABLE unless it waits for ready.
    fn pick(&self, call: &Call<'_>) -> Option<usize>;
}

/// What a picker may know of a call.
pub struct Call<'a> {
    path: &'a Uri,
    headers: &'a HeaderMap,
}

impl<'a> Call<'a> {
    /// A call of the method at `path` (`/package.Service/Method`) with these headers.
    pub fn new(path: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self { path, headers }
    }

    /// The full method name: `/package.Service/Method`.
    pub fn method(&self) -> &'a str {
        self.path.path()
    }

    /// The request's metadata.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::Endpoint;

    /// `n` subchannels without load.
    pub(crate) fn subchannels(n: usize) -> Vec<Subchannel> {
        (0..n)
            .map(|i| Subchannel::new(Endpoint::new(format!("10.0.0.1:{}", i + 1)).expect("an address")))
            .collect()
    }

    /// A subchannel for each of the weights.
    pub(crate) fn weighted(weights: &[u32]) -> Vec<Subchannel> {
        let endpoint = |i| Endpoint::new(format!("10.0.0.1:{}", i + 1)).expect("an address");
        weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Subchannel::new(Endpoint { weight, ..endpoint(i) }))
            .collect()
    }

    pub(crate) fn pick(picker: &dyn Picker) -> Option<usize> {
        picker.pick(&Call::new(&Uri::default(), &HeaderMap::new()))
    }

    /// How often each of `n` was picked in `picks`.
    pub(crate) fn shares(picker: &dyn Picker, n: usize, picks: usize) -> Vec<usize> {
        let mut shares = vec![0; n];
        for _ in 0..picks {
            shares[pick(picker).expect("some")] += 1;
        }
        shares
    }
}
