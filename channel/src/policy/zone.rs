//! Zone preference: what part of the calls stays in the client's own zone. In come the endpoints that are ready and
//! those that discovery knows, out goes a share, by which [`Arrangement`](super::arrange::Arrangement) draws.
//!
//! Two bounds, of which the lower holds:
//!
//! * *Health*, after Envoy's priority levels ("Load Balancing, Priority levels": the own zone is the first level,
//!   everything else the second). A level can take 1.4 times the ready part of its capacity, so 71 % of ready endpoints
//!   take all; below that the rest spills over. Where both levels together cannot take everything they share the calls
//!   in proportion to what they can take.
//! * *Size*, after Envoy's zone aware routing: where the own zone has a smaller part of the capacity than of the
//!   callers, the difference goes elsewhere. How the callers are spread is not known here: they are taken to be spread
//!   evenly over the zones that discovery knows. Then no endpoint gets more than 1.4 times its fair part from its own
//!   zone. Where most callers are in one zone that does not hold; give them no zone, or weights.
//!
//! Capacity is weight, as with Envoy's `weighted_priority_health`, or one each where nobody with a weight is ready: a
//! zone whose weights an operator has set to zero takes nothing while others can.

use std::collections::BTreeSet;

use crate::endpoint::Endpoint;

/// Envoy's default overprovisioning factor, 140 %.
const OVERPROVISIONING: f64 = 1.4;

/// Whether the endpoint is in the zone.
pub(super) fn is_in(zone: &str, endpoint: &Endpoint) -> bool {
    endpoint.zone.as_deref() == Some(zone)
}

/// The part of the calls, 0 to 1, that stays in `zone`. `ready` are those that take calls, `known` all of them.
pub(super) fn local_share(zone: &str, ready: &[&Endpoint], known: &[&Endpoint]) -> f64 {
    let capacity = Capacity::of(ready);
    let local = |endpoint: &Endpoint| is_in(zone, endpoint);
    let (ready_local, ready_all) = (capacity.sum(ready, local), capacity.sum(ready, |_| true));
    if ready_local == 0.0 {
        return 0.0;
    }
    let known_local = capacity.sum(known, local);
    let level = |ready: f64, known: f64| {
        if known == 0.0 { 0.0 } else { (OVERPROVISIONING * ready / known).min(1.0) }
    };
    let (here, there) = (
        level(ready_local, known_local),
        level(ready_all - ready_local, capacity.sum(known, |_| true) - known_local),
    );
    if there == 0.0 {
        return 1.0;
    }
    let by_health = here / (here + there).min(1.0);
    let zones: BTreeSet<_> = known.iter().filter_map(|e| e.zone.as_deref()).chain([zone]).collect();
    let by_size = OVERPROVISIONING * zones.len() as f64 * ready_local / ready_all;
    by_health.min(by_size).min(1.0)
}

/// What endpoints can take, relative to each other.
struct Capacity {
    all_zero: bool,
}

impl Capacity {
    fn of(endpoints: &[&Endpoint]) -> Self {
        Self { all_zero: endpoints.iter().all(|e| e.weight == 0) }
    }

    fn sum(&self, endpoints: &[&Endpoint], which: impl Fn(&Endpoint) -> bool) -> f64 {
        let one = |e: &&Endpoint| if self.all_zero { 1.0 } else { f64::from(e.weight) };
        endpoints.iter().filter(|e| which(e)).map(one).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many endpoints in each zone; the zone `-` is none.
    fn endpoints(zones: &[(&str, usize)]) -> Vec<Endpoint> {
        let one = |zone: &str| {
            let endpoint = Endpoint::new("10.0.0.1:1").expect("an address");
            if zone == "-" { endpoint } else { endpoint.zone(zone) }
        };
        zones.iter().flat_map(|(zone, count)| (0..*count).map(move |_| one(zone))).collect()
    }

    fn share(ready: &[(&str, usize)], known: &[(&str, usize)]) -> f64 {
        let (ready, known) = (endpoints(ready), endpoints(known));
        local_share("a", &ready.iter().collect::<Vec<_>>(), &known.iter().collect::<Vec<_>>())
    }

    #[track_caller]
    fn is(share: f64, expected: f64) {
        assert!((share - expected).abs() < 1e-9, "{share} instead of {expected}");
    }

    #[test]
    fn calls_stay_while_the_zone_is_healthy_enough_and_spill_over_in_proportion() {
        let known = [("a", 10), ("b", 10), ("c", 10)];
        for (ready, expected) in [(10, 1.0), (8, 1.0), (7, 0.98), (5, 0.7), (1, 0.14), (0, 0.0)] {
            is(share(&[("a", ready), ("b", 10), ("c", 10)], &known), expected);
        }
    }

    #[test]
    fn they_stay_where_nobody_else_is_ready_and_go_where_nobody_is_here() {
        is(share(&[("a", 1)], &[("a", 10), ("b", 10)]), 1.0);
        is(share(&[("a", 1)], &[("a", 10)]), 1.0);
        is(share(&[("b", 1)], &[("a", 10), ("b", 10)]), 0.0);
        is(share(&[("b", 1)], &[("b", 1)]), 0.0);
        is(share(&[], &[("a", 10), ("b", 10)]), 0.0);
    }

    #[test]
    fn where_both_levels_are_ill_they_share_by_what_they_can_take() {
        // 0.28 here, 0.14 there: two thirds stay.
        is(share(&[("a", 2), ("b", 1)], &[("a", 10), ("b", 10)]), 2.0 / 3.0);
    }

    #[test]
    fn a_zone_with_few_instances_is_not_overrun() {
        let zones = [("a", 1), ("b", 4), ("c", 4)];
        // One of nine for a third of the callers: 1.4 of its fair part, which is a third of the calls from here.
        is(share(&zones, &zones), 1.4 / 3.0);
        let zones = [("a", 2), ("-", 8)];
        is(share(&zones, &zones), 0.28);
        let large = [("a", 4), ("b", 1), ("c", 1)];
        is(share(&large, &large), 1.0);
    }

    #[test]
    fn capacity_is_weight() {
        let weighted = |weights: [u32; 4]| {
            let endpoints: Vec<_> = endpoints(&[("a", 2), ("b", 2)])
                .into_iter()
                .zip(weights)
                .map(|(endpoint, weight)| endpoint.weight(weight))
                .collect();
            let known: Vec<_> = endpoints.iter().collect();
            local_share("a", &known[1..], &known)
        };
        is(weighted([300, 100, 200, 200]), 0.35);
        is(weighted([0, 0, 100, 100]), 0.0);
        is(weighted([100, 100, 0, 0]), 1.0);
        is(weighted([0; 4]), 0.7);
        is(weighted([100, 0, 0, 0]), 0.7);
    }
}
