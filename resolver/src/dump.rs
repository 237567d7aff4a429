//! What a client sees, and why: for people, logs and debug pages.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use svc_channel::{Channel, ChannelDump, WeakChannel};
use svc_registry::State;
use svc_registry::catalog::{Entry, Selector, Snapshot};

use crate::filter::{Excluded, Filter};
use crate::target::Wanted;

/// All channels of a resolver that are in use.
#[derive(Debug, Clone, Serialize)]
pub struct ResolverDump {
    /// One for each, in the order in which they were made.
    pub channels: Vec<TargetDump>,
}

/// One channel.
#[derive(Debug, Clone, Serialize)]
pub struct TargetDump {
    /// The target that it was made for.
    pub target: String,
    /// What it sees: every endpoint with its state, load, weight and last error.
    pub channel: ChannelDump,
}

/// An instance as a client of a target judges it.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// Where it is dialled.
    pub address: String,
    /// Its state.
    pub state: State,
    /// Its share of the load.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<String>,
    /// The version of the program.
    pub version: Option<String>,
    /// Why it is left out; a client uses it if `None`.
    pub excluded: Option<String>,
}

/// The channels that were made, as long as somebody has them.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<Vec<(String, WeakChannel)>>);

impl Channels {
    pub(crate) fn note(&self, target: &str, channel: &Channel) {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(_, channel)| channel.is_alive());
        channels.push((target.to_owned(), channel.downgrade()));
    }

    pub(crate) fn dump(&self) -> ResolverDump {
        let channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let dump = |(target, channel): &(String, WeakChannel)| {
            Some(TargetDump { target: target.clone(), channel: channel.dump()? })
        };
        ResolverDump { channels: channels.iter().filter_map(dump).collect() }
    }
}

/// What has to be read to judge a service's instances.
pub(crate) fn selector(service: &svc_registry::ServiceName) -> Selector {
    Selector::service(service.clone()).with_draining().with_intents()
}

/// Judges what was read as a client that wants this does, by service id.
pub(crate) fn candidates(wanted: &Wanted, snapshot: Snapshot) -> Vec<Candidate> {
    let mut filter = Filter::new(wanted.clone());
    filter.start(snapshot);
    let mut candidates: Vec<_> =
        filter.explain().into_iter().map(|(entry, excluded)| candidate(&entry, excluded)).collect();
    candidates.sort_by(|a, b| a.id.cmp(&b.id));
    candidates
}

fn candidate(entry: &Entry, excluded: Option<Excluded>) -> Candidate {
    let record = &entry.record;
    Candidate {
        id: record.id.to_string(),
        address: record.address.to_string(),
        state: record.state,
        weight: record.weight.get(),
        zone: record.zone.as_deref().map(str::to_owned),
        version: record.version.as_deref().map(str::to_owned),
        excluded: excluded.map(|reason| reason.to_string()),
    }
}

/// One that a static target names.
pub(crate) fn fixed(address: &str) -> Candidate {
    Candidate {
        id: address.to_owned(),
        address: address.to_owned(),
        state: State::Serving,
        weight: svc_channel::DEFAULT_WEIGHT,
        zone: None,
        version: None,
        excluded: None,
    }
}
