//! `ring_hash`: calls with the same key go to the same endpoint, and a change of the set moves few keys: a ketama ring
//! (gRFC A42), keyed by a request header (gRFC A76). Endpoints are connected eagerly here, where gRPC's connects on
//! demand; a key whose endpoint is not ready goes to the next one on the ring.

use std::fmt::Write;
use std::sync::Arc;

use http::HeaderName;
use twox_hash::XxHash64;

use super::{Call, Picker, Policy};
use crate::subchannel::Subchannel;

/// About so many points: fewer make shares uneven, more cost memory for little (gRFC A42 has rings of 1024 to 4096).
const MOST_POINTS: f64 = 4096.0;

/// Calls with the same key go to the same endpoint. The key is the value of a request header; a call without it goes
/// to a random place on the ring. Weights are read: an endpoint with twice the weight has twice the keys.
#[derive(Clone, Debug)]
pub struct RingHash {
    header: HeaderName,
}

impl RingHash {
    /// Keyed by the value of `header` (gRFC A76's `requestHashHeader`).
    pub fn new(header: HeaderName) -> Self {
        Self { header }
    }
}

impl Policy for RingHash {
    fn name(&self) -> &'static str {
        "ring_hash_experimental"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(Ring { header: self.header.clone(), points: points(ready) })
    }
}

/// Each endpoint's points, by the hashes of its name and a number. How many an endpoint has depends on its own weight,
/// times a power of two that the sum decides: so a change of the set leaves the other endpoints' points where they are,
/// until the sum has doubled or halved.
fn points(ready: &[Subchannel]) -> Box<[(u64, u32)]> {
    let total: f64 = ready.iter().map(|s| f64::from(s.endpoint().weight)).sum();
    let weight = |s: &Subchannel| if total == 0.0 { 1.0 } else { f64::from(s.endpoint().weight) };
    let total = if total == 0.0 { ready.len() as f64 } else { total };
    let scale = (MOST_POINTS / total).log2().floor().exp2();
    let mut points = Vec::new();
    let mut name = String::new();
    for (index, subchannel) in ready.iter().enumerate() {
        for number in 0..(weight(subchannel) * scale).ceil() as usize {
            name.clear();
            // Writing into a string cannot fail.
            let _ = write!(name, "{}_{number}", subchannel.endpoint().instance);
            points.push((XxHash64::oneshot(0, name.as_bytes()), index as u32));
        }
    }
    points.sort_unstable();
    points.into()
}

struct Ring {
    header: HeaderName,
    points: Box<[(u64, u32)]>,
}

impl Picker for Ring {
    fn pick(&self, call: &Call<'_>) -> Option<usize> {
        let hash = match call.headers().get(&self.header) {
            Some(key) => XxHash64::oneshot(0, key.as_bytes()),
            None => fastrand::u64(..),
        };
        let at = self.points.partition_point(|(point, _)| *point < hash);
        // Past the last point the ring begins again.
        self.points.get(at).or(self.points.first()).map(|(_, index)| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::{HeaderMap, HeaderValue, Uri};

    use super::super::testing::*;
    use super::*;

    const KEY: HeaderName = HeaderName::from_static("user");

    fn pick_for(picker: &dyn Picker, key: u32) -> usize {
        let value = HeaderValue::from_str(&key.to_string()).expect("digits");
        let headers = HeaderMap::from_iter([(KEY, value)]);
        picker.pick(&Call::new(&Uri::default(), &headers)).expect("some")
    }

    fn shares_of(weights: &[u32]) -> Vec<usize> {
        let picker = RingHash::new(KEY).update(&weighted(weights));
        let mut shares = vec![0; weights.len()];
        (0..20_000).for_each(|key| shares[pick_for(&*picker, key)] += 1);
        shares
    }

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick(&*RingHash::new(KEY).update(&[])), None);
        assert_eq!(shares_of(&[1]), [20_000]);
    }

    #[test]
    fn all_weights_zero_is_all_alike_and_huge_weights_do_not_overflow() {
        for weights in [[0; 4], [u32::MAX; 4]] {
            assert!(
                shares_of(&weights).iter().all(|s| s.abs_diff(5_000) < 1_500),
                "{:?}",
                shares_of(&weights)
            );
        }
    }

    #[test]
    fn twice_the_weight_has_twice_the_keys() {
        let shares = shares_of(&[100, 200]);
        assert!(shares[1].abs_diff(13_333) < 1_800, "{shares:?}");
    }

    #[test]
    fn a_key_stays_where_it_is_and_a_lost_endpoint_moves_its_own_keys_only() {
        let all = subchannels(10);
        let before = RingHash::new(KEY).update(&all);
        let after = RingHash::new(KEY).update(&all[..9]);
        let moved: HashMap<bool, usize> = (0..10_000).fold(HashMap::new(), |mut moved, key| {
            let home = pick_for(&*before, key);
            assert_eq!(home, pick_for(&*before, key));
            if home != 9 {
                *moved.entry(pick_for(&*after, key) != home).or_default() += 1;
            }
            moved
        });
        assert_eq!(moved.get(&true), None, "{moved:?}");
    }

    #[test]
    fn a_call_without_a_key_goes_anywhere() {
        let shares = shares(&*RingHash::new(KEY).update(&subchannels(3)), 3, 3_000);
        assert!(shares.iter().all(|s| *s > 500), "{shares:?}");
    }
}
