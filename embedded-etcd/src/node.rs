//! One etcd node as a value: a request and the time come in, its answer goes out, watchers are marked.
//!
//! It joins the [store](crate::store), the [leases](crate::lease), the [watches](crate::watch) and the
//! [users](crate::auth): a request is checked in etcd's order (its form, its caller, its size, what the caller
//! may do, the state), and whatever a write changed, leases and watches follow. It has no task, socket or clock;
//! [`crate::member`] drives it. `node/leases.rs` has what concerns leases, `node/upkeep.rs` users, figures and
//! alarms; `node/records.rs` makes records of every change, for a data folder.

mod leases;
mod records;
mod upkeep;

use std::time::Instant;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbResponseHeader, PbTxnRequest, PbTxnResponse,
    PbWatchResponse,
};

use crate::auth::check::Check;
use crate::auth::{Access, Auth, Caller, Who};
use crate::lease::Lessor;
use crate::limits::{self, NoSpace};
use crate::pb::journal::Record;
use crate::pb::journal::record::What;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::store::{Store, range};
use crate::txn;
use crate::watch::{StreamId, Wanted, Watches};

/// Who a node says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
}

impl Identity {
    pub(crate) fn random() -> Self {
        Self { cluster_id: fastrand::u64(1..), member_id: fastrand::u64(1..) }
    }
}

/// The whole state of a node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    settings: Settings,
    pub(crate) term: u64,
    /// Counts what etcd would have put in its raft log.
    index: u64,
    pub(crate) store: Store,
    pub(crate) lessor: Lessor,
    pub(crate) watches: Watches,
    pub(crate) auth: Auth,
    no_space: NoSpace,
    /// What is to be written to the data folder.
    unsaved: Vec<Record>,
    /// Why nothing is written any more.
    pub(crate) unsaved_why: Option<String>,
    /// Fault: no lease runs out. Also the case without a leader.
    pub(crate) leases_held: bool,
    /// Fault: so many next changes of keys with this prefix reach no watch.
    pub(crate) losing: Option<(Vec<u8>, usize)>,
}

impl Node {
    pub(crate) fn new(identity: Identity, settings: Settings) -> Self {
        Self {
            identity,
            // The first election, before anything else, makes it 2 as in a real one.
            term: 1,
            index: 0,
            store: Store::new(),
            lessor: Lessor::new(settings.min_ttl),
            watches: Watches::default(),
            auth: Auth::new(settings.token_ttl),
            no_space: NoSpace::default(),
            unsaved: Vec::new(),
            unsaved_why: None,
            leases_held: false,
            losing: None,
            settings,
        }
    }

    /// Becomes leader again, after a restart or an election.
    pub(crate) fn lead(&mut self, now: Instant) {
        self.term += 1;
        self.lessor.renew_all(now);
        self.record(|node| What::Term(node.term));
    }

    pub(crate) fn header(&self) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision: self.store.revision(),
            raft_term: self.term,
        }
    }

    fn check<'a>(&'a self, caller: &'a Caller) -> Check<'a> {
        Check { auth: &self.auth, lessor: &self.lessor, caller }
    }

    fn check_space(&mut self, cost: u64) -> Result<(), Refusal> {
        self.with_alarms(|node| {
            node.no_space.check(node.settings.quota_bytes, node.store.size().allocated, cost)
        })
    }

    // --- keys ---

    pub(crate) fn range(
        &mut self,
        who: Who<'_>,
        request: &PbRangeRequest,
    ) -> Result<PbRangeResponse, Refusal> {
        range::check(request)?;
        let caller = self.auth.caller(who)?;
        self.check(&caller).range(request)?;
        let response = range::range(&self.store, request)?;
        Ok(PbRangeResponse { header: Some(self.header()), ..response })
    }

    pub(crate) fn put(&mut self, who: Who<'_>, request: PbPutRequest) -> Result<PbPutResponse, Refusal> {
        self.check_space(limits::cost_of_put(&request))?;
        txn::check_put(&request)?;
        let caller = self.auth.caller(who)?;
        limits::check_write(&self.settings, &request)?;
        self.check(&caller).put(&request)?;
        // The other way round than in a transaction, as etcd does it.
        txn::check_lease(&self.lessor, &request)?;
        txn::check_kept(&self.store, &request)?;
        let response = self.writing(|store, _| Ok(txn::put(&mut store.write(), request)))?;
        Ok(PbPutResponse { header: Some(self.header()), ..response })
    }

    pub(crate) fn delete(
        &mut self,
        who: Who<'_>,
        request: &PbDeleteRequest,
    ) -> Result<PbDeleteResponse, Refusal> {
        txn::check_delete(request)?;
        let caller = self.auth.caller(who)?;
        limits::check_write(&self.settings, request)?;
        self.check(&caller).delete(request)?;
        let response = self.writing(|store, _| Ok(txn::delete(&mut store.write(), request)))?;
        Ok(PbDeleteResponse { header: Some(self.header()), ..response })
    }

    pub(crate) fn txn(&mut self, who: Who<'_>, request: PbTxnRequest) -> Result<PbTxnResponse, Refusal> {
        self.check_space(limits::cost_of_txn(&request))?;
        txn::check(&request, self.settings.max_txn_ops)?;
        let caller = self.auth.caller(who)?;
        limits::check_write(&self.settings, &request)?;
        self.check(&caller).txn(&request)?;
        let response = self.writing(|store, lessor| txn::apply(store, lessor, request))?;
        Ok(PbTxnResponse { header: Some(self.header()), ..response })
    }

    pub(crate) fn compact(
        &mut self,
        who: Who<'_>,
        request: &PbCompactionRequest,
    ) -> Result<PbCompactionResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        self.auth.admin(&caller)?;
        self.compact_at(request.revision)?;
        Ok(PbCompactionResponse { header: Some(self.header()) })
    }

    pub(crate) fn compact_at(&mut self, revision: i64) -> Result<(), Refusal> {
        self.index += 1;
        self.store.compact(revision)?;
        self.record(|_| What::Compact(revision));
        Ok(())
    }

    /// Writes, and lets leases and watches follow what was changed.
    fn writing<T>(
        &mut self,
        write: impl FnOnce(&mut Store, &Lessor) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.writing_with_end(0, write)
    }

    /// The same where the end of a lease is what writes.
    fn writing_with_end<T>(
        &mut self,
        ended: i64,
        write: impl FnOnce(&mut Store, &Lessor) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.index += 1;
        let first = self.store.revision() + 1;
        let result = write(&mut self.store, &self.lessor);
        if let Some((prefix, left)) = &mut self.losing {
            for change in self.store.changes_mut().since_mut(first) {
                if *left > 0 && change.key.starts_with(prefix) {
                    (change.lost, *left) = (true, *left - 1);
                }
            }
        }
        for change in self.store.changes().since(first) {
            self.lessor.follow(change);
            if !change.lost {
                self.watches.mark(change);
            }
        }
        if ended != 0 || self.store.revision() >= first {
            self.record_write(first, ended);
        }
        result
    }

    // --- watches ---

    /// Creates a watch, or says in the same answer why not.
    pub(crate) fn watch(&mut self, stream: StreamId, who: Who<'_>, wanted: Wanted) -> PbWatchResponse {
        let permitted = self.auth.caller(who).and_then(|caller| {
            let (key, range_end) = wanted.range.as_request();
            self.auth.permits(&caller, Access::Read, key, range_end)
        });
        let response = match permitted {
            Ok(()) => self.watches.create(stream, wanted, &self.store),
            Err(refusal) => Watches::refusal(refusal.in_go()),
        };
        PbWatchResponse { header: Some(self.header()), ..response }
    }

    pub(crate) fn cancel_watch(&mut self, stream: StreamId, watch_id: i64) -> Option<PbWatchResponse> {
        let response = self.watches.cancel(stream, watch_id)?;
        Some(PbWatchResponse { header: Some(self.header()), ..response })
    }

    /// The next answer of a stream, and whether it may be split.
    pub(crate) fn next_event(&mut self, stream: StreamId) -> Option<(PbWatchResponse, bool)> {
        let (response, fragment) = self.watches.next(stream, &self.store)?;
        let mut header = self.header();
        if response.canceled {
            // As in etcd, the end by compaction tells no revision.
            header.revision = 0;
        }
        Some((PbWatchResponse { header: Some(header), ..response }, fragment))
    }

    pub(crate) fn progress(&self, stream: StreamId) -> Option<PbWatchResponse> {
        let response = self.watches.progress(stream)?;
        Some(PbWatchResponse { header: Some(self.header()), ..response })
    }

    pub(crate) fn notices(&mut self, stream: StreamId) -> Vec<PbWatchResponse> {
        let header = self.header();
        let notices = self.watches.notices(stream).into_iter();
        notices.map(|notice| PbWatchResponse { header: Some(header), ..notice }).collect()
    }
}
