use http::{HeaderMap, HeaderName, Uri};

use super::super::testing::*;
use std::time::Duration;

use super::super::warming::SlowStart;
use super::*;
use crate::{LeastRequest, PeakEwma, RingHash, RoundRobin, WeightedRoundRobin};

const WINDOW: Duration = Duration::from_secs(10);

/// A picker over `n`, of which the first `new` have been warming for `age`.
fn led(policy: &mut dyn Policy, n: usize, new: usize, age: Duration) -> Arc<dyn Picker> {
    around(policy, &subchannels(n), warming(n, new, age))
}

fn warming(n: usize, new: usize, age: Duration) -> Box<[Option<Warming>]> {
    let since = Instant::now() - age;
    (0..n).map(|i| (i < new).then(|| Warming { since, settings: SlowStart::new(WINDOW) })).collect()
}

#[tokio::test(start_paused = true)]
async fn the_curve_is_envoys() {
    let linear = SlowStart::new(WINDOW);
    let at = |settings: SlowStart, seconds| settings.factor(Duration::from_secs(seconds));
    assert_eq!([0, 1, 2, 5, 10, 60].map(|s| at(linear, s)), [0.1, 0.1, 0.2, 0.5, 1.0, 1.0]);
    let eager = linear.aggression(2.0);
    assert!((at(eager, 4) - 0.4f64.sqrt()).abs() < 1e-9, "the exponent is 1 / aggression");
    let shy = linear.aggression(0.5).min_weight_percent(0);
    assert!((at(shy, 5) - 0.25).abs() < 1e-9 && at(shy, 0) == 0.0);
}

#[test]
fn settings_out_of_range_count_as_the_nearest() {
    let settings = SlowStart::new(Duration::ZERO).aggression(f64::NAN).min_weight_percent(1_000);
    assert_eq!(settings.factor(Duration::ZERO), 1.0, "no window, no slow start");
    assert_eq!((settings.aggression, settings.min_weight_percent), (0.01, 100));
}

#[tokio::test(start_paused = true)]
async fn the_share_in_turns_is_f_of_n_minus_1_plus_f_at_every_age() {
    for n in [2, 3, 8] {
        for seconds in [0, 3, 5, 9] {
            let age = Duration::from_secs(seconds);
            let f = SlowStart::new(WINDOW).factor(age);
            let picks = 40_000;
            let expected = f / (n as f64 - 1.0 + f) * picks as f64;
            for policy in [&mut RoundRobin::new() as &mut dyn Policy, &mut WeightedRoundRobin::new()] {
                let shares = shares(&*led(policy, n, 1, age), n, picks);
                // Five standard deviations of that share are below 500.
                assert!((shares[0] as f64 - expected).abs() < 500.0, "{n}, {f}: {shares:?}, not {expected}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn policies_that_look_at_load_give_an_idle_new_one_at_most_twice_the_curve() {
    let (n, picks) = (8, 40_000);
    for seconds in [0, 5] {
        let age = Duration::from_secs(seconds);
        let f = SlowStart::new(WINDOW).factor(age);
        let curve = f / (n as f64 - 1.0 + f);
        for policy in [&mut LeastRequest::new() as &mut dyn Policy, &mut PeakEwma::new()] {
            let ready = subchannels(n);
            ready[1..].iter().for_each(|s| s.load().count_for_tests(5));
            let picker = around(policy, &ready, warming(n, 1, age));
            let share = shares(&*picker, n, picks)[0] as f64 / picks as f64;
            assert!((0.8 * curve..2.5 * curve).contains(&share), "{share} at {f}, curve {curve}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_new_endpoint_is_either_there_or_where_it_was_before() {
    let header = HeaderName::from_static("key");
    let ready = subchannels(4);
    let before = RingHash::new(header.clone()).update(&ready[1..]);
    let picker = around(&mut RingHash::new(header.clone()), &ready, warming(4, 1, WINDOW / 2));
    for key in 0..500 {
        let mut headers = HeaderMap::new();
        headers.insert(&header, key.into());
        let uri = Uri::default();
        let call = Call::new(&uri, &headers);
        let former = before.pick(&call).map(|i| i + 1);
        let picked = picker.pick(&call);
        assert!(picked == Some(0) || picked == former, "key {key}: {picked:?}, before {former:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bal_9_where_most_are_new_they_have_equal_shares_at_once() {
    for (n, new) in [(1, 1), (3, 2), (4, 4), (8, 5)] {
        let shares = shares(&*led(&mut RoundRobin::new(), n, new, Duration::ZERO), n, 100 * n);
        assert_eq!(shares, vec![100; n], "{new} of {n} are new");
    }
    let half = shares(&*led(&mut RoundRobin::new(), 4, 2, Duration::ZERO), 4, 4_000);
    assert!(half[0] < 400 && half[1] < 400, "half is not most: {half:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_weight_takes_no_calls_that_a_new_one_does_not_take_yet() {
    let warming = warming(3, 1, Duration::ZERO);
    let picker = around(&mut WeightedRoundRobin::new(), &weighted(&[100, 0, 0]), warming);
    assert_eq!(shares(&*picker, 3, 100), [100, 0, 0]);
}

#[test]
fn while_nobody_is_warming_the_policys_own_picker_is_used() {
    struct Fixed(Arc<dyn Picker>);
    impl Policy for Fixed {
        fn update(&mut self, _: &[Subchannel]) -> Arc<dyn Picker> {
            self.0.clone()
        }
    }
    let own = RoundRobin::new().update(&subchannels(2));
    let picker = led(&mut Fixed(own.clone()), 2, 0, Duration::ZERO);
    assert!(Arc::ptr_eq(&own, &picker));
}
