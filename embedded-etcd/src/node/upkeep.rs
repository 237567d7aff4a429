//! What a node answers to those who look after it: users and tokens, figures, alarms, hashes.

use std::time::Instant;

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbHashKvResponse, PbHashResponse, PbStatusResponse,
};

use super::Node;
use crate::auth::{Auth, Caller, Who};
use crate::pb::journal::record::What;
use crate::refusal::Refusal;

/// The version whose behaviour this one has; the suffix says that it is not that one.
const VERSION: &str = "3.5.30+embedded";

// AlarmRequest.AlarmAction and AlarmType.
const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const NONE: i32 = 0;
const NOSPACE: i32 = 1;

impl Node {
    /// Whether this one may look after the member: root, refused in other words than where users are changed.
    pub(crate) fn maintain(&mut self, who: Who<'_>) -> Result<(), Refusal> {
        self.administer(who, |_| Ok(())).map_err(|refusal| match refusal {
            Refusal::PermissionDenied => Refusal::NotRoot,
            other => other,
        })
    }

    // --- users ---

    /// Asks about users or changes them, as an administrator or nobody.
    pub(crate) fn administer<T>(
        &mut self,
        who: Who<'_>,
        act: impl FnOnce(&mut Auth) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.look_up(who, |auth, caller| {
            auth.admin(caller)?;
            act(auth)
        })
    }

    /// The same where `act` decides who may.
    pub(crate) fn look_up<T>(
        &mut self,
        who: Who<'_>,
        act: impl FnOnce(&mut Auth, &Caller) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let caller = self.auth.caller(who)?;
        self.index += 1;
        let before = (self.auth.is_enabled(), self.auth.revision());
        let result = act(&mut self.auth, &caller);
        if before != (self.auth.is_enabled(), self.auth.revision()) {
            self.record(|node| What::Users(node.auth.dump()));
        }
        result
    }

    /// A token for a user whose password was found right; `None` if users changed meanwhile.
    pub(crate) fn assign_token(&mut self, name: &str, revision: u64, now: Instant) -> Option<String> {
        self.index += 1;
        self.auth.assign(name, revision, self.index, now)
    }

    // --- figures ---

    pub(crate) fn status(&self, leaderless: bool) -> PbStatusResponse {
        let (header, size) = (self.header(), self.store.size());
        let mut errors = Vec::new();
        if leaderless {
            errors.push(Refusal::NoLeader.to_string());
        }
        errors.extend(
            self.unsaved_why.iter().map(|why| format!("embedded etcd: nothing is stored any more: {why}")),
        );
        // As Go prints an alarm.
        errors.extend(self.alarms().map(|alarm| format!("memberID:{} alarm:NOSPACE ", alarm.member_id)));
        PbStatusResponse {
            header: Some(header),
            version: VERSION.to_owned(),
            db_size: i64::try_from(size.allocated).unwrap_or(i64::MAX),
            db_size_in_use: i64::try_from(size.used).unwrap_or(i64::MAX),
            leader: if leaderless { 0 } else { header.member_id },
            raft_index: self.index,
            raft_applied_index: self.index,
            raft_term: header.raft_term,
            errors,
            ..Default::default()
        }
    }

    /// Gives room that compactions freed back.
    pub(crate) fn defragment(&mut self) {
        self.store.defragment();
    }

    /// A hash of all keys and their versions up to a revision, 0 for the newest. Equal histories have equal ones; a
    /// real etcd's are others.
    pub(crate) fn hash_kv(&self, revision: i64) -> Result<PbHashKvResponse, Refusal> {
        let at = if revision == 0 { self.store.revision() } else { revision };
        self.store.check_readable(at)?;
        Ok(PbHashKvResponse {
            header: Some(self.header()),
            hash: self.store.hash(at),
            compact_revision: self.store.compacted(),
            hash_revision: at,
        })
    }

    /// The same of the newest state.
    pub(crate) fn hash(&self) -> PbHashResponse {
        PbHashResponse { header: Some(self.header()), hash: self.store.hash(self.store.revision()) }
    }

    // --- alarms ---

    /// Tells, raises or disarms alarms, of which there is one: NOSPACE.
    pub(crate) fn alarm(
        &mut self,
        who: Who<'_>,
        request: &PbAlarmRequest,
    ) -> Result<PbAlarmResponse, Refusal> {
        let caller = self.auth.caller(who)?;
        let concerned = request.member_id == self.identity.member_id;
        let alarms: Vec<PbAlarmMember> = if request.action == GET {
            self.auth.signed_in(&caller)?;
            self.alarms().filter(|alarm| request.alarm == NONE || request.alarm == alarm.alarm).collect()
        } else {
            self.auth.admin(&caller)?;
            self.index += 1;
            self.with_alarms(|node| {
                if request.action == ACTIVATE {
                    node.no_space.raised |= request.alarm == NOSPACE;
                    node.alarms().filter(|alarm| alarm.alarm == request.alarm).collect()
                } else if concerned && request.alarm == NOSPACE {
                    let disarmed = node.alarms().collect();
                    node.no_space.raised = false;
                    disarmed
                } else {
                    Vec::new()
                }
            })
        };
        Ok(PbAlarmResponse { header: Some(self.header()), alarms })
    }

    /// Does what may raise or disarm the alarm, and takes note of that.
    pub(super) fn with_alarms<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.no_space;
        let result = act(self);
        if self.no_space != before {
            self.record(|node| What::NoSpace(node.no_space.raised));
        }
        result
    }

    fn alarms(&self) -> impl Iterator<Item = PbAlarmMember> {
        let alarm = PbAlarmMember { member_id: self.identity.member_id, alarm: NOSPACE };
        self.no_space.raised.then_some(alarm).into_iter()
    }
}
