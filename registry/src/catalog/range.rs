//! What is listed and watched: one range of keys in etcd, and what its keys hold.

use std::sync::Arc;

use super::entry::{BadEntry, Entry, IntentEntry, Item, PolicyEntry};
use crate::intent::DrainIntent;
use crate::keys::Prefix;
use crate::name::{LeaseId, Revision, ServiceName};
use crate::record::decode;

/// A key in etcd: any bytes.
pub(super) type Key = Arc<[u8]>;

/// One service, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    All,
    Service(ServiceName),
}

/// A range of keys. Each has one watch however many subscribers it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Range {
    /// Records of instances that take new work.
    Records(Scope),
    /// Records of instances that drain or have drained.
    Draining(Scope),
    /// The drain intents of all services: they are few, and one watch does for the whole process.
    Intents,
    /// The live service configs of all services: one watch too.
    Policies,
}

/// A key and its value, as etcd gives them.
#[derive(Debug, Clone)]
pub(super) struct Kv {
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
    pub(super) lease: LeaseId,
    pub(super) created: Revision,
    pub(super) modified: Revision,
}

impl Range {
    /// The prefix of its keys.
    pub(super) fn prefix(&self, prefix: &Prefix) -> String {
        match self {
            Self::Records(Scope::All) => prefix.records(),
            Self::Records(Scope::Service(service)) => prefix.records_of(service),
            Self::Draining(Scope::All) => prefix.draining(),
            Self::Draining(Scope::Service(service)) => prefix.draining_of(service),
            Self::Intents => prefix.drain_intents(),
            Self::Policies => prefix.policies(),
        }
    }

    /// Whether a key of it concerns the service, or any where none is named.
    pub(super) fn concerns(&self, prefix: &Prefix, service: Option<&ServiceName>, key: &[u8]) -> bool {
        match (self, service) {
            (Self::Intents, Some(service)) => key.starts_with(prefix.drain_intents_of(service).as_bytes()),
            (Self::Policies, Some(service)) => key == prefix.policy(service).as_bytes(),
            _ => true,
        }
    }

    /// Whether its watch is one for all services.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Intents | Self::Policies)
    }

    /// The range under the other root.
    pub(super) fn draining(&self) -> Option<Range> {
        match self {
            Self::Records(scope) => Some(Self::Draining(scope.clone())),
            Self::Draining(_) | Self::Intents | Self::Policies => None,
        }
    }

    /// Clients hold what vanishes at once; whoever follows all services is a tool, which wants the truth.
    pub(super) fn is_guarded(&self) -> bool {
        matches!(self, Self::Records(Scope::Service(_)))
    }

    /// What a key holds.
    pub(super) fn item(&self, prefix: &Prefix, kv: &Kv) -> Item {
        let read = match self {
            Self::Records(_) | Self::Draining(_) => record(prefix, kv),
            Self::Intents => intent(prefix, kv),
            Self::Policies => policy(prefix, kv),
        };
        read.unwrap_or_else(|reason| {
            Item::Bad(Arc::new(BadEntry { key: kv.key.escape_ascii().to_string(), reason }))
        })
    }
}

fn record(prefix: &Prefix, kv: &Kv) -> Result<Item, String> {
    let key = prefix
        .parse_record(&kv.key)
        .ok_or("it lies under neither record root")?
        .map_err(|e| e.to_string())?;
    let record = decode(&key, &kv.value).map_err(|e| e.to_string())?;
    let (lease, created, modified) = (kv.lease, kv.created, kv.modified);
    Ok(Item::Record(Arc::new(Entry { root: key.root, record, lease, created, modified })))
}

fn intent(prefix: &Prefix, kv: &Kv) -> Result<Item, String> {
    let target =
        prefix.parse_drain_intent(&kv.key).ok_or("it is no drain intent")?.map_err(|e| e.to_string())?;
    let intent = DrainIntent::decode(&kv.value);
    Ok(Item::Intent(Arc::new(IntentEntry { target, intent, modified: kv.modified })))
}

fn policy(prefix: &Prefix, kv: &Kv) -> Result<Item, String> {
    let service = prefix.parse_policy(&kv.key).ok_or("it is no policy")?.map_err(|e| e.to_string())?;
    Ok(Item::Policy(Arc::new(PolicyEntry { service, value: kv.value.clone(), modified: kv.modified })))
}
