//! Bytes -> record: the one decoder for every writer.
//!
//! The forms are tried in INTEROP's order. Whatever lies in etcd was written by others: nothing here panics, and what
//! is not safe to dial or to print becomes a [`BadRecord`].

mod fields;
mod naming;
mod native;
mod plain;

use serde_json::Value;

use self::fields::Fields;
pub(crate) use self::fields::is_printable;
use super::{InvalidAddress, Record};
use crate::keys::{RecordKey, Root};

/// Larger values are refused, in bytes: a record has some hundred, and every client holds every record.
pub const MAX_VALUE: usize = 64 * 1024;

/// A value that is no record, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct BadRecord(#[from] Kind);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Kind {
    #[error("the value is empty")]
    Empty,
    #[error("the value has {0} bytes, above the limit of {MAX_VALUE}")]
    TooLarge(usize),
    #[error("the value is not UTF-8")]
    NotUtf8,
    #[error("the value is broken JSON: {0}")]
    BrokenJson(String),
    #[error("the value is {0}, neither a JSON object nor host:port")]
    NotARecord(&'static str),
    #[error("the object has none of the fields that tell an instance: state, incarnation, Addr")]
    UnknownForm,
    #[error("field {field}: {problem}")]
    Field { field: &'static str, problem: String },
    #[error(transparent)]
    Address(#[from] InvalidAddress),
}

impl From<InvalidAddress> for BadRecord {
    fn from(e: InvalidAddress) -> Self {
        Self(e.into())
    }
}

impl BadRecord {
    /// What of the record it is about, and what is wrong with it.
    pub(crate) fn field_and_problem(&self) -> (&'static str, String) {
        match &self.0 {
            Kind::Field { field, problem } => (field, problem.clone()),
            Kind::Address(error) => ("address", error.to_string()),
            // Nothing else grows.
            Kind::TooLarge(_) => ("tags", format!("{self}; use fewer of them")),
            _ => ("record", self.to_string()),
        }
    }
}

/// The value to put for a record, if every reader takes it: what nobody can read must not be written.
pub(crate) fn readable(record: &Record) -> Result<Vec<u8>, BadRecord> {
    let (service, id) = (record.service.clone(), record.id.clone());
    let value = record.encode();
    decode(&RecordKey { root: Root::Serving, service, id }, &value)?;
    Ok(value)
}

/// Reads the value that lies under a record's key; service and id are the key's, whatever the value says.
pub fn decode(key: &RecordKey, value: &[u8]) -> Result<Record, BadRecord> {
    if value.len() > MAX_VALUE {
        return Err(Kind::TooLarge(value.len()).into());
    }
    let text = std::str::from_utf8(value).map_err(|_| Kind::NotUtf8)?.trim_ascii();
    if text.is_empty() {
        return Err(Kind::Empty.into());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => {
            let fields = Fields(&object);
            native::decode(key, &fields)
                .or_else(|| naming::decode(key, &fields))
                .unwrap_or_else(|| Err(Kind::UnknownForm.into()))
        }
        Ok(Value::Null) => Err(Kind::NotARecord("null").into()),
        Ok(Value::Array(_)) => Err(Kind::NotARecord("a JSON array").into()),
        Ok(_) => Err(Kind::NotARecord("a bare JSON value").into()),
        Err(e) if text.starts_with(['{', '"']) => Err(Kind::BrokenJson(e.to_string()).into()),
        Err(_) => plain::decode(key, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{InstanceId, ServiceName};
    use crate::record::{Form, State};

    fn read(value: impl AsRef<[u8]>) -> Result<Record, BadRecord> {
        let (service, id) =
            (ServiceName::new("greeter").unwrap(), InstanceId::foreign("tcp@h:1/x.y").unwrap());
        decode(&RecordKey { root: Root::Serving, service, id }, value.as_ref())
    }

    fn native(field: &str) -> Result<Record, BadRecord> {
        read(format!(r#"{{"state":"serving","address":"10.0.0.1:50051",{field}}}"#))
    }

    #[test]
    fn bad_1_every_bad_value_is_refused_with_its_reason() {
        for (value, reason) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"null", "null"),
            (b"[]", "array"),
            (b"17", "bare JSON value"),
            (br#""10.0.0.1:50051""#, "bare JSON value"),
            (b"{", "broken JSON"),
            (br#"{"state":"serving""#, "broken JSON"),
            (b"{}", "none of the fields"),
            (b"\xff\xfe{}", "not UTF-8"),
            (br#"{"state":"serving"}"#, "address: missing"),
            (br#"{"state":"serving","address":""}"#, "no port"),
            (br#"{"state":"serving","address":null}"#, "address: missing"),
            (br#"{"state":"serving","address":"10.0.0.1"}"#, "no port"),
            (br#"{"state":"serving","address":"10.0.0.1:0"}"#, "port 0"),
            (br#"{"state":"serving","address":"10.0.0.1:70000"}"#, "1 to 65535"),
            (br#"{"state":"resting","address":"10.0.0.1:1"}"#, "state"),
            (br#"{"Addr":"","Op":0}"#, "no port"),
            (b"10.0.0.1", "neither"),
            (b"10.0.0.1:0", "port 0"),
            (b"10.0.0.1:70000", "1 to 65535"),
            (b"hello world", "neither"),
        ] {
            let reason_given = read(value).unwrap_err().to_string();
            assert!(reason_given.contains(reason), "{}: {reason_given}", value.escape_ascii());
        }
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(read(deep).is_err(), "nesting ends in an error, not in a full stack");
    }

    #[test]
    fn bad_1_bad_fields_are_named() {
        for (field, name) in [
            (r#""weight":-1"#, "weight"),
            (r#""weight":1000000000"#, "weight"),
            (r#""weight":1e9"#, "weight"),
            (r#""weight":12.5"#, "weight"),
            (r#""weight":"heavy""#, "weight"),
            (r#""zone":"\u001b[31m""#, "zone"),
            (r#""version":"1\n2""#, "version"),
            (r#""tags":{"a\u0007":"b"}"#, "tags"),
            (r#""tags":{"a":"\u009b"}"#, "tags"),
            (r#""tags":{"a":1}"#, "tags"),
            (r#""tags":[]"#, "tags"),
            (r#""incarnation":12"#, "incarnation"),
            (r#""incarnation":"xyz""#, "incarnation"),
            (r#""epoch":-3"#, "epoch"),
            (r#""inflight":"many""#, "inflight"),
            (r#""started_at":"yesterday""#, "started_at"),
            (r#""reason":"\u001b[2J""#, "reason"),
        ] {
            let reason = native(field).unwrap_err().to_string();
            assert!(reason.starts_with(&format!("field {name}: ")), "{field}: {reason}");
            assert!(!reason.chars().any(char::is_control), "{field}: {reason:?}");
        }
    }

    #[test]
    fn bad_1_a_value_of_1_4_mb_is_refused_unread() {
        let reason = read(vec![b'x'; 1_400_000]).unwrap_err().to_string();
        assert!(reason.contains("1400000 bytes"), "{reason}");
    }

    #[test]
    fn null_and_missing_fields_take_their_defaults() {
        let record =
            native(r#""tags":null,"zone":null,"version":"","weight":null,"unknown":{"a":[1]}"#).unwrap();
        assert_eq!((record.weight.get(), record.state, record.form), (100, State::Serving, Form::Native));
        assert_eq!((record.zone, record.version, record.tags.len()), (None, None, 0));
    }

    #[test]
    fn service_and_id_are_those_of_the_key() {
        let record = native(r#""id":"other","name":"else""#).unwrap();
        assert_eq!((record.service.as_str(), record.id.as_str()), ("greeter", "tcp@h:1/x.y"));
    }

    #[test]
    fn an_etcd_naming_value_is_read_whatever_its_metadata() {
        for value in [
            r#"{"Op":0,"Addr":"[::1]:50051","Metadata":null}"#,
            r#"{"Op":0,"Addr":"[::1]:50051","Metadata":{"a":[1,2]}}"#,
            r#"{"addr":"[::1]:50051"}"#,
        ] {
            let record = read(value).unwrap();
            assert_eq!((record.address.as_str(), record.form), ("[::1]:50051", Form::Naming));
            assert!(record.is_foreign() && record.state == State::Serving);
        }
    }

    #[test]
    fn a_bare_address_is_read() {
        for value in ["10.0.0.1:50051", "[::1]:50051", "greeter.local:80\n"] {
            let record = read(value).unwrap();
            assert_eq!((record.address.as_str(), record.form), (value.trim(), Form::Plain));
        }
    }

    #[test]
    fn our_fields_come_before_those_of_other_systems() {
        let record = read(r#"{"Addr":"a:1","address":"b:2","incarnation":"00000000000000ff"}"#).unwrap();
        assert_eq!((record.address.as_str(), record.form), ("b:2", Form::Native));
        let record = read(r#"{"Addr":"a:1","state":"drained"}"#).unwrap();
        assert_eq!((record.address.as_str(), record.state), ("a:1", State::Drained));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(value: Vec<u8>) {
            let _ = read(value);
        }

        #[test]
        fn no_mutation_of_a_record_makes_the_decoder_panic(at in 0usize..160, byte: u8) {
            let mut value = br#"{"Op":0,"Addr":"10.0.0.1:50051","id":"i","weight":100,"tags":{"zone":"a"},"state":"serving","incarnation":"00000000000000ff","epoch":1,"started_at":"2025-01-01T00:00:00Z"}"#.to_vec();
            value[at] = byte;
            if let Ok(record) = read(&value) {
                proptest::prop_assert!(!record.encode().iter().any(u8::is_ascii_control));
            }
        }
    }
}
