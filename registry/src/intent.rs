//! A drain intent: an operator's wish that an instance takes no new work, as it lies in etcd; `set` is the wish that it
//! registers with another weight, zone or tags.
//!
//! `svcctl` writes it under `<prefix>-control/drain/<service>/<id>` (or `/*` for all); the registrar reads it with
//! every registering transaction and obeys; the catalog shows it, and applies it to instances whose owner cannot.

mod set;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use set::SetIntent;

/// What an instance does once it has drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Stays drained until the intent is gone.
    #[default]
    Stay,
    /// Ends: `Serve::run` returns `Ok`. An instance that finds the intent when it first registers stays instead, so
    /// that a supervisor that restarts it does not loop.
    Exit,
    /// Deletes its record and stays away until the intent is gone, then registers again.
    Remove,
}

/// An operator's wish that an instance takes no new work.
///
/// ```
/// use svc_registry::intent::{DrainIntent, Then};
/// let intent = DrainIntent::new("kernel update", "ada").then(Then::Exit);
/// assert_eq!(DrainIntent::decode(&intent.encode()), intent);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainIntent {
    /// Why, in the operator's words.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When, as RFC 3339.
    pub at: String,
    /// What the instance does once it has drained.
    pub then: Then,
}

/// As others may have written it: every field optional, unknown ones ignored.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    then: Option<String>,
}

impl DrainIntent {
    /// An intent of now that keeps the instance drained until it is gone.
    pub fn new(reason: impl Into<String>, by: impl Into<String>) -> DrainIntent {
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        // Whole seconds are what an operator reads.
        let at = jiff::Timestamp::from_second(now.as_second()).unwrap_or_default().to_string();
        DrainIntent { reason: reason.into(), by: by.into(), at, then: Then::Stay }
    }

    /// Says what the instance does once it has drained.
    #[must_use]
    pub fn then(self, then: Then) -> DrainIntent {
        DrainIntent { then, ..self }
    }

    /// The value to put under the intent's key.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and a word: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a value under an intent's key says. The key alone is the wish: a value that cannot be read drains as
    /// `stay`, since serving on against an operator's wish is the worse mistake.
    pub fn decode(value: &[u8]) -> DrainIntent {
        match serde_json::from_slice::<Wire>(value) {
            Ok(wire) => DrainIntent {
                reason: wire.reason.unwrap_or_default(),
                by: wire.by.unwrap_or_default(),
                at: wire.at.unwrap_or_default(),
                then: match wire.then.as_deref() {
                    Some("exit") => Then::Exit,
                    Some("remove") => Then::Remove,
                    _ => Then::Stay,
                },
            },
            Err(error) => {
                DrainIntent { reason: format!("(unreadable intent: {error})"), ..DrainIntent::default() }
            }
        }
    }

    /// Of the intent for an instance and the one for its whole service the stronger counts: remove, exit, stay. Of
    /// two equally strong ones it is the instance's own.
    pub fn stronger<'a>(
        own: Option<&'a DrainIntent>,
        all: Option<&'a DrainIntent>,
    ) -> Option<&'a DrainIntent> {
        match (own, all) {
            (Some(own), Some(all)) if all.then > own.then => Some(all),
            (own, all) => own.or(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_four_fields_of_the_contract() {
        let intent = DrainIntent { at: "2026-01-02T03:04:05Z".into(), ..DrainIntent::new("why", "who") };
        let text = String::from_utf8(intent.then(Then::Remove).encode()).unwrap();
        assert_eq!(text, r#"{"reason":"why","by":"who","at":"2026-01-02T03:04:05Z","then":"remove"}"#);
    }

    #[test]
    fn an_unreadable_value_still_drains() {
        for value in [&b""[..], b"null", b"{", b"[1]", b"\xff", b"\"x\""] {
            assert_eq!(DrainIntent::decode(value).then, Then::Stay, "{value:?}");
        }
        let sparse = DrainIntent::decode(br#"{"then":"explode","by":null,"new":1}"#);
        assert_eq!(sparse, DrainIntent::default());
    }

    #[test]
    fn the_stronger_intent_counts() {
        let of = |then| DrainIntent::new("", "").then(then);
        let (stay, exit, remove) = (of(Then::Stay), of(Then::Exit), of(Then::Remove));
        assert_eq!(DrainIntent::stronger(Some(&stay), Some(&exit)), Some(&exit));
        assert_eq!(DrainIntent::stronger(Some(&remove), Some(&exit)), Some(&remove));
        assert_eq!(DrainIntent::stronger(None, Some(&stay)), Some(&stay));
        assert_eq!(DrainIntent::stronger(None, None), None);
    }
}
