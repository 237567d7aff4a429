//! [`ChannelDump`]: what a channel sees, for people and for logs.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::owner::snapshot::Snapshot;
use crate::subchannel::Subchannel;
pub use crate::subchannel::state::State as EndpointState;

/// A channel at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelDump {
    /// The channel's name.
    pub name: Arc<str>,
    /// The policy that picks.
    pub policy: &'static str,
    /// What discovery says.
    pub discovery: String,
    /// Every endpoint that is known.
    pub endpoints: Vec<EndpointDump>,
}

/// One endpoint of a channel at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointDump {
    /// The instance's name.
    pub instance: Arc<str>,
    /// Where it listens.
    pub address: String,
    /// The address that its calls go to, with what a host name stood for; none while it is not connected.
    pub connected_to: Option<Arc<str>>,
    /// Its state.
    pub state: EndpointState,
    /// For how long it has been in that state.
    #[serde(rename = "since_ms", serialize_with = "as_ms")]
    pub since: Duration,
    /// Its weight.
    pub weight: u32,
    /// The weight by its own load reports, where the policy reads them and they count by now.
    pub reported_weight: Option<f32>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Calls in flight, streams included.
    pub in_flight: u32,
    /// What least-loaded policies compare.
    pub load: u32,
    /// The moving average of the time to response headers; none before the first.
    #[serde(rename = "latency_us", serialize_with = "as_us")]
    pub latency: Option<Duration>,
    /// Why it was last lost or could not be connected.
    pub last_error: Option<Arc<str>>,
    /// How often it was ejected of late.
    pub ejections: u32,
    /// What its weight counts by now, where slow start leads it up to its share; below 1.
    pub slow_start: Option<f64>,
    /// Whether discovery has lost it and the channel holds on to it.
    pub held: bool,
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

fn as_us<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|d| d.as_micros() as u64).serialize(serializer)
}

impl ChannelDump {
    pub(crate) fn of(name: &Arc<str>, snapshot: &Snapshot) -> Self {
        let now = Instant::now();
        let endpoints = snapshot.endpoints.iter().map(Subchannel::face).map(|face| EndpointDump {
            instance: face.endpoint.instance.clone(),
            address: face.endpoint.address.to_string(),
            connected_to: face.reached.clone(),
            state: face.state,
            since: now.saturating_duration_since(face.since),
            weight: face.endpoint.weight,
            reported_weight: face.load.reported_weight(),
            zone: face.endpoint.zone.clone(),
            in_flight: face.load.in_flight(),
            load: face.load.value(),
            latency: face.load.latency(),
            last_error: face.last_error.clone(),
            ejections: face.ejections,
            slow_start: face.warming.filter(|w| !w.is_over(now)).map(|w| w.factor(now)),
            held: face.endpoint.held_until.is_some(),
        });
        Self {
            name: name.clone(),
            policy: snapshot.policy,
            discovery: snapshot.resolution.clone(),
            endpoints: endpoints.collect(),
        }
    }
}
