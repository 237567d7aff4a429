//! The groups of registrations over one lease: their grants, renewals, losses and ends.
//!
//! In come etcd's answers for leases and what the table asks for; out go the lease's actions, and every member is
//! looked at again when its lease changes. A group is made for the first registration that finds no room, and ends
//! when its last one has said goodbye.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Action, EntryId, GroupId, Table, Trouble};
use crate::etcd::{Answer, Failure};
use crate::name::LeaseId;
use crate::registrar::entry::Stage;
use crate::registrar::lease::{Due, Lease};

/// How many keys share a lease.
const KEYS_PER_LEASE: usize = 100;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) lease: Lease,
    pub(super) members: usize,
    /// Registrations that need the lease.
    pub(super) active: usize,
    revoking: bool,
    /// Its members have been told that the local deadline has passed.
    suspect: bool,
    /// What grants and renewals met last.
    pub(super) trouble: Arc<str>,
}

impl Table {
    // What etcd says.

    pub(in crate::registrar) fn granted(
        &mut self,
        group: GroupId,
        lease: LeaseId,
        result: Result<Duration, Trouble>,
        now: Instant,
    ) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        match result {
            Ok(ttl) => state.lease.granted(lease, ttl),
            Err(trouble) if trouble.failure == Failure::LeaseExists => state.lease.exists(lease, now),
            Err(trouble) => {
                state.trouble = trouble.text;
                state.lease.not_granted(lease, now, &mut self.random);
            }
        }
        if state.lease.id().is_some() {
            self.rows.values_mut().filter(|row| row.group == group).for_each(|row| row.entry.lease_is_new());
        }
        self.pump_members(group, now);
    }

    pub(in crate::registrar) fn answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Renewed { lease, sent } => {
                if let Some((id, group)) = self.holder(lease) {
                    group.lease.renewed(lease, sent);
                    self.pump_group(id, now);
                }
            }
            Answer::Gone { lease } => self.lost(lease, now),
            Answer::Down { reason } => {
                let reason: Arc<str> = reason.into();
                for group in self.groups.values_mut() {
                    group.trouble = reason.clone();
                    group.lease.unanswered(now);
                }
                self.tick(now);
            }
        }
    }

    /// There was no room for the lease's renewal.
    pub(in crate::registrar) fn unsent(&mut self, lease: LeaseId) {
        if let Some((_, group)) = self.holder(lease) {
            group.lease.unsent();
        }
    }

    /// The lease of a group that nobody needed is gone, or left to run out.
    pub(in crate::registrar) fn revoked(&mut self, group: GroupId) {
        self.ended(group);
    }

    // Inside.

    pub(super) fn group_with_room(&mut self, now: Instant) -> GroupId {
        let room = |group: &Group| group.members < KEYS_PER_LEASE && !group.revoking && group.active > 0;
        // The newest first: it is the one with room.
        let found = self.groups.iter_mut().rev().find(|(_, group)| room(group));
        if let Some((id, group)) = found {
            group.members += 1;
            group.active += 1;
            return *id;
        }
        self.next_group += 1;
        let lease = Lease::new(self.ttl, now);
        let trouble = "waiting for etcd".into();
        let group = Group { lease, members: 1, active: 1, revoking: false, suspect: false, trouble };
        self.groups.insert(self.next_group, group);
        self.next_group
    }

    fn holder(&mut self, lease: LeaseId) -> Option<(GroupId, &mut Group)> {
        let mut groups = self.groups.iter_mut();
        groups.find(|(_, group)| group.lease.id() == Some(lease)).map(|(id, group)| (*id, group))
    }

    pub(super) fn lost(&mut self, lease: LeaseId, now: Instant) {
        let Some((id, _)) = self.holder(lease) else { return };
        if let Some(group) = self.groups.get_mut(&id) {
            group.trouble = "the lease has run out or was revoked".into();
            group.lease.lost(lease, now, &mut self.random);
            self.actions.push(Action::LeaseLost);
        }
        self.pump_members(id, now);
    }

    fn pump_members(&mut self, group: GroupId, now: Instant) {
        self.pump_group(group, now);
        for id in self.members(group) {
            self.pump(id, now);
        }
    }

    pub(super) fn members(&self, group: GroupId) -> Vec<EntryId> {
        self.rows.iter().filter(|(_, row)| row.group == group).map(|(id, _)| *id).collect()
    }

    pub(super) fn pump_group(&mut self, id: GroupId, now: Instant) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.active == 0 {
            return;
        }
        match group.lease.due(now, &mut self.random) {
            Some(Due::Grant(lease)) => {
                self.actions.push(Action::Grant { group: id, lease, ttl: group.lease.ttl() });
            }
            Some(Due::Renew(lease)) => {
                self.actions.push(Action::Renew { lease, ttl: group.lease.ttl(), sent: now });
            }
            None => {}
        }
        let suspect = group.lease.is_suspect(now);
        if std::mem::replace(&mut group.suspect, suspect) != suspect {
            for member in self.members(id) {
                self.pump(member, now);
            }
        }
    }

    /// Answers who waits for a goodbye, forgets what is over, and ends a group that nobody needs.
    pub(super) fn wind_down(&mut self, id: EntryId, now: Instant) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        let (stage, group) = (row.entry.stage, row.group);
        if stage == Stage::Active {
            return;
        }
        let alone = self.groups.get(&group).is_none_or(|group| group.active == 0);
        match stage {
            // Others keep the lease alive: what is left behind is deleted, not left to run out.
            Stage::Ghost { .. } if !alone => self.answer_waiting(id, Ok(())),
            Stage::Over { .. } if !alone => {
                self.answer_waiting(id, Ok(()));
                self.forget(id);
            }
            Stage::Ghost { .. } | Stage::Over { .. } => self.end(group),
            Stage::Leaving { .. } | Stage::Active => {}
        }
        if let Some(row) = self.rows.get(&id)
            && row.waiting.is_some_and(|deadline| now >= deadline)
        {
            let trouble = self.groups.get(&group).map_or_else(|| "".into(), |group| group.trouble.clone());
            self.answer_waiting(id, Err(trouble));
        }
    }

    /// Revokes the lease of a group whose last registration has said goodbye.
    fn end(&mut self, id: GroupId) {
        let mut rows = self.rows.values().filter(|row| row.group == id);
        let someone_leaves = rows.any(|row| matches!(row.entry.stage, Stage::Leaving { .. }));
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.revoking || someone_leaves {
            return;
        }
        match group.lease.leftover() {
            Some(lease) => {
                group.revoking = true;
                self.actions.push(Action::Revoke { group: id, lease });
            }
            None => self.ended(id),
        }
    }

    /// With the lease gone no late put can land: there is nothing to watch for.
    fn ended(&mut self, id: GroupId) {
        self.groups.remove(&id);
        for entry in self.members(id) {
            self.answer_waiting(entry, Ok(()));
            self.forget(entry);
        }
    }
}
