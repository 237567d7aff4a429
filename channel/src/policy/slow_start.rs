//! Slow start: an endpoint that is new takes its share of the calls little by little, so that cold caches and empty
//! pools are not met by full load at once (Envoy's "slow start mode"). It goes around any policy: [`around`] is given
//! the ready endpoints and which of them are warming, and makes a picker that turns some of the policy's picks down.
//! While nobody is warming the policy's own picker is used as it is.
//!
//! A pick of a warming endpoint is kept with the probability of its factor; else the policy picks again. In turns among
//! n endpoints a single new one has the share f / (n - 1 + f), as if its weight were scaled. Policies that look at load
//! find a new endpoint idle and prefer it: there the share is up to twice that, still in proportion to the factor.
//!
//! What counts as new is `owner/presence.rs`'s.

use std::sync::Arc;

use tokio::time::Instant;

use super::warming::Warming;
use super::{Call, Picker, Policy};
use crate::subchannel::Subchannel;

/// The policy's picker; with slow start around it while some endpoints are `warming`, and most are not.
pub(crate) fn around(
    policy: &mut dyn Policy,
    ready: &[Subchannel],
    warming: Box<[Option<Warming>]>,
) -> Arc<dyn Picker> {
    if !applies(ready, &warming) {
        return policy.update(ready);
    }
    let index: Box<[usize]> = (0..ready.len()).filter(|i| warming[*i].is_none()).collect();
    let settled: Vec<_> = index.iter().map(|i| ready[*i].clone()).collect();
    // The whole set last: what a policy remembers of an update is to be of all.
    let settled = policy.update(&settled);
    Arc::new(Led { all: policy.update(ready), settled, index, warming })
}

/// Whether some are warming, and at most half. Those that discovery gives no weight say nothing: calls that the others
/// do not take yet are not theirs.
fn applies(ready: &[Subchannel], warming: &[Option<Warming>]) -> bool {
    let any = ready.iter().any(|s| s.endpoint().weight > 0);
    let counted = ready.iter().zip(warming).filter(|(s, _)| !any || s.endpoint().weight > 0);
    let (mut count, mut new) = (0, 0);
    for (_, warming) in counted {
        count += 1;
        new += usize::from(warming.is_some());
    }
    new > 0 && 2 * new <= count
}

/// A policy's picks, of which those of warming endpoints are turned down now and then.
struct Led {
    all: Arc<dyn Picker>,
    /// The policy's picker of those that are not warming.
    settled: Arc<dyn Picker>,
    /// What the indices of `settled` mean.
    index: Box<[usize]>,
    warming: Box<[Option<Warming>]>,
}

/// So often the policy is asked before those that are not warming are asked alone.
const TRIES: usize = 8;

impl Picker for Led {
    fn pick(&self, call: &Call<'_>) -> Option<usize> {
        let mut turned_down = None;
        for _ in 0..TRIES {
            let picked = self.all.pick(call)?.checked_rem(self.warming.len())?;
            let Some(Some(warming)) = self.warming.get(picked) else { return Some(picked) };
            // A policy that insists (by a hash, or by load) is not asked until it wins.
            if turned_down == Some(picked) {
                break;
            }
            if fastrand::f64() < warming.factor(Instant::now()) {
                return Some(picked);
            }
            turned_down = Some(picked);
        }
        let settled = self.settled.pick(call).and_then(|i| self.index.get(i.checked_rem(self.index.len())?));
        settled.copied().or(turned_down)
    }
}

#[cfg(test)]
#[path = "slow_start_tests.rs"]
mod tests;
