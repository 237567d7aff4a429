//! Our own form: an object with `state` or `incarnation`.

use super::fields::{Fields, bad, shorten};
use super::{BadRecord, Record};
use crate::keys::RecordKey;
use crate::name::{Epoch, Incarnation};
use crate::record::{Address, Form, State};

/// `None` if the object is of another form.
pub(super) fn decode(key: &RecordKey, fields: &Fields<'_>) -> Option<Result<Record, BadRecord>> {
    (fields.has("state") || fields.has("incarnation")).then(|| read(key, fields))
}

fn read(key: &RecordKey, fields: &Fields<'_>) -> Result<Record, BadRecord> {
    let address = if fields.has("address") { fields.required("address")? } else { fields.required_addr()? };
    // Before the tags, which hold the zone again: the error names what was said.
    let zone = fields.text("zone")?;
    let mut tags = fields.strings("tags")?;
    let tagged_zone = tags.remove("zone");
    let state = match fields.text("state")? {
        None => State::Serving,
        Some(text) => match text.parse() {
            Ok(state) => state,
            Err(()) => {
                return bad("state", format!("{:?} is none of serving, draining, drained", shorten(text)));
            }
        },
    };
    let incarnation = match fields.text("incarnation")?.map(str::parse::<Incarnation>) {
        None => None,
        Some(Ok(incarnation)) => Some(incarnation),
        Some(Err(e)) => return bad("incarnation", e.to_string()),
    };
    let ttl_s = fields.integer("ttl_s", u64::from(u32::MAX))?;
    Ok(Record {
        service: key.service.clone(),
        id: key.id.clone(),
        address: Address::new(address)?,
        secure: fields.has_scheme("endpoints", "grpcs://"),
        weight: fields.weight("weight")?,
        zone: zone.map(Into::into).or(tagged_zone),
        version: fields.text("version")?.map(Into::into),
        tags,
        state,
        incarnation,
        epoch: fields.integer("epoch", u64::MAX)?.map(Epoch),
        started_at: fields.time("started_at")?,
        ttl_s: ttl_s.and_then(|t| u32::try_from(t).ok()),
        inflight: fields.integer("inflight", u64::MAX)?,
        reason: fields.text("reason")?.map(Into::into),
        form: Form::Native,
    })
}

impl<'a> Fields<'a> {
    /// A native record without `address` may still have the one of etcd's naming form.
    fn required_addr(&self) -> Result<&'a str, BadRecord> {
        match self.text("Addr")? {
            Some(address) => Ok(address),
            None => bad("address", "missing".to_owned()),
        }
    }
}
