//! A place in a JSON document, by the path that its errors name.

use std::time::Duration;

use serde_json::Value;

use super::duration;
use super::error::{InvalidServiceConfig, Result};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Place<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(super) fn refuse<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(InvalidServiceConfig::at(&self.path, why))
    }

    /// The field, unless it is missing or null.
    pub(super) fn field(&self, name: &str) -> Result<Option<Place<'a>>> {
        let Value::Object(fields) = self.value else { return self.refuse("an object is wanted here") };
        let dot = if self.path.is_empty() { "" } else { "." };
        Ok(fields
            .get(name)
            .filter(|value| !value.is_null())
            .map(|value| Place { path: format!("{}{dot}{name}", self.path), value }))
    }

    pub(super) fn required(&self, name: &str) -> Result<Place<'a>> {
        match self.field(name)? {
            Some(field) => Ok(field),
            None => self.refuse(format!("{name} is missing")),
        }
    }

    /// The one field that the object has, with its name: `{"round_robin": {}}`.
    pub(super) fn single(&self) -> Result<(&'a str, Place<'a>)> {
        let Value::Object(fields) = self.value else { return self.refuse("an object is wanted here") };
        match fields.iter().next() {
            Some((name, value)) if fields.len() == 1 => {
                Ok((name, Place { path: format!("{}.{name}", self.path), value }))
            }
            _ => self.refuse("exactly one name is wanted here"),
        }
    }

    /// All fields, with their names.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Place<'a>)>> {
        let Value::Object(fields) = self.value else { return self.refuse("an object is wanted here") };
        let place = |(name, value): (&'a String, _)| {
            (name.as_str(), Place { path: format!("{}.{name}", self.path), value })
        };
        Ok(fields.iter().map(place).collect())
    }

    /// Refuses fields of other names.
    pub(super) fn only(&self, known: &[&str]) -> Result<()> {
        match self.entries()?.iter().find(|(name, _)| !known.contains(name)) {
            Some((_, place)) => place.refuse(format!("not known here; known are {}", known.join(", "))),
            None => Ok(()),
        }
    }

    pub(super) fn items(&self) -> Result<Vec<Place<'a>>> {
        let Value::Array(items) = self.value else { return self.refuse("a list is wanted here") };
        let place = |(i, value)| Place { path: format!("{}[{i}]", self.path), value };
        Ok(items.iter().enumerate().map(place).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => self.refuse("a string is wanted here"),
        }
    }

    pub(super) fn flag(&self) -> Result<bool> {
        match self.value {
            Value::Bool(flag) => Ok(*flag),
            _ => self.refuse("true or false is wanted here"),
        }
    }

    pub(super) fn number(&self) -> Result<f64> {
        match self.value.as_f64().filter(|n| n.is_finite()) {
            Some(number) => Ok(number),
            None => self.refuse("a number is wanted here"),
        }
    }

    /// A whole number of at least `least`.
    pub(super) fn whole(&self, least: u32) -> Result<u32> {
        match self.value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= least) {
            Some(number) => Ok(number),
            None => self.refuse(format!("a whole number of at least {least} is wanted here")),
        }
    }

    pub(super) fn duration(&self) -> Result<Duration> {
        match duration::parse(self.text()?) {
            Ok(duration) => Ok(duration),
            Err(why) => self.refuse(why),
        }
    }

    /// A duration above zero.
    pub(super) fn positive_duration(&self) -> Result<Duration> {
        match self.duration()? {
            Duration::ZERO => self.refuse("a duration above zero is wanted here"),
            duration => Ok(duration),
        }
    }

    /// A code, by its name or number.
    pub(super) fn code(&self) -> Result<tonic::Code> {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        let number = match self.value {
            Value::String(name) => NAMES.iter().position(|n| n == name),
            other => other.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < NAMES.len()),
        };
        match number {
            Some(number) => Ok(tonic::Code::from_i32(number as i32)),
            None => self.refuse("a gRPC status code is wanted here, such as \"UNAVAILABLE\""),
        }
    }
}
