//! What discovery hands on: an instance as a client needs it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use svc_channel::Endpoint;
use svc_registry::catalog::Entry;
use tokio::time::Instant;
use tower::BoxError;

/// The name by which a `Discover` inserts and removes: an instance's id, unique within the service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey(pub(crate) Arc<str>);

impl InstanceKey {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An instance that takes new work.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Resolved {
    /// Its id.
    pub key: InstanceKey,
    /// `host:port`; of a static target also `unix:/path`.
    pub address: Arc<str>,
    /// Whether it wants TLS.
    pub secure: bool,
    /// Its share of the load.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// The version of the program.
    pub version: Option<Arc<str>>,
    /// Labels.
    pub tags: BTreeMap<Arc<str>, Arc<str>>,
    /// It vanished from etcd together with most others and is not given up before then.
    pub held_until: Option<Instant>,
}

impl Resolved {
    pub(crate) fn new(entry: &Entry, held_until: Option<Instant>) -> Self {
        let record = &entry.record;
        Self {
            key: InstanceKey(record.id.as_str().into()),
            address: record.address.to_arc(),
            secure: record.secure,
            weight: record.weight.get(),
            zone: record.zone.clone(),
            version: record.version.clone(),
            tags: record.tags.clone(),
            held_until,
        }
    }

    /// One that a static target names.
    pub(crate) fn fixed(address: &str) -> Self {
        Self {
            key: InstanceKey(address.into()),
            address: address.into(),
            secure: false,
            weight: svc_channel::DEFAULT_WEIGHT,
            zone: None,
            version: None,
            tags: BTreeMap::new(),
            held_until: None,
        }
    }
}

/// Makes what a consumer of a `Discover` balances over from an instance.
///
/// Called by [`EtcdDiscover`](crate::EtcdDiscover) as it is polled, for each instance that is new or changed; it must
/// not block. An instance for which it fails is left out and logged; the `Discover` itself never fails.
pub trait MakeEndpoint: Send + 'static {
    /// What is balanced over.
    type Service: Send + 'static;

    /// Whether the consumer takes an insert of a key that it has as an update in place, as our channel does. If not, as
    /// with tower's `Balance`, only a changed address is told, as a removal and an insert: to such a consumer every
    /// insert is a new connection.
    const UPDATES_IN_PLACE: bool = false;

    /// Makes one.
    ///
    /// # Errors
    /// When the consumer cannot use this instance.
    fn make(&mut self, instance: &Resolved) -> Result<Self::Service, BoxError>;
}

/// Makes our channel's endpoints.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChannelEndpoints;

impl MakeEndpoint for ChannelEndpoints {
    type Service = Endpoint;

    const UPDATES_IN_PLACE: bool = true;

    fn make(&mut self, instance: &Resolved) -> Result<Endpoint, BoxError> {
        let mut endpoint = Endpoint::new(&*instance.address)?
            .instance(instance.key.0.clone())
            .weight(instance.weight)
            .secure(instance.secure)
            .held_until(instance.held_until);
        if let Some(zone) = &instance.zone {
            endpoint = endpoint.zone(zone.clone());
        }
        // Policies know tags only: the version is one of them, unless the user has a tag of that name.
        let version = instance.version.as_deref().map(|version| ("version", version));
        let tags = instance.tags.iter().map(|(name, value)| (&**name, &**value));
        Ok(version
            .into_iter()
            .chain(tags)
            .fold(endpoint, |endpoint, (name, value)| endpoint.tag(name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_wants_tls_is_an_endpoint_that_does() {
        let plain = Resolved::fixed("10.0.0.1:50051");
        let secure = Resolved { secure: true, ..plain.clone() };
        let made = |instance| ChannelEndpoints.make(instance).map(|endpoint| endpoint.secure).ok();
        assert_eq!((made(&plain), made(&secure)), (Some(false), Some(true)));
    }
}
