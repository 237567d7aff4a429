//! What a node does about leases: grants, renewals, questions, and their ends.

use std::time::Instant;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveResponse, PbLeaseLeasesResponse,
    PbLeaseRevokeResponse, PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};

use super::Node;
use crate::auth::Who;
use crate::limits::LEASE_BYTES;
use crate::pb::journal::Grant;
use crate::pb::journal::record::What;
use crate::refusal::Refusal;
use crate::store::KeyRange;

impl Node {
    pub(crate) fn grant(
        &mut self,
        who: Who<'_>,
        request: &PbLeaseGrantRequest,
        now: Instant,
    ) -> Result<PbLeaseGrantResponse, Refusal> {
        self.check_space(LEASE_BYTES)?;
        let caller = self.auth.caller(who)?;
        self.auth.signed_in(&caller)?;
        let (id, ttl) = self.lessor.grant(request.id, request.ttl, now)?;
        self.index += 1;
        self.record(|_| What::Grant(Grant { id, ttl }));
        Ok(PbLeaseGrantResponse { header: Some(self.header()), id, ttl, error: String::new() })
    }

    /// Gives a lease its TTL again; a TTL of 0 in the answer says that there is no such lease.
    pub(crate) fn keep_alive(
        &mut self,
        who: Who<'_>,
        id: i64,
        now: Instant,
    ) -> Result<PbLeaseKeepAliveResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        self.auth.signed_in(&caller)?;
        self.check(&caller).lease_writes(id)?;
        let ttl = self.lessor.renew(id, now).unwrap_or(0);
        Ok(PbLeaseKeepAliveResponse { header: Some(self.header()), id, ttl })
    }

    pub(crate) fn time_to_live(
        &mut self,
        who: Who<'_>,
        request: &PbLeaseTimeToLiveRequest,
        now: Instant,
    ) -> Result<PbLeaseTimeToLiveResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        self.auth.signed_in(&caller)?;
        if request.keys {
            self.check(&caller).lease_reads(request.id)?;
        }
        let gone = PbLeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
        let answer = match self.lessor.get(request.id) {
            None => gone,
            Some(lease) => PbLeaseTimeToLiveResponse {
                ttl: lease.remaining(now),
                granted_ttl: lease.ttl,
                keys: lease.keys.iter().filter(|_| request.keys).map(|key| key.to_vec()).collect(),
                ..gone
            },
        };
        Ok(PbLeaseTimeToLiveResponse { header: Some(self.header()), ..answer })
    }

    /// All leases; who may not read the keys of each is refused.
    pub(crate) fn leases(&mut self, who: Who<'_>) -> Result<PbLeaseLeasesResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        self.auth.signed_in(&caller)?;
        let check = self.check(&caller);
        self.lessor.ids().try_for_each(|id| check.lease_reads(id))?;
        let leases = self.lessor.ids().map(|id| PbLeaseStatus { id }).collect();
        Ok(PbLeaseLeasesResponse { header: Some(self.header()), leases })
    }

    /// Ends a lease and deletes its keys, all at one revision.
    pub(crate) fn revoke(&mut self, who: Who<'_>, id: i64) -> Result<PbLeaseRevokeResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        self.auth.signed_in(&caller)?;
        self.check(&caller).lease_writes(id)?;
        self.end_lease(id)?;
        Ok(PbLeaseRevokeResponse { header: Some(self.header()) })
    }

    fn end_lease(&mut self, id: i64) -> Result<(), Refusal> {
        let lease = self.lessor.remove(id).ok_or(Refusal::LeaseNotFound)?;
        self.writing_with_end(id, |store, _| {
            let mut write = store.write();
            for key in &lease.keys {
                write.delete(&KeyRange::one(key));
            }
            Ok(())
        })
    }

    /// Ends the leases whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(id) = self.lessor.due(now).filter(|_| !self.leases_held) {
            // The only refusal is that there is no such lease, and it was there just now.
            let _ = self.end_lease(id);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.lessor.next_expiry().filter(|_| !self.leases_held)
    }
}
