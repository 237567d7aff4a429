//! Shares as they are picked. Draws are seeded; a share's tolerance is five standard deviations.

use std::time::Duration;

use tokio::time::Instant;

use super::super::testing::*;
use super::super::{PickFirst, RingHash, RoundRobin, WeightedRoundRobin};
use super::*;
use crate::SlowStart;

const PICKS: usize = 100_000;

/// Endpoints of a version and a zone each.
fn subchannels_of(kinds: &[(&str, &str)]) -> Vec<Subchannel> {
    let numbered = kinds.iter().enumerate();
    numbered
        .map(|(number, (version, zone))| {
            let endpoint = Endpoint::new(format!("10.0.0.1:{}", number + 1)).expect("an address");
            Subchannel::new(endpoint.tag("version", *version).zone(*zone))
        })
        .collect()
}

fn arrangement(policy: impl Policy, zone: Option<&str>, split: &str) -> Arrangement {
    let config = format!(r#"{{"split": {split}}}"#).parse().expect("a config");
    Arrangement::new(Box::new(policy), zone.map(Into::into), &config)
}

fn known(subchannels: &[Subchannel]) -> impl Iterator<Item = &Endpoint> {
    subchannels.iter().map(|s| &**s.endpoint())
}

/// Shares of 100,000 picks.
fn picked(arrangement: &mut Arrangement, ready: &[Subchannel], all: &[Subchannel]) -> Vec<usize> {
    fastrand::seed(7);
    shares(&*arrangement.update(ready, &vec![None; ready.len()], known(all)), ready.len(), PICKS)
}

#[track_caller]
fn are(shares: &[usize], expected: &[f64]) {
    for (share, p) in shares.iter().zip(expected) {
        let sigma = (PICKS as f64 * p * (1.0 - p)).sqrt();
        let off = (*share as f64 - PICKS as f64 * p).abs();
        assert!(off <= 5.0 * sigma + 1.0, "{shares:?} instead of {expected:?}");
    }
    assert_eq!(shares.len(), expected.len());
}

const CANARY: &str = r#"[{"match": {"version": "v2"}, "percent": 5}]"#;

#[test]
fn without_zone_and_split_the_policy_is_asked_itself() {
    let ready = subchannels(4);
    assert_eq!(picked(&mut arrangement(RoundRobin, None, "[]"), &ready, &ready), [25_000; 4]);
}

#[test]
fn a_canary_gets_its_percent_and_the_policy_balances_within_each_group() {
    let ready = subchannels_of(&[("v1", "a"), ("v2", "a"), ("v1", "a"), ("v2", "a"), ("v1", "a")]);
    let third = 0.95 / 3.0;
    are(
        &picked(&mut arrangement(RoundRobin, None, CANARY), &ready, &ready),
        &[third, 0.025, third, 0.025, third],
    );
}

#[test]
fn nobody_of_a_group_is_ready_and_its_share_goes_to_the_others() {
    let all = subchannels_of(&[("v1", "a"), ("v1", "a"), ("v2", "a")]);
    let mut split = arrangement(RoundRobin, None, CANARY);
    are(&picked(&mut split, &all[..2], &all), &[0.5, 0.5]);
    are(&picked(&mut split, &all[2..], &all), &[1.0]);
    assert_eq!(pick(&*split.update(&[], &[], known(&all))), None);
}

#[test]
fn calls_stay_in_the_zone_and_spill_over_as_it_falls_ill() {
    let all = subchannels_of(&[("v1", "a"), ("v1", "a"), ("v1", "a"), ("v1", "b"), ("v1", "b"), ("v1", "b")]);
    let mut zone = arrangement(RoundRobin, Some("a"), "[]");
    let third = 1.0 / 3.0;
    are(&picked(&mut zone, &all, &all), &[third, third, third, 0.0, 0.0, 0.0]);
    // Two of three can take 14/15, one 7/15.
    are(&picked(&mut zone, &all[1..], &all), &[7.0 / 15.0, 7.0 / 15.0, 1.0 / 45.0, 1.0 / 45.0, 1.0 / 45.0]);
    let eighth = 8.0 / 45.0;
    are(&picked(&mut zone, &all[2..], &all), &[7.0 / 15.0, eighth, eighth, eighth]);
    are(&picked(&mut zone, &all[3..], &all), &[third; 3]);
    are(&picked(&mut zone, &all[..1], &all), &[1.0]);
}

#[test]
fn a_canary_has_its_percent_in_every_zone_and_each_version_stays_near() {
    let all = subchannels_of(&[("v1", "a"), ("v1", "b"), ("v2", "a"), ("v2", "b")]);
    let mut both = arrangement(RoundRobin, Some("a"), CANARY);
    are(&picked(&mut both, &all, &all), &[0.95, 0.0, 0.05, 0.0]);
    are(&picked(&mut both, &[all[0].clone(), all[1].clone(), all[3].clone()], &all), &[0.95, 0.0, 0.05]);
}

#[test]
fn weights_count_within_a_part() {
    let weighted = |port: u16, version: &str, weight: u32| {
        let endpoint = Endpoint::new(format!("10.0.0.1:{port}")).expect("an address");
        Subchannel::new(endpoint.tag("version", version).weight(weight))
    };
    let ready = [weighted(1, "v1", 100), weighted(2, "v1", 300), weighted(3, "v2", 1_000)];
    let mut split = arrangement(WeightedRoundRobin::new(), None, CANARY);
    are(&picked(&mut split, &ready, &ready), &[0.2375, 0.7125, 0.05]);
}

#[test]
fn every_policy_can_be_asked_for_each_part() {
    let ready = subchannels_of(&[("v1", "a"), ("v1", "a"), ("v2", "a"), ("v2", "a")]);
    let first = picked(&mut arrangement(PickFirst, None, CANARY), &ready, &ready);
    are(&first, &[0.95, 0.0, 0.05, 0.0]);
    let hashed = picked(&mut arrangement(RingHash::new(http::header::FROM), None, CANARY), &ready, &ready);
    are(&[hashed[0] + hashed[1], hashed[2] + hashed[3]], &[0.95, 0.05]);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_is_spared_by_those_of_its_own_part() {
    let ready = subchannels_of(&[("v1", "a"), ("v1", "a"), ("v2", "a"), ("v2", "a")]);
    let settings = SlowStart::new(Duration::from_secs(10));
    let warming = Warming { since: Instant::now() - Duration::from_secs(5), settings };
    fastrand::seed(7);
    let picker = arrangement(RoundRobin, None, CANARY).update(
        &ready,
        &[None, None, Some(warming), None],
        known(&ready),
    );
    // Half of its weight: a third of the canary's calls instead of a half.
    are(&shares(&*picker, 4, PICKS), &[0.475, 0.475, 0.05 / 3.0, 0.1 / 3.0]);
}

/// A policy of a user's own, whose indices are out of range.
struct Beyond;

impl Policy for Beyond {
    fn update(&mut self, _: &[Subchannel]) -> Arc<dyn Picker> {
        struct Far;
        impl Picker for Far {
            fn pick(&self, _: &Call<'_>) -> Option<usize> {
                Some(usize::MAX)
            }
        }
        Arc::new(Far)
    }
}

#[test]
fn an_index_out_of_range_stays_within_its_part() {
    let ready = subchannels_of(&[("v1", "a"), ("v2", "a"), ("v2", "a")]);
    let shares = picked(&mut arrangement(Beyond, None, CANARY), &ready, &ready);
    are(&[shares[0], shares[1] + shares[2]], &[0.95, 0.05]);
}

#[test]
fn whoever_is_ready_the_shares_are_whole_and_nobody_is_in_two_parts() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let split: ServiceConfig = r#"{"split": [
        {"match": {"version": "v2"}, "percent": 10}, {"match": {"version": "v3"}, "percent": 0}]}"#
        .parse()
        .expect("a config");
    for _ in 0..10_000 {
        let mut endpoint = || {
            let version = ["v1", "v2", "v3"][rng.usize(..3)];
            let endpoint = Endpoint::new("10.0.0.1:1").expect("an address").tag("version", version);
            let endpoint = endpoint.weight([0, 100, 300][rng.usize(..3)]);
            if rng.bool() { endpoint.zone(["a", "b", "c"][rng.usize(..3)]) } else { endpoint }
        };
        let known: Vec<_> = (0..6).map(|_| endpoint()).collect();
        let ready: Vec<_> = known.iter().filter(|_| rng.bool()).cloned().map(Subchannel::new).collect();
        let parts = parts(Some("a"), &split.split, &ready, &known.iter().collect::<Vec<_>>());
        let sum: f64 = parts.iter().map(|(share, _)| share).sum();
        let context = || format!("{parts:?} of {ready:?}, {known:?}");
        assert!(ready.is_empty() && parts.is_empty() || (sum - 1.0).abs() < 1e-9, "{}", context());
        let mut members: Vec<_> = parts.iter().flat_map(|(_, members)| members).collect();
        let count = members.len();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), count, "{}", context());
    }
}
