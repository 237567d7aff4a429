//! The bare form: `host:port` and nothing else.

use super::{BadRecord, Kind, Record};
use crate::keys::RecordKey;
use crate::record::{Address, Form};

/// The last form tried: what is no address here is no record at all.
pub(super) fn decode(key: &RecordKey, text: &str) -> Result<Record, BadRecord> {
    if !text.contains(':') {
        return Err(Kind::NotARecord("text").into());
    }
    let record = Record::new(key.service.clone(), key.id.clone(), Address::new(text)?);
    Ok(Record { form: Form::Plain, ..record })
}
