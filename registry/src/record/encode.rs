//! Record -> bytes, once, for every reader: the field names and their order are INTEROP's contract.
//!
//! Go matches JSON names without regard to case and takes the last match, so no field may fold to the name of
//! another; and never a field `metadata`, which makes official Go clients panic (etcd#19700).

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::{Address, Record, State, Weight};
use crate::name::{Epoch, Incarnation};

/// The value as it is written. First what other systems read, then what is ours alone.
#[derive(Serialize)]
struct Wire<'a> {
    /// 0 is "add" for etcd's naming package.
    #[serde(rename = "Op")]
    op: u8,
    #[serde(rename = "Addr")]
    addr: &'a Address,
    id: &'a str,
    name: &'a str,
    version: &'a str,
    endpoints: [String; 1],
    network: &'a str,
    address: &'a Address,
    weight: Weight,
    tags: BTreeMap<&'a str, &'a str>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<Incarnation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inflight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Record {
    /// The value to put under the record's key: one JSON object without a trailing newline.
    pub fn encode(&self) -> Vec<u8> {
        let mut tags: BTreeMap<&str, &str> = self.tags.iter().map(|(k, v)| (&**k, &**v)).collect();
        if let Some(zone) = &self.zone {
            tags.insert("zone", zone);
        }
        let scheme = if self.secure { "grpcs" } else { "grpc" };
        let wire = Wire {
            op: 0,
            addr: &self.address,
            id: self.id.as_str(),
            name: self.service.as_str(),
            version: self.version.as_deref().unwrap_or_default(),
            endpoints: [format!("{scheme}://{}", self.address)],
            network: "tcp",
            address: &self.address,
            weight: self.weight,
            tags,
            state: self.state,
            zone: self.zone.as_deref(),
            incarnation: self.incarnation,
            epoch: self.epoch,
            started_at: self.started_at.and_then(rfc3339),
            ttl_s: self.ttl_s,
            inflight: self.inflight,
            reason: self.reason.as_deref(),
        };
        // Strings, numbers and a map with string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

/// Milliseconds are what an operator can use; a time that no calendar holds is left out.
fn rfc3339(time: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(time).ok()?;
    let time = jiff::Timestamp::from_millisecond(time.as_millisecond()).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::keys::{RecordKey, Root};
    use crate::name::{InstanceId, ServiceName};
    use crate::record::decode;

    /// The first line of INTEROP.md's record, which released Go clients read.
    const INTEROP: &str = r#"{"Op":0,"Addr":"10.0.0.1:50051","id":"i-1","name":"greeter","version":"1.4.2","endpoints":["grpc://10.0.0.1:50051"],"network":"tcp","address":"10.0.0.1:50051","weight":100,"tags":{"zone":"a"},"state":"serving"}"#;

    fn interop() -> Record {
        let (service, id) = (ServiceName::new("greeter").unwrap(), InstanceId::new("i-1").unwrap());
        let mut record = Record::new(service, id, "10.0.0.1:50051".parse().unwrap());
        record.version = Some("1.4.2".into());
        record.zone = Some("a".into());
        record
    }

    fn full() -> Record {
        let mut record = interop();
        record.secure = true;
        record.address = "[2001:db8::1]:443".parse().unwrap();
        record.tags.insert("team".into(), "ä \"quoted\"".into());
        record.state = State::Draining;
        record.incarnation = Some(Incarnation(0xfeed));
        record.epoch = Some(Epoch(1_763_694_000_000));
        record.started_at = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_694_000_123));
        record.ttl_s = Some(15);
        record.inflight = Some(7);
        record.reason = Some("disk full".into());
        record
    }

    fn key(record: &Record) -> RecordKey {
        RecordKey { root: Root::Serving, service: record.service.clone(), id: record.id.clone() }
    }

    #[test]
    fn the_bytes_begin_as_interop_says() {
        let bytes = String::from_utf8(interop().encode()).unwrap();
        let shared = INTEROP.strip_suffix('}').unwrap();
        assert_eq!(bytes, format!(r#"{shared},"zone":"a"}}"#));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for record in [interop(), full()] {
            assert_eq!(decode(&key(&record), &record.encode()).unwrap(), record);
        }
        assert_eq!(decode(&key(&interop()), INTEROP.as_bytes()).unwrap(), interop());
    }

    #[test]
    fn no_two_fields_fold_to_one_name() {
        let value: serde_json::Value = serde_json::from_slice(&full().encode()).unwrap();
        let mut folded = HashSet::new();
        for name in value.as_object().unwrap().keys() {
            assert!(folded.insert(name.to_lowercase()), "{name} folds to the name of another field");
        }
        assert!(!folded.contains("metadata"), "a map there panics official Go clients");
    }

    #[test]
    fn the_zone_field_wins_over_a_tag_of_that_name() {
        let mut record = interop();
        record.tags.insert("zone".into(), "b".into());
        let read = decode(&key(&record), &record.encode()).unwrap();
        assert_eq!((read.zone.as_deref(), read.tags.len()), (Some("a"), 0));
    }
}
