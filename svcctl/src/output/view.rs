//! The shapes of `-o json`, which scripts rely on; the tables are drawn from the same values.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use svc_registry::intent::DrainIntent;
use svc_registry::{Incarnation, LeaseId, Record, State};

/// An instance, as every command prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The service's name.
    pub service: String,
    /// The instance's id, unique within the service.
    pub id: String,
    /// Where it is dialled.
    pub address: String,
    /// Whether it takes new work.
    pub state: State,
    /// Its share of the load.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// Its labels.
    pub tags: BTreeMap<String, String>,
    /// Calls in flight; told only while draining or drained.
    pub inflight: Option<u64>,
    /// The lease that keeps its record, in hex; `None` if the record has no owner.
    pub lease: Option<String>,
    /// The lease's time to live in seconds, as granted.
    pub ttl_s: Option<u32>,
    /// Which start of its process wrote the record; `None` in other systems' records.
    pub incarnation: Option<Incarnation>,
    /// When its process started, as RFC 3339.
    pub started_at: Option<String>,
    /// The operator's wish that holds for it.
    pub drain: Option<DrainIntent>,
    /// Why it keeps itself out of service; told only while draining or drained.
    pub reason: Option<String>,
}

impl Instance {
    /// The instance that `record` describes, with the lease that keeps it and the intent that holds for it.
    pub fn new(record: &Record, lease: LeaseId, drain: Option<&DrainIntent>) -> Instance {
        let text = |text: &std::sync::Arc<str>| text.to_string();
        Instance {
            service: record.service.to_string(),
            id: record.id.to_string(),
            address: record.address.to_string(),
            state: record.state,
            weight: record.weight.get(),
            zone: record.zone.as_ref().map(text),
            version: record.version.as_ref().map(text),
            tags: record.tags.iter().map(|(key, value)| (text(key), text(value))).collect(),
            inflight: record.inflight.filter(|_| record.state != State::Serving),
            lease: (lease != LeaseId::NONE).then(|| lease.to_string()),
            ttl_s: record.ttl_s,
            incarnation: record.incarnation,
            started_at: record.started_at.and_then(rfc3339),
            drain: drain.cloned(),
            reason: record.reason.as_ref().filter(|_| record.state != State::Serving).map(text),
        }
    }
}

/// Whole seconds of UTC, as operators read them.
fn rfc3339(time: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(time).ok()?;
    Some(jiff::Timestamp::from_second(time.as_second()).ok()?.to_string())
}

/// A key whose value could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The key, control characters escaped.
    pub key: String,
    /// Why not.
    pub reason: String,
}

/// The answer of `get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instances {
    /// The revision of etcd at which all of it held.
    pub revision: i64,
    /// One entry an id, ordered by service and id.
    pub instances: Vec<Instance>,
    /// What was skipped.
    pub bad: Vec<Bad>,
}

/// One line of `services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Instances that take new work.
    pub serving: usize,
    /// Instances that finish what they have.
    pub draining: usize,
    /// Instances without work.
    pub drained: usize,
    /// Keys below it that could not be used.
    pub bad: usize,
}

/// The answer of `services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Services {
    /// Ordered by name.
    pub services: Vec<Service>,
}

/// What a line of `watch` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeType {
    /// It was not there before.
    Added,
    /// It was, and is.
    Modified,
    /// It is no more; the object is its last known form.
    Deleted,
}

/// A line of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened.
    #[serde(rename = "type")]
    pub change: ChangeType,
    /// To whom.
    pub object: Instance,
}
