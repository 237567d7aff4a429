//! Every key and every range in etcd is built, and taken apart, here.
//!
//! In come validated names; out go keys under one [`Prefix`] and its two siblings (`-draining`, `-control`).
//! Ranges always end in `/`, so that `greeter` never matches `greeter-v2`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{InstanceId, InvalidName, ServiceName};

/// The root under which the records live, `/services` unless configured; its siblings are derived from it.
///
/// ```
/// use svc_registry::{InstanceId, Prefix, ServiceName};
/// let (prefix, greeter) = (Prefix::default(), ServiceName::new("greeter")?);
/// assert_eq!(prefix.records_of(&greeter), "/services/greeter/");
/// assert_eq!(prefix.drain_intent(&greeter, &InstanceId::new("i-1")?), "/services-control/drain/greeter/i-1");
/// # Ok::<(), svc_registry::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

/// A prefix that was refused, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "prefix {0:?} is invalid: begin with '/', do not end with '/', no empty parts, no control characters; for example \"/services\""
)]
pub struct InvalidPrefix(String);

impl Prefix {
    /// Checks a prefix such as `/services` or `/team/services`.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let parts_are_good = prefix
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|p| !p.is_empty() && !p.chars().any(char::is_control)));
        if parts_are_good { Ok(Self(prefix.into())) } else { Err(InvalidPrefix(prefix.to_owned())) }
    }

    /// The prefix as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The range of all records of instances that take new work.
    pub fn records(&self) -> String {
        format!("{}/", self.0)
    }

    /// The range of a service's records.
    pub fn records_of(&self, service: &ServiceName) -> String {
        format!("{}/{service}/", self.0)
    }

    /// The record of an instance that takes new work.
    pub fn record(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}/{service}/{id}", self.0)
    }

    /// The range of all records of instances that drain or have drained.
    pub fn draining(&self) -> String {
        format!("{}-draining/", self.0)
    }

    /// The range of a service's draining records.
    pub fn draining_of(&self, service: &ServiceName) -> String {
        format!("{}-draining/{service}/", self.0)
    }

    /// The record of an instance that drains or has drained.
    pub fn draining_record(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}-draining/{service}/{id}", self.0)
    }

    /// The range of all that operators control.
    pub fn control(&self) -> String {
        format!("{}-control/", self.0)
    }

    /// The range of all drain intents.
    pub fn drain_intents(&self) -> String {
        format!("{}-control/drain/", self.0)
    }

    /// The range of a service's drain intents, the one for all instances included.
    pub fn drain_intents_of(&self, service: &ServiceName) -> String {
        format!("{}-control/drain/{service}/", self.0)
    }

    /// An operator's wish that this instance takes no new work.
    pub fn drain_intent(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}-control/drain/{service}/{id}", self.0)
    }

    /// The same for all present and future instances of the service.
    pub fn drain_intent_for_all(&self, service: &ServiceName) -> String {
        format!("{}-control/drain/{service}/*", self.0)
    }

    /// An operator's override of weight, tags and zone.
    pub fn set_intent(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}-control/set/{service}/{id}", self.0)
    }

    /// The range of all live service configs.
    pub fn policies(&self) -> String {
        format!("{}-control/policy/", self.0)
    }

    /// The live service config of a service's clients.
    pub fn policy(&self, service: &ServiceName) -> String {
        format!("{}-control/policy/{service}", self.0)
    }

    /// Takes the key of a record apart; `None` if it lies under neither record root.
    pub fn parse_record(&self, key: &[u8]) -> Option<Result<RecordKey, InvalidKey>> {
        let rest = key.strip_prefix(self.0.as_bytes())?;
        let (root, rest) = match rest.strip_prefix(b"-draining") {
            Some(rest) => (Root::Draining, rest),
            None => (Root::Serving, rest),
        };
        let rest = rest.strip_prefix(b"/")?;
        Some(split(key, rest).map(|(service, id)| RecordKey { root, service, id }))
    }

    /// Takes the key of a live service config apart; `None` if it is none.
    pub fn parse_policy(&self, key: &[u8]) -> Option<Result<ServiceName, InvalidKey>> {
        let name = key.strip_prefix(self.0.as_bytes())?.strip_prefix(b"-control/policy/")?;
        let invalid = |why: String| InvalidKey { key: key.escape_ascii().to_string(), why };
        let name = std::str::from_utf8(name).map_err(|_| invalid("it is not UTF-8".into()));
        Some(name.and_then(|name| ServiceName::new(name).map_err(|e| invalid(e.to_string()))))
    }

    /// Takes the key of an operator's override apart; `None` if it is none.
    pub fn parse_set_intent(&self, key: &[u8]) -> Option<Result<(ServiceName, InstanceId), InvalidKey>> {
        let rest = key.strip_prefix(self.0.as_bytes())?.strip_prefix(b"-control/set/")?;
        Some(split(key, rest))
    }

    /// Takes the key of a drain intent apart; `None` if it is none.
    pub fn parse_drain_intent(&self, key: &[u8]) -> Option<Result<DrainTarget, InvalidKey>> {
        let rest = key.strip_prefix(self.0.as_bytes())?.strip_prefix(b"-control/drain/")?;
        if let Some(name) = rest.strip_suffix(b"/*").and_then(|name| std::str::from_utf8(name).ok())
            && let Ok(service) = ServiceName::new(name)
        {
            return Some(Ok(DrainTarget { service, id: None }));
        }
        Some(split(key, rest).map(|(service, id)| DrainTarget { service, id: Some(id) }))
    }
}

/// `<service>/<id>`; the id is all the rest, slashes included, since foreign ids hold them.
fn split(key: &[u8], rest: &[u8]) -> Result<(ServiceName, InstanceId), InvalidKey> {
    let invalid = |why: String| InvalidKey { key: key.escape_ascii().to_string(), why };
    let rest = std::str::from_utf8(rest).map_err(|_| invalid("it is not UTF-8".into()))?;
    let (name, id) = rest.split_once('/').ok_or_else(|| invalid("it has no instance id".into()))?;
    let named = |e: InvalidName| invalid(e.to_string());
    Ok((ServiceName::new(name).map_err(named)?, InstanceId::foreign(id).map_err(named)?))
}

impl Default for Prefix {
    /// `/services`.
    fn default() -> Self {
        Self("/services".into())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;
    fn from_str(s: &str) -> Result<Self, InvalidPrefix> {
        Self::new(s)
    }
}

/// Under which of the two roots a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// `/services/`: takes new work.
    Serving,
    /// `/services-draining/`: drains or has drained.
    Draining,
}

/// A record's key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The root that it lies under.
    pub root: Root,
    /// The service.
    pub service: ServiceName,
    /// The id, which may be foreign.
    pub id: InstanceId,
}

/// Whom a drain intent means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DrainTarget {
    /// The service.
    pub service: ServiceName,
    /// The instance; `None` means all present and future ones.
    pub id: Option<InstanceId>,
}

/// A key under one of our roots that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key \"{key}\" is not one of a record or an intent: {why}")]
pub struct InvalidKey {
    key: String,
    why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(key: &str) -> Option<(Root, String, String)> {
        let key = Prefix::default().parse_record(key.as_bytes())?.ok()?;
        Some((key.root, key.service.to_string(), key.id.to_string()))
    }

    #[test]
    fn every_range_ends_in_a_slash() {
        let (prefix, name) = (Prefix::default(), ServiceName::new("greeter").unwrap());
        let ranges = [
            prefix.records(),
            prefix.records_of(&name),
            prefix.draining(),
            prefix.draining_of(&name),
            prefix.control(),
            prefix.drain_intents(),
            prefix.drain_intents_of(&name),
        ];
        for range in ranges {
            assert!(range.ends_with('/') && !range.ends_with("//"), "{range}");
        }
    }

    #[test]
    fn what_is_built_is_taken_apart_again() {
        let prefix = Prefix::new("/team/services").unwrap();
        let (name, id) = (ServiceName::new("greeter").unwrap(), InstanceId::foreign("tcp@h:1/x").unwrap());
        for (key, root) in
            [(prefix.record(&name, &id), Root::Serving), (prefix.draining_record(&name, &id), Root::Draining)]
        {
            let expected = RecordKey { root, service: name.clone(), id: id.clone() };
            assert_eq!(prefix.parse_record(key.as_bytes()), Some(Ok(expected)), "{key}");
        }
        let set = prefix.parse_set_intent(prefix.set_intent(&name, &id).as_bytes());
        assert_eq!(set, Some(Ok((name.clone(), id.clone()))));
        assert_eq!(prefix.parse_set_intent(prefix.drain_intent(&name, &id).as_bytes()), None);
        let one = prefix.parse_drain_intent(prefix.drain_intent(&name, &id).as_bytes());
        assert_eq!(one, Some(Ok(DrainTarget { service: name.clone(), id: Some(id) })));
        let all = prefix.parse_drain_intent(prefix.drain_intent_for_all(&name).as_bytes());
        assert_eq!(all, Some(Ok(DrainTarget { service: name, id: None })));
    }

    #[test]
    fn an_id_is_the_rest_of_the_key() {
        assert_eq!(parsed("/services/g/a:1/b.c"), Some((Root::Serving, "g".into(), "a:1/b.c".into())));
        assert_eq!(parsed("/services-draining/g/i"), Some((Root::Draining, "g".into(), "i".into())));
        for foreign in ["/services-control/drain/g/i", "/servicesx/g/i", "/other/g/i", "/services"] {
            assert_eq!(Prefix::default().parse_record(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn a_key_that_is_none_of_ours_is_named_escaped() {
        for bad in [
            &b"/services/g"[..],
            b"/services/g/",
            b"/services//i",
            b"/services/g/\xff\x1b[2J",
            b"/services/g/*",
        ] {
            let error = Prefix::default().parse_record(bad).unwrap().unwrap_err().to_string();
            assert!(error.contains("/services") && !error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_prefix_is_checked() {
        assert!(Prefix::new("/a/b-c").is_ok());
        for bad in ["", "/", "services", "/services/", "//services", "/a//b", "/a\n"] {
            assert!(Prefix::new(bad).is_err(), "{bad:?}");
        }
    }
}
