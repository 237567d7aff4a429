//! A JSON object's fields, each read with a check and an error that names it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::{BadRecord, Kind};
use crate::record::Weight;

/// `null` counts as missing throughout: Go writes it for empty maps and lists.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    /// A string without control characters; an empty one counts as missing.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&'a str>, BadRecord> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) => printable(field, s).map(|s| (!s.is_empty()).then_some(s)),
            Some(other) => bad(field, format!("{} where a string belongs", kind(other))),
        }
    }

    pub(super) fn required(&self, field: &'static str) -> Result<&'a str, BadRecord> {
        match self.get(field) {
            Some(Value::String(s)) => Ok(s),
            Some(other) => bad(field, format!("{} where a string belongs", kind(other))),
            None => bad(field, "missing".to_owned()),
        }
    }

    pub(super) fn integer(&self, field: &'static str, max: u64) -> Result<Option<u64>, BadRecord> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Number(n)) => match n.as_u64().filter(|n| *n <= max) {
                Some(n) => Ok(Some(n)),
                None => bad(field, format!("{n} is no integer from 0 to {max}")),
            },
            Some(other) => bad(field, format!("{} where an integer belongs", kind(other))),
        }
    }

    pub(super) fn weight(&self, field: &'static str) -> Result<Weight, BadRecord> {
        let weight = self.integer(field, u64::from(Weight::MAX))?;
        Ok(weight.and_then(|w| u32::try_from(w).ok()).and_then(Weight::new).unwrap_or_default())
    }

    pub(super) fn strings(&self, field: &'static str) -> Result<BTreeMap<Arc<str>, Arc<str>>, BadRecord> {
        let mut strings = BTreeMap::new();
        match self.get(field) {
            None => {}
            Some(Value::Object(map)) => {
                for (name, value) in map {
                    let Value::String(value) = value else {
                        return bad(field, format!("{:?} is {}, not a string", shorten(name), kind(value)));
                    };
                    strings.insert(printable(field, name)?.into(), printable(field, value)?.into());
                }
            }
            Some(other) => return bad(field, format!("{} where an object of strings belongs", kind(other))),
        }
        Ok(strings)
    }

    pub(super) fn time(&self, field: &'static str) -> Result<Option<SystemTime>, BadRecord> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Some(time.into())),
            Err(_) => bad(field, format!("{:?} is no RFC 3339 time", shorten(text))),
        }
    }

    /// Whether a list of URLs has one of this scheme; anything but a list of strings has none.
    pub(super) fn has_scheme(&self, field: &str, scheme: &str) -> bool {
        let urls = self.get(field).and_then(Value::as_array);
        urls.is_some_and(|urls| urls.iter().filter_map(Value::as_str).any(|url| url.starts_with(scheme)))
    }
}

pub(super) fn bad<T>(field: &'static str, problem: String) -> Result<T, BadRecord> {
    Err(Kind::Field { field, problem }.into())
}

/// What steers a terminal has no place in a record: it would be printed by every tool that lists them.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.contains(char::is_control)
}

fn printable<'a>(field: &'static str, text: &'a str) -> Result<&'a str, BadRecord> {
    if !is_printable(text) {
        return bad(field, format!("{:?} holds control characters; write it without", shorten(text)));
    }
    Ok(text)
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
