//! The identities of this crate, as types that cannot be mixed up or hold nonsense.
//!
//! In come strings from users, command lines and etcd; out go validated values, from which [`keys`](crate::keys)
//! builds every key. What an owner of ours writes is checked strictly; the id of a record that another system wrote
//! may hold more (see [`InstanceId::foreign`]), since it has to be read, shown and drained too.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest service name or instance id, in bytes: what a DNS name allows, so that a name fits there too.
pub const MAX_NAME: usize = 253;

/// The longest id that is read from a key somebody else wrote, in bytes.
const MAX_FOREIGN_ID: usize = 1024;

/// A name that was refused, with the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is invalid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    name: String,
    rule: &'static str,
}

const RULE: &str =
    "use letters, digits, '.', '_' and '-', beginning with a letter or a digit, 1 to 253 bytes";
const FOREIGN_RULE: &str = "an id in etcd has 1 to 1024 bytes without control characters and is not \"*\"";

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name of a service, such as `greeter` or `gow.balance.base`.
///
/// ```
/// use svc_registry::ServiceName;
/// assert!(ServiceName::new("gow.balance.base").is_ok());
/// assert!(ServiceName::new("a/b").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Checks the name against `[A-Za-z0-9][A-Za-z0-9._-]*`, at most [`MAX_NAME`] bytes.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        if is_name(name) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName { what: "service name", name: shorten(name), rule: RULE })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of an instance, unique within its service.
///
/// ```
/// use svc_registry::InstanceId;
/// assert!(InstanceId::new("host-50051").is_ok());
/// assert!(InstanceId::new("*").is_err(), "an intent for all is no instance");
/// assert!(InstanceId::foreign("tcp@10.0.0.1:50051").is_ok(), "another system's key");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// Checks an id that we are to write: the charset of a service name.
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        if is_name(id) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidName { what: "instance id", name: shorten(id), rule: RULE })
        }
    }

    /// Checks an id that is read from a key, which another system may have written: it may hold `:`, `@`, `/` and
    /// anything else that is printable. `*` stays refused: it stands for all instances in an intent's key.
    pub fn foreign(id: &str) -> Result<Self, InvalidName> {
        if id.is_empty() || id == "*" || id.len() > MAX_FOREIGN_ID || id.chars().any(char::is_control) {
            return Err(InvalidName { what: "instance id", name: shorten(id), rule: FOREIGN_RULE });
        }
        Ok(Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Error texts stay a line long, whatever was given.
fn shorten(name: &str) -> String {
    const SHOWN: usize = 64;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                Self::new(s)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    };
}
text!(ServiceName);
text!(InstanceId);

/// A random number drawn at each start of a process: tells a restarted instance from its predecessor.
///
/// It is written as 16 hex digits, since a u64 in JSON loses digits in JavaScript and jq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Draws one.
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Incarnation {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let hex = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(s, 16) {
            Ok(n) if hex => Ok(Self(n)),
            _ => Err(InvalidName { what: "incarnation", name: shorten(s), rule: "use 16 hex digits" }),
        }
    }
}

impl serde::Serialize for Incarnation {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Orders two owners of one id: milliseconds since 1970, or one more than the highest epoch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Epoch(pub u64);

/// The id of an etcd lease; 0 means none. Shown in hex, as etcdctl does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease: a record that nobody keeps alive, and nobody owns.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl serde::Serialize for LeaseId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A revision of the etcd store; 0 stands for "absent" in compares, as in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision after this one: where a watch goes on.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_only_characters_that_are_safe_in_keys_and_dns() {
        for good in ["g", "greeter", "gow.balance.base", "a_b-c.9", &"x".repeat(MAX_NAME)] {
            assert_eq!(ServiceName::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
            assert!(InstanceId::new(good).is_ok());
        }
        for bad in ["", ".", "-a", "_a", "a/b", "a b", "a\n", "*", "ä", "a:1", &"x".repeat(MAX_NAME + 1)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
            assert!(InstanceId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_foreign_id_may_hold_what_other_systems_write() {
        for good in ["tcp@10.0.0.1:50051", "a/b", "7587870", "grpc://h:1", ":", "..", "*a"] {
            assert!(InstanceId::foreign(good).is_ok(), "{good:?}");
        }
        for bad in ["", "*", "a\u{7}", "a\u{1b}[2J", &"x".repeat(MAX_FOREIGN_ID + 1)] {
            assert!(InstanceId::foreign(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_says_the_rule_and_stays_short() {
        let error = ServiceName::new(&"é".repeat(9000)).unwrap_err().to_string();
        assert!(error.contains("use letters"), "{error}");
        assert!(error.len() < 400, "{}", error.len());
    }

    #[test]
    fn an_incarnation_is_16_hex_digits() {
        let one = Incarnation(0xab);
        assert_eq!(one.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(one));
        for bad in ["ab", "", "+0000000000000ab", "00000000000000ag", "00000000000000ab0"] {
            assert!(bad.parse::<Incarnation>().is_err(), "{bad:?}");
        }
    }
}
