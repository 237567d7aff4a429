//! What a user registers: one instance of a service at one address, with what clients choose by.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::name::{InstanceId, ServiceName};
use crate::record::{Address, Weight, readable};

/// One instance of a service, as it is to be registered.
///
/// ```
/// use svc_registry::{Instance, Weight};
/// let instance = Instance::new("greeter", "greeter-1", "10.0.0.1:50051")?
///     .with_zone("a")
///     .with_version("1.4.2")
///     .with_weight(Weight::default())
///     .with_tag("team", "blue");
/// assert_eq!(instance.id().as_str(), "greeter-1");
/// # Ok::<(), svc_registry::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    service: ServiceName,
    id: InstanceId,
    address: Address,
    weight: Weight,
    zone: Option<Arc<str>>,
    version: Option<Arc<str>>,
    tags: BTreeMap<Arc<str>, Arc<str>>,
    secure: bool,
}

impl Instance {
    /// An instance with the default weight, in no zone, without version and tags.
    ///
    /// # Errors
    /// A name or id outside `[A-Za-z0-9][A-Za-z0-9._-]*`, or an address that is not `host:port`, or one that nobody
    /// can be sent to (`0.0.0.0`).
    pub fn new(service: &str, id: &str, address: &str) -> Result<Instance, Error> {
        let service = ServiceName::new(service).map_err(|error| Error::config("service", error))?;
        let id = InstanceId::new(id).map_err(|error| Error::config("id", error))?;
        let address: Address = address.parse().map_err(|error| Error::config("address", error))?;
        if address.is_unspecified() {
            let reason = format!("{address} cannot be dialled; give an address of this host");
            return Err(Error::config("address", reason));
        }
        Ok(Instance::at(service, id, address))
    }

    /// An instance from parts that were validated before.
    pub(crate) fn at(service: ServiceName, id: InstanceId, address: Address) -> Instance {
        Instance {
            service,
            id,
            address,
            weight: Weight::default(),
            zone: None,
            version: None,
            tags: BTreeMap::new(),
            secure: false,
        }
    }

    /// Sets the id. Drain intents hold over restarts only with an id that stays the same.
    #[must_use]
    pub fn with_id(self, id: InstanceId) -> Instance {
        Instance { id, ..self }
    }

    /// Sets the share of the load relative to the weights of the others.
    #[must_use]
    pub fn with_weight(self, weight: Weight) -> Instance {
        Instance { weight, ..self }
    }

    /// Sets where it runs, for clients that prefer their own zone.
    #[must_use]
    pub fn with_zone(self, zone: impl Into<Arc<str>>) -> Instance {
        Instance { zone: Some(zone.into()), ..self }
    }

    /// Sets the version of the program.
    #[must_use]
    pub fn with_version(self, version: impl Into<Arc<str>>) -> Instance {
        Instance { version: Some(version.into()), ..self }
    }

    /// Adds a label.
    #[must_use]
    pub fn with_tag(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Instance {
        self.tags.insert(name.into(), value.into());
        self
    }

    /// Says that it wants TLS.
    #[must_use]
    pub fn with_tls(self, secure: bool) -> Instance {
        Instance { secure, ..self }
    }

    /// Changes the share of the load, for [`Registration::update`](crate::Registration::update).
    pub fn set_weight(&mut self, weight: Weight) {
        self.weight = weight;
    }

    /// Changes the zone.
    pub fn set_zone(&mut self, zone: Option<&str>) {
        self.zone = zone.map(Into::into);
    }

    /// The labels, to be changed.
    pub fn tags_mut(&mut self) -> &mut BTreeMap<Arc<str>, Arc<str>> {
        &mut self.tags
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The id, unique within the service.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it is dialled.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The share of the load.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Where it runs.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The version of the program.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The labels.
    pub fn tags(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.tags
    }

    /// The same instance under another service name.
    #[cfg(feature = "server")]
    pub(crate) fn under(self, service: ServiceName) -> Instance {
        Instance { service, ..self }
    }

    /// Takes over from `changed` what may change while registered: all but service, id and address.
    pub(crate) fn adopt(&mut self, changed: Instance) {
        let (service, id, address) = (self.service.clone(), self.id.clone(), self.address.clone());
        *self = Instance { service, id, address, ..changed };
    }

    /// Refuses what no client could read: control characters in zone, version or tags, or more than 64 KiB of them. A server
    /// does so before it registers; of [`Registrar::register`](crate::Registrar::register) the status says it.
    ///
    /// ```
    /// use svc_registry::Instance;
    /// let instance = Instance::new("greeter", "greeter-1", "10.0.0.1:50051")?;
    /// instance.check()?;
    /// let error = instance.with_zone("a\tb").check().unwrap_err();
    /// assert!(error.to_string().starts_with("zone: "));
    /// # Ok::<(), svc_registry::Error>(())
    /// ```
    ///
    /// # Errors
    /// With the name of the field: `zone`, `version` or `tags`.
    pub fn check(&self) -> Result<(), Error> {
        readable(&self.record()).map(drop).map_err(|bad| {
            let (field, problem) = bad.field_and_problem();
            Error::config(field, problem).with_source(bad)
        })
    }

    /// The record's share of this; the registration adds state, incarnation, epoch and the rest.
    pub(crate) fn record(&self) -> crate::Record {
        let mut record = crate::Record::new(self.service.clone(), self.id.clone(), self.address.clone());
        record.weight = self.weight;
        record.zone = self.zone.clone();
        record.version = self.version.clone();
        record.tags = self.tags.clone();
        record.secure = self.secure;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_refused_with_its_field() {
        for (service, id, address, field) in [
            ("a/b", "i", "h:1", "service"),
            ("a", "*", "h:1", "id"),
            ("a", "i", "h", "address"),
            ("a", "i", "h:0", "address"),
            ("a", "i", "0.0.0.0:1", "address"),
            ("a", "i", "[::]:1", "address"),
        ] {
            let error = Instance::new(service, id, address).expect_err("refused");
            assert!(error.is_config() && error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn what_no_client_could_read_is_refused_with_its_field() {
        let instance = || Instance::new("a", "i", "h:1").unwrap();
        assert!(instance().with_zone("Zürich 1").with_version("").with_tag("", "x").check().is_ok());
        for (bad, field) in [
            (instance().with_zone("a\tb"), "zone"),
            (instance().with_version("1\n"), "version"),
            (instance().with_tag("a\u{1b}", "b"), "tags"),
            (instance().with_tag("a", "\u{9b}"), "tags"),
            (instance().with_tag("a", "x".repeat(crate::record::MAX_VALUE)), "tags"),
        ] {
            let error = bad.check().expect_err(field);
            assert!(error.is_config() && error.to_string().starts_with(&format!("{field}: ")), "{error}");
        }
    }

    #[test]
    fn an_update_changes_neither_name_nor_id_nor_address() {
        let mut instance = Instance::new("a", "i", "h:1").unwrap();
        instance.adopt(Instance::new("b", "j", "h:2").unwrap().with_zone("z"));
        assert_eq!(instance, Instance::new("a", "i", "h:1").unwrap().with_zone("z"));
    }
}
