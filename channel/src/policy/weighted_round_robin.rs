//! `weighted_round_robin`: endpoints in turn, as often as their weight says, evenly interleaved, without a lock: the
//! static stride scheduler of gRFC A58. Each pass over the endpoints is a generation; an endpoint is skipped in
//! `1 - weight / heaviest` of them.
//!
//! The weight is what the server reports of its load (gRFC A58, `health/orca.rs`) where at least two endpoints have such
//! a weight by now; those that have none count as the mean of the others, times what discovery gives them by its own
//! mean. Else discovery's weights count. Weight 0 in discovery is a wish, which no report overrules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Call, Picker, Policy};
use crate::health::orca::LoadReports;
use crate::subchannel::Subchannel;

/// The heaviest endpoint's scaled weight.
const FULL: u64 = u16::MAX as u64;
/// Of a heavier one only this multiple of the mean is believed, and of a lighter one at least this part, so that a pick
/// takes few steps (as grpc-go's and Envoy's scheduler do).
const MOST_OF_MEAN: f64 = 10.0;
const LEAST_OF_MEAN: f64 = 0.01;

/// The ready endpoints in turn, in proportion to their weights: those of their servers' load reports, where they send
/// some, else discovery's. Weight 0 in discovery takes no traffic unless all have it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WeightedRoundRobin {
    reports: LoadReports,
}

impl WeightedRoundRobin {
    /// The policy, with [`LoadReports`]' defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is made of load reports.
    #[must_use]
    pub fn load_reports(self, reports: LoadReports) -> Self {
        Self { reports: reports.checked() }
    }
}

impl Policy for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "weighted_round_robin"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(Strides::new(&weights(ready), fastrand::u64(..1 << 32)))
    }

    fn load_reports(&self) -> Option<LoadReports> {
        Some(self.reports)
    }
}

fn weights(ready: &[Subchannel]) -> Vec<f64> {
    let given: Vec<_> = ready.iter().map(|s| f64::from(s.endpoint().weight)).collect();
    let reported: Vec<_> = ready.iter().map(|s| s.load().reported_weight().map(f64::from)).collect();
    // gRFC A58: with fewer than two there is nothing to compare.
    let Some(mean_reported) = mean(reported.iter().flatten().copied(), 2) else { return given };
    let Some(mean_given) = mean(given.iter().copied().filter(|w| *w > 0.0), 1) else {
        return reported.into_iter().map(|weight| weight.unwrap_or(mean_reported)).collect();
    };
    let weight = |(given, reported): (f64, Option<f64>)| match reported {
        Some(reported) if given > 0.0 => reported,
        _ => mean_reported * given / mean_given,
    };
    given.into_iter().zip(reported).map(weight).collect()
}

/// Of at least so many.
fn mean(values: impl Iterator<Item = f64>, least: usize) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count >= least).then(|| sum / count as f64)
}

struct Strides {
    /// Index and scaled weight of those that take traffic.
    scaled: Box<[(usize, u64)]>,
    next: AtomicU64,
}

impl Strides {
    fn new(weights: &[f64], start: u64) -> Self {
        let with_weight = weights.iter().filter(|w| **w > 0.0).count();
        if with_weight == 0 {
            return Self { scaled: (0..weights.len()).map(|i| (i, FULL)).collect(), next: start.into() };
        }
        let mean = weights.iter().sum::<f64>() / with_weight as f64;
        let believed = |w: f64| w.clamp(mean * LEAST_OF_MEAN, mean * MOST_OF_MEAN);
        let heaviest = weights.iter().map(|w| believed(*w)).fold(0.0, f64::max);
        let scale = |w: f64| ((believed(w) / heaviest * FULL as f64).round() as u64).max(1);
        let scaled = weights.iter().enumerate().filter(|(_, w)| **w > 0.0).map(|(i, w)| (i, scale(*w)));
        Self { scaled: scaled.collect(), next: start.into() }
    }
}

impl Picker for Strides {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        let count = self.scaled.len() as u64;
        // The heaviest is taken in every generation: at most one pass, or none where there is nobody.
        loop {
            let sequence = self.next.fetch_add(1, Relaxed);
            let (place, generation) = (sequence.checked_rem(count)?, sequence / count);
            let (index, weight) = *self.scaled.get(place as usize)?;
            // Half a stride apart, so that equally light ones are not all skipped in the same generations.
            let phase = weight.wrapping_mul(generation).wrapping_add(place * (FULL / 2)) % FULL;
            if phase + weight >= FULL {
                return Some(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn shares_of(weights: &[u32], picks: usize) -> Vec<usize> {
        shares(&*WeightedRoundRobin::new().update(&weighted(weights)), weights.len(), picks)
    }

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick(&*WeightedRoundRobin::new().update(&[])), None);
        assert_eq!(shares_of(&[0], 10), [10]);
        assert_eq!(shares_of(&[5], 10), [10]);
    }

    #[test]
    fn all_weights_zero_is_round_robin() {
        assert!(shares_of(&[0, 0, 0], 3_000).iter().all(|s| s.abs_diff(1_000) <= 1));
    }

    #[test]
    fn weight_zero_among_others_takes_nothing() {
        assert_eq!(shares_of(&[0, 100], 100), [0, 100]);
    }

    #[test]
    fn shares_are_in_proportion_to_weights() {
        let weights = [100, 200, 300, 400];
        for (share, weight) in shares_of(&weights, 10_000).iter().zip(weights) {
            assert!(share.abs_diff(weight as usize * 10) < 60, "{share} of weight {weight}");
        }
    }

    #[test]
    fn equal_weights_take_equal_turns_however_large() {
        for weight in [1, crate::MAX_WEIGHT, u32::MAX] {
            assert!(shares_of(&[weight; 4], 4_000).iter().all(|s| s.abs_diff(1_000) <= 4), "{weight}");
        }
    }

    #[test]
    fn one_that_is_far_above_the_mean_is_not_believed_beyond_ten_times_it() {
        let mut weights = [100; 100];
        weights[0] = crate::MAX_WEIGHT;
        let shares = shares_of(&weights, 100_000);
        assert!(shares[1..].iter().all(|s| *s > 0), "the others are not starved: {shares:?}");
    }

    /// Shares where the first have reported these weights, of ten thousand picks.
    fn shares_with_reports(given: &[u32], reported: &[u32]) -> Vec<usize> {
        let ready = weighted(given);
        for (subchannel, weight) in ready.iter().zip(reported) {
            subchannel.load().reports_for_tests(*weight);
        }
        shares(&*WeightedRoundRobin::new().update(&ready), given.len(), 10_000)
    }

    fn assert_close(shares: &[usize], expected: &[usize]) {
        let close = shares.iter().zip(expected).all(|(share, expected)| share.abs_diff(*expected) < 60);
        assert!(close, "{shares:?}, {expected:?} were expected");
    }

    #[test]
    fn what_servers_report_counts_before_what_discovery_says() {
        assert_close(&shares_with_reports(&[100; 3], &[100, 200, 200]), &[2_000, 4_000, 4_000]);
    }

    #[test]
    fn those_that_report_nothing_count_as_the_mean_times_what_discovery_gives_them() {
        assert_close(&shares_with_reports(&[100; 4], &[1_000, 2_000, 3_000]), &[1_250, 2_500, 3_750, 2_500]);
        // The last has twice the mean of 100.
        assert_close(&shares_with_reports(&[50, 50, 200], &[500, 500]), &[2_500, 2_500, 5_000]);
    }

    #[test]
    fn a_single_report_says_nothing() {
        assert_close(&shares_with_reports(&[100, 300], &[9_000]), &[2_500, 7_500]);
    }

    #[test]
    fn weight_zero_is_a_wish_that_no_report_overrules() {
        assert_close(&shares_with_reports(&[0, 100, 100], &[500, 500, 1_500]), &[0, 2_500, 7_500]);
        assert_close(&shares_with_reports(&[0, 0], &[100, 300]), &[2_500, 7_500]);
    }

    #[test]
    fn picks_are_interleaved() {
        let picker = WeightedRoundRobin::new().update(&weighted(&[300, 100]));
        let picks: Vec<_> = (0..40).filter_map(|_| pick(&*picker)).collect();
        let longest = picks.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
        assert!(longest.is_some_and(|l| l <= 4), "no bursts: {picks:?}");
    }
}
