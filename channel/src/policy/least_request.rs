//! `least_request`: of two endpoints drawn at random, the one with the lower load ("The Power of Two Choices in
//! Randomized Load Balancing", Mitzenmacher 1996; gRFC A48 with a choice count of two). The two are always distinct.

use std::sync::Arc;

use super::{Call, Picker, Policy};
use crate::load::Load;
use crate::subchannel::Subchannel;

/// The less loaded of two endpoints drawn at random. Load is calls in flight, streams included, with a
/// penalty for recent failures. Weights are not read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LeastRequest;

impl LeastRequest {
    /// The policy; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(TwoChoices(ready.iter().map(|s| s.load().clone()).collect()))
    }
}

struct TwoChoices(Box<[Arc<Load>]>);

impl Picker for TwoChoices {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        let count = self.0.len();
        if count < 2 {
            return count.checked_sub(1);
        }
        let first = fastrand::usize(..count);
        // A step of 1 to count - 1 from the first: never the first itself, all others alike.
        let second = (first + fastrand::usize(1..count)) % count;
        Some(if self.0[second].value() < self.0[first].value() { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick(&*LeastRequest.update(&[])), None);
        assert_eq!(shares(&*LeastRequest.update(&subchannels(1)), 1, 10), [10]);
    }

    #[test]
    fn equal_loads_have_equal_shares() {
        for n in [2, 3, 8] {
            let shares = shares(&*LeastRequest.update(&subchannels(n)), n, 30_000 * n);
            // Five standard deviations of a share are below 900.
            assert!(shares.iter().all(|s| s.abs_diff(30_000) < 900), "{shares:?}");
        }
    }

    #[test]
    fn the_more_loaded_of_two_is_never_picked() {
        let ready = subchannels(2);
        ready[0].load().count_for_tests(1);
        assert_eq!(shares(&*LeastRequest.update(&ready), 2, 1_000), [0, 1_000]);
    }

    #[test]
    fn the_most_loaded_of_many_is_never_picked() {
        let ready = subchannels(8);
        ready[3].load().count_for_tests(1);
        assert_eq!(shares(&*LeastRequest.update(&ready), 8, 8_000)[3], 0);
    }
}
