//! What each request touches, held against what its caller may do. Next: the node carries it out.

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use super::{Access, Auth, Caller};
use crate::lease::Lessor;
use crate::refusal::Refusal;

/// The caller of a request and all that decides what it may do.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    pub(crate) auth: &'a Auth,
    pub(crate) lessor: &'a Lessor,
    pub(crate) caller: &'a Caller,
}

impl Check<'_> {
    fn read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.auth.permits(self.caller, Access::Read, key, range_end)
    }

    fn write(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.auth.permits(self.caller, Access::Write, key, range_end)
    }

    pub(crate) fn range(&self, request: &PbRangeRequest) -> Result<(), Refusal> {
        self.read(&request.key, &request.range_end)
    }

    /// Who puts a key on a lease must be able to end the lease, so to write all its keys.
    pub(crate) fn put(&self, request: &PbPutRequest) -> Result<(), Refusal> {
        self.write(&request.key, &[])?;
        self.lease_writes(request.lease)?;
        if request.prev_kv { self.read(&request.key, &[]) } else { Ok(()) }
    }

    pub(crate) fn delete(&self, request: &PbDeleteRequest) -> Result<(), Refusal> {
        self.write(&request.key, &request.range_end)?;
        if request.prev_kv { self.read(&request.key, &request.range_end) } else { Ok(()) }
    }

    /// All of it, the branch that is not taken too: one key out of reach denies the whole.
    pub(crate) fn txn(&self, request: &PbTxnRequest) -> Result<(), Refusal> {
        for compare in &request.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        self.ops(&request.success)?;
        self.ops(&request.failure)
    }

    fn ops(&self, ops: &[PbTxnRequestOp]) -> Result<(), Refusal> {
        ops.iter().filter_map(|op| op.request.as_ref()).try_for_each(|request| match request {
            PbTxnOpRequest::RequestRange(request) => self.range(request),
            PbTxnOpRequest::RequestPut(request) => self.put(request),
            PbTxnOpRequest::RequestDeleteRange(request) => self.delete(request),
            PbTxnOpRequest::RequestTxn(request) => self.txn(request),
        })
    }

    /// Revoking or renewing a lease needs the right to write all its keys; one without keys is anyone's.
    pub(crate) fn lease_writes(&self, id: i64) -> Result<(), Refusal> {
        self.lease_keys(id, Access::Write)
    }

    /// Asking for the keys of a lease needs the right to read them.
    pub(crate) fn lease_reads(&self, id: i64) -> Result<(), Refusal> {
        self.lease_keys(id, Access::Read)
    }

    fn lease_keys(&self, id: i64, access: Access) -> Result<(), Refusal> {
        if self.auth.admin(self.caller).is_ok() {
            return Ok(());
        }
        let keys = self.lessor.get(id).into_iter().flat_map(|lease| &lease.keys);
        keys.into_iter().try_for_each(|key| self.auth.permits(self.caller, access, key, &[]))
    }
}
