//! What of a write can be refused by its form alone, before the state is looked at.

use std::collections::HashSet;

use etcd_client::proto::{PbDeleteRequest, PbPutRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};

use crate::refusal::Refusal;
use crate::store::range;

pub(crate) fn check_put(request: &PbPutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Refusal::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Refusal::LeaseProvided)
    } else {
        Ok(())
    }
}

pub(crate) fn check_delete(request: &PbDeleteRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// A transaction's operations, one by one and against each other.
pub(crate) fn check(request: &PbTxnRequest, max_ops: usize) -> Result<(), Refusal> {
    check_ops(request, max_ops)?;
    Touched::by(&request.success)?;
    Touched::by(&request.failure)?;
    Ok(())
}

fn check_ops(request: &PbTxnRequest, max: usize) -> Result<(), Refusal> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    // What a transaction uses up, those nested in it cannot.
    let left = max.checked_sub(count).ok_or(Refusal::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range::check(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => check_put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => check_delete(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => check_ops(request, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations puts and deletes. A key may be put once, and not also be deleted.
#[derive(Debug, Default)]
struct Touched<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Touched<'a> {
    fn by(ops: &'a [PbTxnRequestOp]) -> Result<Self, Refusal> {
        let requests = || ops.iter().filter_map(|op| op.request.as_ref());
        let mut touched = Self::default();
        for request in requests() {
            if let PbTxnOpRequest::RequestDeleteRange(delete) = request {
                touched.deletes.push((&delete.key, &delete.range_end));
            }
        }
        for request in requests() {
            let PbTxnOpRequest::RequestTxn(nested) = request else { continue };
            let (then, otherwise) = (Self::by(&nested.success)?, Self::by(&nested.failure)?);
            // Only one of the two branches is taken: they may put the same key.
            let both: HashSet<&[u8]> = then.puts.union(&otherwise.puts).copied().collect();
            for key in both {
                touched.put(key)?;
            }
            touched.deletes.extend(then.deletes);
            touched.deletes.extend(otherwise.deletes);
        }
        for request in requests() {
            if let PbTxnOpRequest::RequestPut(put) = request {
                touched.put(&put.key)?;
            }
        }
        Ok(touched)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        // The range is taken literally, as etcd takes it here: an end of "\0" overlaps nothing.
        let deleted = self
            .deletes
            .iter()
            .any(|(start, end)| if end.is_empty() { key == *start } else { key >= *start && key < *end });
        if deleted || !self.puts.insert(key) { Err(Refusal::DuplicateKey) } else { Ok(()) }
    }
}
