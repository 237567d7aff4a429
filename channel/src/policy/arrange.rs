//! From the ready endpoints to the picker that calls read: split, then zone, then slow start, then the policy.
//!
//! ```text
//! ready --split--> groups, each with its share --zone--> here and elsewhere --slow start, policy--> a picker for each part
//! ```
//!
//! The split comes first, so that a version gets its percent of the calls wherever its callers run; were the zone first,
//! a zone without canaries would have none of the experiment, and one with few would send more there. The zone comes
//! next, within each group, so that every version's calls stay near. Slow start goes around the policy in each part: it
//! spares a new endpoint at the cost of others, which have to be such as may take its calls. The policy sees the
//! endpoints of one part only and balances among them. The draws of split and zone are by chance and independent of each
//! other, so they are one draw in one table: a pick costs a random number and a short search beside the policy's own,
//! and where there is one part only, nothing.

use std::sync::Arc;

use super::slow_start;
use super::split::{self, Rule};
use super::warming::Warming;
use super::{Call, Picker, Policy, zone};
use crate::endpoint::Endpoint;
use crate::service_config::ServiceConfig;
use crate::service_config::policies::PolicyConfig;
use crate::subchannel::Subchannel;

/// How a channel chooses; the owner's.
pub(crate) struct Arrangement {
    /// The builder's.
    own: Box<dyn Policy>,
    /// The service config's, which counts before it.
    configured: Option<(PolicyConfig, Box<dyn Policy>)>,
    /// Where the client runs.
    zone: Option<Arc<str>>,
    split: Vec<Rule>,
}

impl Arrangement {
    pub(crate) fn new(own: Box<dyn Policy>, zone: Option<Arc<str>>, config: &ServiceConfig) -> Self {
        let mut this = Self { own, configured: None, zone, split: Vec::new() };
        this.configure(config);
        this
    }

    /// Takes another config; a policy that it names as the last one did goes on.
    pub(crate) fn configure(&mut self, config: &ServiceConfig) {
        self.split.clone_from(&config.split);
        self.configured = match (&config.policy, self.configured.take()) {
            (Some(wanted), Some((present, policy))) if *wanted == present => Some((present, policy)),
            (Some(wanted), _) => Some((wanted.clone(), wanted.make())),
            (None, _) => None,
        };
    }

    pub(crate) fn policy(&self) -> &dyn Policy {
        self.configured.as_ref().map_or(&*self.own, |(_, policy)| &**policy)
    }

    /// A picker for `ready`, of which some may be `warming`; `known` are all endpoints, the ready ones included.
    pub(crate) fn update<'a>(
        &mut self,
        ready: &[Subchannel],
        warming: &[Option<Warming>],
        known: impl Iterator<Item = &'a Endpoint>,
    ) -> Arc<dyn Picker> {
        let policy = self.configured.as_mut().map_or(&mut *self.own, |(_, policy)| &mut **policy);
        if self.zone.is_none() && self.split.is_empty() {
            return slow_start::around(policy, ready, warming.into());
        }
        let parts = parts(self.zone.as_deref(), &self.split, ready, &known.collect::<Vec<_>>());
        match &*parts {
            [] => policy.update(&[]),
            [(_, all)] if all.len() == ready.len() => slow_start::around(policy, ready, warming.into()),
            parts => {
                let mut drawn = Drawn::default();
                for (share, members) in parts {
                    let subchannels: Vec<_> = members.iter().map(|i| ready[*i as usize].clone()).collect();
                    let warming = members.iter().map(|i| warming[*i as usize]).collect();
                    let picker = slow_start::around(policy, &subchannels, warming);
                    drawn.add(*share, Part { picker, members: members.clone() });
                }
                Arc::new(drawn)
            }
        }
    }
}

/// The parts of the ready endpoints that take calls: each one's share, and its members as indices.
fn parts(
    zone: Option<&str>,
    rules: &[Rule],
    ready: &[Subchannel],
    known: &[&Endpoint],
) -> Vec<(f64, Box<[u32]>)> {
    let ready: Vec<&Endpoint> = ready.iter().map(|s| &**s.endpoint()).collect();
    let (ready_groups, known_groups) = (split::groups(rules, &ready), split::groups(rules, known));
    let mut parts = Vec::new();
    for (group, share) in split::shares(rules, &ready, &ready_groups).into_iter().enumerate() {
        let members = &ready_groups[group];
        let Some(zone) = zone else {
            parts.push((share, members.clone()));
            continue;
        };
        let stays = zone::local_share(zone, &of(members, &ready), &of(&known_groups[group], known));
        let (here, elsewhere) = members.iter().partition(|i| zone::is_in(zone, ready[**i as usize]));
        parts.extend([(share * stays, here), (share * (1.0 - stays), elsewhere)]);
    }
    parts.retain(|(share, members)| *share > 0.0 && !members.is_empty());
    parts.into_iter().map(|(share, members)| (share, members.into())).collect()
}

fn of<'a>(members: &[u32], endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    members.iter().map(|index| endpoints[*index as usize]).collect()
}

/// Some of the ready endpoints, with a picker of their own.
struct Part {
    picker: Arc<dyn Picker>,
    /// What its indices mean.
    members: Box<[u32]>,
}

/// Draws one of the parts by its share.
#[derive(Default)]
struct Drawn {
    parts: Vec<Part>,
    /// Up to where of 2^32 each part reaches.
    bounds: Vec<u64>,
    sum: f64,
}

impl Drawn {
    fn add(&mut self, share: f64, part: Part) {
        self.sum += share;
        self.bounds.push((self.sum * (1u64 << 32) as f64).round() as u64);
        self.parts.push(part);
    }
}

impl Picker for Drawn {
    fn pick(&self, call: &Call<'_>) -> Option<usize> {
        let drawn = u64::from(fastrand::u32(..));
        // Shares sum up to one but for rounding; what is past the last bound is the last part's.
        let at = self.bounds.partition_point(|bound| *bound <= drawn);
        let part = self.parts.get(at).or(self.parts.last())?;
        let within = part.picker.pick(call)?.checked_rem(part.members.len())?;
        part.members.get(within).map(|index| *index as usize)
    }
}

#[cfg(test)]
#[path = "arrange_tests.rs"]
mod tests;
