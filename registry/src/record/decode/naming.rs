//! The form of etcd's official Go package `client/v3/naming/endpoints`: an object with `Addr`.

use super::fields::Fields;
use super::{BadRecord, Record};
use crate::keys::RecordKey;
use crate::record::{Address, Form};

/// `None` if the object is of another form. `Metadata` may hold anything and says nothing that we know.
pub(super) fn decode(key: &RecordKey, fields: &Fields<'_>) -> Option<Result<Record, BadRecord>> {
    let field = ["Addr", "addr"].into_iter().find(|field| fields.has(field))?;
    Some(fields.required(field).and_then(|address| {
        let record = Record::new(key.service.clone(), key.id.clone(), Address::new(address)?);
        Ok(Record { form: Form::Naming, ..record })
    }))
}
