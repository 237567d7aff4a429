//! The split of a service's calls between versions: rules, each with what it matches and its percent, from the service
//! config's `split` (an extension of ours). In come the ready endpoints, out go [`groups`] of them with their shares,
//! by which [`Arrangement`](super::arrange::Arrangement) draws.
//!
//! * An endpoint belongs to the first rule that it matches; those that match none are the rest, which gets what the
//!   rules leave of a hundred.
//! * A rule matches by tags, all that it names; the version is the tag `version`. `zone` is the endpoint's zone, not a
//!   tag of that name: where an endpoint is has one truth.
//! * A group of which nobody is ready (or whose weights are all zero, while others' are not) gives its share to the
//!   rest. Where nobody of the rest is ready, the groups share everything by their percents; where those are all zero,
//!   alike. Answering comes before splitting: to keep calls from a version altogether, drain it or select another.

use std::collections::BTreeMap;

use crate::endpoint::Endpoint;

/// One rule of a split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// What an endpoint has to have: tags, and `zone`.
    pub(crate) matches: BTreeMap<String, String>,
    /// 0 to 100.
    pub(crate) percent: f64,
}

impl Rule {
    fn fits(&self, endpoint: &Endpoint) -> bool {
        self.matches.iter().all(|(name, value)| {
            let found = match &**name {
                "zone" => endpoint.zone.as_deref(),
                tag => endpoint.tags.get(tag).map(String::as_str),
            };
            found == Some(value)
        })
    }
}

/// The number of the group to which an endpoint belongs: its rule's; that of the rest comes after all rules'.
fn group_of(rules: &[Rule], endpoint: &Endpoint) -> usize {
    rules.iter().position(|rule| rule.fits(endpoint)).unwrap_or(rules.len())
}

/// The members of each rule's group, as indices, and after them those of the rest.
pub(super) fn groups(rules: &[Rule], endpoints: &[&Endpoint]) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); rules.len() + 1];
    for (index, endpoint) in endpoints.iter().enumerate() {
        groups[group_of(rules, endpoint)].push(index as u32);
    }
    groups
}

/// Each group's share of the calls, 0 to 1; all zero where nobody is ready.
pub(super) fn shares(rules: &[Rule], ready: &[&Endpoint], groups: &[Vec<u32>]) -> Vec<f64> {
    let all_zero = ready.iter().all(|e| e.weight == 0);
    let takes_calls = |index: &u32| all_zero || ready[*index as usize].weight > 0;
    let can_answer: Vec<bool> = groups.iter().map(|group| group.iter().any(takes_calls)).collect();
    let mut percents: Vec<f64> =
        rules.iter().zip(&can_answer).map(|(rule, can)| if *can { rule.percent } else { 0.0 }).collect();
    let taken: f64 = percents.iter().sum();
    let rest = if can_answer[rules.len()] { (100.0 - taken).max(0.0) } else { 0.0 };
    percents.push(rest);
    if taken + rest == 0.0 {
        // Only such are ready as are to have nothing: that is better than no answer.
        percents = can_answer.iter().map(|can| f64::from(u8::from(*can))).collect();
    }
    let sum: f64 = percents.iter().sum();
    percents.iter().map(|percent| if sum == 0.0 { 0.0 } else { percent / sum }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &[(&str, &str)], percent: f64) -> Rule {
        let matches = matches.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Rule { matches: matches.collect(), percent }
    }

    fn version(version: &str) -> Endpoint {
        Endpoint::new("10.0.0.1:1").expect("an address").tag("version", version)
    }

    /// The shares of v2 (5 %), v3 (20 %) and the rest, where these versions are ready.
    fn shares_of(versions: &[&str]) -> Vec<f64> {
        let rules = [rule(&[("version", "v2")], 5.0), rule(&[("version", "v3")], 20.0)];
        let ready: Vec<_> = versions.iter().map(|v| version(v)).collect();
        shares_by(&rules, &ready.iter().collect::<Vec<_>>())
    }

    fn shares_by(rules: &[Rule], ready: &[&Endpoint]) -> Vec<f64> {
        shares(rules, ready, &groups(rules, ready))
    }

    #[test]
    fn each_group_has_its_percent_however_many_it_are() {
        assert_eq!(shares_of(&["v1", "v2", "v3"]), [0.05, 0.2, 0.75]);
        assert_eq!(shares_of(&["v1", "v2", "v2", "v2", "v3"]), [0.05, 0.2, 0.75]);
    }

    #[test]
    fn a_group_that_is_not_ready_gives_its_share_to_the_rest_and_the_rest_to_the_groups() {
        assert_eq!(shares_of(&["v1", "v2"]), [0.05, 0.0, 0.95]);
        assert_eq!(shares_of(&["v1"]), [0.0, 0.0, 1.0]);
        assert_eq!(shares_of(&["v2", "v3"]), [0.2, 0.8, 0.0]);
        assert_eq!(shares_of(&["v2"]), [1.0, 0.0, 0.0]);
        assert_eq!(shares_of(&[]), [0.0; 3]);
    }

    #[test]
    fn a_group_of_zero_percent_answers_only_where_nobody_else_does() {
        let rules = [rule(&[("version", "v2")], 0.0)];
        let (old, new) = (version("v1"), version("v2"));
        assert_eq!(shares_by(&rules, &[&old, &new]), [0.0, 1.0]);
        assert_eq!(shares_by(&rules, &[&new]), [1.0, 0.0]);
    }

    #[test]
    fn a_group_without_weight_is_not_ready() {
        let rules = [rule(&[("version", "v2")], 50.0)];
        let (old, new) = (version("v1"), version("v2"));
        assert_eq!(shares_by(&rules, &[&old, &new.clone().weight(0)]), [0.0, 1.0]);
        assert_eq!(shares_by(&rules, &[&old.weight(0), &new.weight(0)]), [0.5, 0.5], "all zero is all alike");
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_all_of_its_tags_have_to() {
        let rules = [rule(&[("version", "v2"), ("zone", "a")], 1.0), rule(&[("version", "v2")], 2.0)];
        let group = |endpoint: Endpoint| group_of(&rules, &endpoint);
        assert_eq!(group(version("v2").zone("a")), 0);
        assert_eq!(group(version("v2").zone("b")), 1);
        assert_eq!(group(version("v2").tag("zone", "a")), 1, "a zone is no tag");
        assert_eq!(group(version("v1").zone("a")), 2);
    }
}
