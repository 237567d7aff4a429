//! An operator's override of what an instance says of itself: weight, zone and tags.
//!
//! `svcctl set` writes it under `<prefix>-control/set/<service>/<id>`; the registrar reads it with every registering
//! transaction, and lays it over the instance's own values until the key is gone.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::{Record, Weight, is_printable};

/// Weight, zone and tags in place of an instance's own. What it does not name stays the instance's.
///
/// ```
/// use svc_registry::{Weight, intent::SetIntent};
/// let set = SetIntent { weight: Weight::new(10), ..SetIntent::default() };
/// assert_eq!(set.encode(), br#"{"weight":10}"#);
/// assert_eq!(SetIntent::decode(&set.encode()), set);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SetIntent {
    /// The share of the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// Where it runs; empty takes the instance's zone away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Labels that are added or replaced; `None` (`null` in etcd) takes one away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Option<String>>,
}

impl SetIntent {
    /// The value to put under the override's key.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and a number: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a value under an override's key says. What cannot be read, or could not once it is in a record, overrides nothing,
    /// field by field and unlike a drain: to go on as the instance was configured is the smaller mistake.
    pub fn decode(value: &[u8]) -> SetIntent {
        let value: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        let weight = value.get("weight").and_then(serde_json::Value::as_u64);
        let tags = value.get("tags").and_then(serde_json::Value::as_object).into_iter().flatten();
        SetIntent {
            weight: weight.and_then(|weight| u32::try_from(weight).ok()).and_then(Weight::new),
            zone: value
                .get("zone")
                .and_then(serde_json::Value::as_str)
                .filter(|zone| is_printable(zone))
                .map(ToOwned::to_owned),
            tags: tags
                .filter(|(_, value)| value.is_string() || value.is_null())
                .filter(|(name, value)| is_printable(name) && value.as_str().is_none_or(is_printable))
                .map(|(name, value)| (name.clone(), value.as_str().map(ToOwned::to_owned)))
                .collect(),
        }
    }

    /// Overrides nothing.
    pub fn is_empty(&self) -> bool {
        *self == SetIntent::default()
    }

    /// What `later` names in place of this, the rest as it was.
    #[must_use]
    pub fn merged(mut self, later: SetIntent) -> SetIntent {
        self.tags.extend(later.tags);
        SetIntent { weight: later.weight.or(self.weight), zone: later.zone.or(self.zone), tags: self.tags }
    }

    /// Lays it over a record.
    pub(crate) fn apply(&self, record: &mut Record) {
        record.weight = self.weight.unwrap_or(record.weight);
        if let Some(zone) = &self.zone {
            record.zone = (!zone.is_empty()).then(|| zone.as_str().into());
        }
        for (name, value) in &self.tags {
            match value {
                Some(value) => drop(record.tags.insert(name.as_str().into(), value.as_str().into())),
                None => drop(record.tags.remove(name.as_str())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::Instance;

    fn overridden(value: &str) -> Record {
        let instance = Instance::new("greeter", "i-1", "10.0.0.1:1").unwrap();
        let mut record = instance.with_zone("a").with_tag("team", "blue").with_tag("old", "x").record();
        SetIntent::decode(value.as_bytes()).apply(&mut record);
        record
    }

    #[test]
    fn what_is_named_is_overridden_and_the_rest_stays() {
        let record = overridden(r#"{"weight":7,"tags":{"team":"red","new":"y","old":null}}"#);
        let tags: Vec<(&str, &str)> = record.tags.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!((record.weight.get(), record.zone.as_deref()), (7, Some("a")));
        assert_eq!(tags, [("new", "y"), ("team", "red")]);
        assert_eq!(overridden(r#"{"zone":"b"}"#).zone.as_deref(), Some("b"));
        assert_eq!(overridden(r#"{"zone":""}"#).zone, None);
    }

    #[test]
    fn what_cannot_be_read_overrides_nothing() {
        for value in [
            "",
            "null",
            "{",
            "[1]",
            r#"{"weight":-1}"#,
            r#"{"weight":1000001}"#,
            r#"{"weight":"7","zone":5}"#,
        ] {
            assert!(SetIntent::decode(value.as_bytes()).is_empty(), "{value}");
            assert_eq!(overridden(value), overridden("{}"), "{value}");
        }
    }

    #[test]
    fn a_later_override_keeps_what_it_does_not_name() {
        let earlier = SetIntent::decode(br#"{"weight":7,"tags":{"a":"1"}}"#);
        let merged = earlier.merged(SetIntent::decode(br#"{"zone":"b","tags":{"b":null}}"#));
        assert_eq!(merged.encode(), br#"{"weight":7,"zone":"b","tags":{"a":"1","b":null}}"#);
    }
}
