//! `peak_ewma`: of two endpoints drawn at random by weight, the one that is expected to answer sooner: its latency's
//! moving average times the calls that a new one would join ("The Power of Two Choices", Mitzenmacher 1996; Finagle's
//! Peak EWMA). A failure counts as a slow answer, so an endpoint that fails fast does not look attractive.
//!
//! Averages that differ by less than a factor of two are noise: there the calls in flight decide, and where those are
//! alike, the draw. Taken at their word, such averages send nearly everything to one of two equal endpoints while there
//! is little to do, and then to the other.

use std::sync::Arc;

use super::{Call, Picker, Policy};
use crate::load::{self, Load};
use crate::subchannel::Subchannel;

/// The endpoint of two that is expected to answer sooner: the default. Endpoints are drawn in proportion to their
/// weight, and compared by calls in flight relative to it; weight 0 takes no traffic unless all have it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PeakEwma;

impl PeakEwma {
    /// The policy; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for PeakEwma {
    fn name(&self) -> &'static str {
        "peak_ewma"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        let weights: Vec<_> = ready.iter().map(|s| s.endpoint().weight).collect();
        let draw = Draw::new(&weights);
        let candidates = ready.iter().zip(draw.relative(&weights)).map(|(s, weight)| Candidate {
            load: s.load().clone(),
            per_weight: 1.0 / weight.max(f32::MIN_POSITIVE),
        });
        Arc::new(Sooner { candidates: candidates.collect(), draw })
    }
}

/// Averages closer than this factor say nothing.
const NOISE: f32 = 2.0;

struct Candidate {
    load: Arc<Load>,
    /// What one call in flight counts: less where the weight is above the mean.
    per_weight: f32,
}

impl Candidate {
    fn is_better_than(&self, other: &Candidate, now_ms: u64) -> bool {
        let (ours, theirs) = (self.in_flight(), other.in_flight());
        match (self.load.latency_us(now_ms), other.load.latency_us(now_ms)) {
            (Some(a), Some(b)) if a.max(b) >= NOISE * a.min(b) => a * (ours + 1.0) < b * (theirs + 1.0),
            // Nothing is known of one of them: it is tried, but by one call at a time.
            (None, Some(_)) => ours == 0.0,
            (Some(_), None) => theirs > 0.0,
            _ => ours < theirs,
        }
    }

    fn in_flight(&self) -> f32 {
        self.load.in_flight() as f32 * self.per_weight
    }
}

struct Sooner {
    candidates: Box<[Candidate]>,
    draw: Draw,
}

impl Picker for Sooner {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        let first = self.draw.one()?;
        // The same one twice is drawn again, a few times: with one heavy weight it is the right answer.
        let second = (0..3).filter_map(|_| self.draw.one()).find(|second| *second != first);
        let Some(second) = second else { return Some(first) };
        let (a, b) = (self.candidates.get(first)?, self.candidates.get(second)?);
        Some(if b.is_better_than(a, load::now_ms()) { second } else { first })
    }
}

/// Draws indices in proportion to weights, in constant time (Walker's alias method, Vose 1991).
struct Draw {
    count: usize,
    /// Of each column the chance to stay, out of 2^32, and whom else it stands for; none where all are alike.
    columns: Box<[(u32, u32)]>,
}

impl Draw {
    fn new(weights: &[u32]) -> Self {
        let count = weights.len();
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        if total == 0 || weights.iter().all(|w| *w == weights[0]) {
            return Self { count, columns: [].into() };
        }
        // Scaled so that the mean is 1: columns below it are filled up by those above.
        let mut scaled: Vec<f64> =
            weights.iter().map(|w| f64::from(*w) * count as f64 / total as f64).collect();
        let mut columns: Vec<(u32, u32)> = (0..count).map(|i| (u32::MAX, i as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|i| scaled[*i] < 1.0);
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            columns[less] = ((scaled[less] * f64::from(u32::MAX)) as u32, more as u32);
            scaled[more] -= 1.0 - scaled[less];
            if scaled[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self { count, columns: columns.into() }
    }

    /// Each weight by the mean; 1 where all are alike.
    fn relative<'a>(&'a self, weights: &'a [u32]) -> impl Iterator<Item = f32> + 'a {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mean = total as f32 / self.count.max(1) as f32;
        weights.iter().map(move |w| if self.columns.is_empty() { 1.0 } else { *w as f32 / mean })
    }

    fn one(&self) -> Option<usize> {
        if self.count < 2 {
            return self.count.checked_sub(1);
        }
        let index = fastrand::usize(..self.count);
        Some(match self.columns.get(index) {
            Some((stay, _)) if fastrand::u32(..) <= *stay && *stay > 0 => index,
            Some((_, other)) => *other as usize,
            None => index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn shares_of(weights: &[u32], picks: usize) -> Vec<usize> {
        shares(&*PeakEwma.update(&weighted(weights)), weights.len(), picks)
    }

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick(&*PeakEwma.update(&[])), None);
        assert_eq!(shares_of(&[7], 10), [10]);
        assert_eq!(shares_of(&[0], 10), [10], "one without weight is better than none");
    }

    #[test]
    fn all_weights_zero_is_all_alike() {
        assert!(shares_of(&[0, 0, 0], 9_000).iter().all(|s| s.abs_diff(3_000) < 300));
    }

    #[test]
    fn weight_zero_among_others_takes_nothing() {
        assert_eq!(shares_of(&[0, 100, 100], 3_000)[0], 0);
    }

    #[test]
    fn huge_weights_do_not_overflow() {
        let shares = shares_of(&[crate::MAX_WEIGHT; 3], 9_000);
        assert!(shares.iter().all(|s| s.abs_diff(3_000) < 300), "{shares:?}");
        assert!(shares_of(&[u32::MAX, 1], 10_000)[0] > 9_900);
    }

    #[test]
    fn endpoints_are_drawn_in_proportion_to_their_weight() {
        let draw = Draw::new(&[100, 200, 300, 400]);
        let mut shares = [0usize; 4];
        for _ in 0..100_000 {
            shares[draw.one().expect("some")] += 1;
        }
        for (share, expected) in shares.iter().zip([10_000, 20_000, 30_000, 40_000]) {
            assert!(share.abs_diff(expected) < 800, "{shares:?}");
        }
    }

    #[test]
    fn the_one_that_answers_sooner_is_picked() {
        let ready = subchannels(2);
        ready[0].load().sampled_for_tests(100_000.0);
        ready[1].load().sampled_for_tests(1_000.0);
        let shares = shares(&*PeakEwma.update(&ready), 2, 1_000);
        // Only where the same one was drawn four times.
        assert!(shares[0] < 200, "{shares:?}");
    }

    #[test]
    fn alike_ones_share_alike_while_there_is_little_to_do() {
        let ready = subchannels(2);
        ready[0].load().sampled_for_tests(1_000.0);
        ready[1].load().sampled_for_tests(1_900.0);
        let shares = shares(&*PeakEwma.update(&ready), 2, 10_000);
        assert!(shares[0].abs_diff(5_000) < 300, "{shares:?}");
    }

    #[test]
    fn calls_in_flight_make_a_fast_one_less_attractive() {
        let ready = subchannels(2);
        ready[0].load().sampled_for_tests(1_000.0);
        ready[0].load().count_for_tests(10);
        ready[1].load().sampled_for_tests(3_000.0);
        let shares = shares(&*PeakEwma.update(&ready), 2, 1_000);
        assert!(shares[1] > 800, "{shares:?}");
    }

    #[test]
    fn a_new_endpoint_gets_one_call_until_it_has_answered() {
        let ready = subchannels(2);
        ready[1].load().sampled_for_tests(1_000.0);
        let picker = PeakEwma.update(&ready);
        assert!(shares(&*picker, 2, 1_000)[0] > 800, "an unknown one is tried");
        ready[0].load().count_for_tests(1);
        assert!(shares(&*picker, 2, 1_000)[0] < 200, "but not by everybody at once");
    }
}
