//! `round_robin`: the ready endpoints in turn, from a random start, so that many clients do not march in step (as
//! grpc-go's `roundrobin` does).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Call, Picker, Policy};
use crate::subchannel::Subchannel;

/// The ready endpoints in turn. Weights are not read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RoundRobin;

impl RoundRobin {
    /// The policy; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(Turns { count: ready.len(), next: AtomicUsize::new(fastrand::usize(..)) })
    }
}

struct Turns {
    count: usize,
    next: AtomicUsize,
}

impl Picker for Turns {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        self.next.fetch_add(1, Relaxed).checked_rem(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick(&*RoundRobin.update(&[])), None);
        assert_eq!(shares(&*RoundRobin.update(&subchannels(1)), 1, 10), [10]);
    }

    #[test]
    fn each_gets_its_turn() {
        assert_eq!(shares(&*RoundRobin.update(&subchannels(7)), 7, 7_000), [1_000; 7]);
    }
}
