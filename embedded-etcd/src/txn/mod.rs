//! Transactions: which branch is taken, whether it may be, and its effects at one revision.
//!
//! As in etcd all compares, those of nested transactions too, look at the state before the transaction;
//! then every operation of the chosen path is checked; only then is anything changed.

mod check;
mod compare;

use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse, PbRangeResponse,
    PbResponseHeader, PbResponseOp, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
    PbTxnResponse,
};

pub(crate) use check::{check, check_delete, check_put};

use crate::lease::Lessor;
use crate::refusal::Refusal;
use crate::store::{KeyRange, Store, Write, range};

/// Carries a transaction out. Headers tell only the revision.
pub(crate) fn apply(
    store: &mut Store,
    lessor: &Lessor,
    request: PbTxnRequest,
) -> Result<PbTxnResponse, Refusal> {
    let path = Path::choose(store, &request);
    path.check(store, lessor, &request)?;
    let mut write = store.write();
    let mut response = path.run(&mut write, request)?;
    response.header = header(write.revision());
    Ok(response)
}

/// Puts one key; the lease and what `ignore_value` and `ignore_lease` demand have been checked.
pub(crate) fn put(write: &mut Write<'_>, request: PbPutRequest) -> PbPutResponse {
    let PbPutRequest { key, mut value, mut lease, prev_kv, ignore_value, ignore_lease } = request;
    let now = write.store().get(&key);
    if let Some(now) = now.filter(|_| ignore_value) {
        value = now.value.to_vec();
    }
    if let Some(now) = now.filter(|_| ignore_lease) {
        lease = now.lease;
    }
    let before = write.put(key.into(), value.into(), lease);
    let prev_kv: Option<PbKeyValue> = before.filter(|_| prev_kv).map(|item| item.to_message());
    PbPutResponse { header: header(write.revision()), prev_kv }
}

/// Deletes a range of keys.
pub(crate) fn delete(write: &mut Write<'_>, request: &PbDeleteRequest) -> PbDeleteResponse {
    let gone = write.delete(&KeyRange::new(&request.key, &request.range_end));
    PbDeleteResponse {
        header: header(write.revision()),
        deleted: gone.len() as i64,
        prev_kvs: gone.iter().filter(|_| request.prev_kv).map(|item| item.to_message()).collect(),
    }
}

/// The lease that a put names.
pub(crate) fn check_lease(lessor: &Lessor, request: &PbPutRequest) -> Result<(), Refusal> {
    if request.lease != 0 && !lessor.has(request.lease) { Err(Refusal::LeaseNotFound) } else { Ok(()) }
}

/// The key of which a put keeps something.
pub(crate) fn check_kept(store: &Store, request: &PbPutRequest) -> Result<(), Refusal> {
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && store.get(&request.key).is_none() { Err(Refusal::KeyNotFound) } else { Ok(()) }
}

fn header(revision: i64) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { revision, ..Default::default() })
}

/// The branch taken by a transaction and by those nested in that branch, in their order.
#[derive(Debug)]
struct Path {
    success: bool,
    nested: Vec<Path>,
}

impl Path {
    fn choose(store: &Store, request: &PbTxnRequest) -> Path {
        let success = request.compare.iter().all(|compare| compare::holds(store, compare));
        let branch = if success { &request.success } else { &request.failure };
        let nested = branch.iter().filter_map(|op| match &op.request {
            Some(PbTxnOpRequest::RequestTxn(nested)) => Some(Path::choose(store, nested)),
            _ => None,
        });
        Path { success, nested: nested.collect() }
    }

    fn check(&self, store: &Store, lessor: &Lessor, request: &PbTxnRequest) -> Result<(), Refusal> {
        let mut nested = self.nested.iter();
        for op in if self.success { &request.success } else { &request.failure } {
            match &op.request {
                Some(PbTxnOpRequest::RequestRange(range)) if range.revision != 0 => {
                    store.check_readable(range.revision)?;
                }
                Some(PbTxnOpRequest::RequestPut(put)) => {
                    check_kept(store, put)?;
                    check_lease(lessor, put)?;
                }
                Some(PbTxnOpRequest::RequestTxn(txn)) => {
                    if let Some(path) = nested.next() {
                        path.check(store, lessor, txn)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn run(&self, write: &mut Write<'_>, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
        let mut nested = self.nested.iter();
        let mut responses = Vec::new();
        for PbTxnRequestOp { request } in if self.success { request.success } else { request.failure } {
            let response = match request {
                Some(PbTxnOpRequest::RequestRange(request)) => {
                    let response: PbRangeResponse = range::range(write.store(), &request)?;
                    PbTxnOpResponse::ResponseRange(response)
                }
                Some(PbTxnOpRequest::RequestPut(request)) => {
                    PbTxnOpResponse::ResponsePut(put(write, request))
                }
                Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
                    PbTxnOpResponse::ResponseDeleteRange(delete(write, &request))
                }
                Some(PbTxnOpRequest::RequestTxn(request)) => match nested.next() {
                    Some(path) => PbTxnOpResponse::ResponseTxn(path.run(write, request)?),
                    None => continue,
                },
                // Refused by the check of the request's form.
                None => continue,
            };
            responses.push(PbResponseOp { response: Some(response) });
        }
        // The outermost one tells the revision.
        Ok(PbTxnResponse { header: header(0), succeeded: self.success, responses })
    }
}
