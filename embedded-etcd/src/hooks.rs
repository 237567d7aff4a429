//! Faults on demand: what real etcds, networks and operators do to clients.

use std::sync::Arc;
use std::time::Duration;

use crate::member::Member;

/// Makes an [`EmbeddedEtcd`](crate::EmbeddedEtcd) misbehave. Cheap to clone; every method acts at once.
#[derive(Debug, Clone)]
pub struct Hooks {
    member: Arc<Member>,
}

impl Hooks {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    /// Nothing is read, written or accepted any more, as when the process is stopped (SIGSTOP): connections
    /// stay and are silent. Leases run on and expire at [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.member.faults.send_modify(|faults| faults.frozen = true);
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.member.faults.send_modify(|faults| faults.frozen = false);
    }

    /// Ends all open watch and keepalive streams with UNAVAILABLE; their connections stay.
    pub fn drop_streams(&self) {
        self.member.faults.send_modify(|faults| faults.dropped += 1);
    }

    /// Watch streams that are open now say nothing any more, not even to a progress request, while their connections live
    /// and answer PINGs. Streams that are opened later work.
    pub fn mute_watches(&self) {
        self.member.faults.send_modify(|faults| faults.muted += 1);
    }

    /// Every call, and every answer on a stream, is held up for so long. Zero ends it.
    pub fn delay(&self, delay: Duration) {
        self.member.faults.send_modify(|faults| faults.delay = delay);
    }

    /// Loses the leader: calls and streams that require one fail with `no leader`, others wait 7 s and time
    /// out, serializable reads go on, and no lease expires.
    pub fn lose_leader(&self) {
        self.member.with(|node, _| node.leases_held = true);
        self.member.faults.send_modify(|faults| faults.leaderless = true);
    }

    /// A leader is elected: the raft term is higher, and every lease has its full TTL again.
    pub fn elect_leader(&self) {
        self.member.with(|node, now| {
            node.lead(now);
            node.leases_held = false;
        });
        self.member.faults.send_modify(|faults| faults.leaderless = false);
    }

    /// Compacts at the newest revision; gives that revision.
    pub fn compact_now(&self) -> i64 {
        self.member.with(|node, _| {
            let revision = node.store.revision();
            // Refused only if this revision is compacted already.
            let _ = node.compact_at(revision);
            revision
        })
    }

    /// No lease expires until [`unfreeze_leases`](Self::unfreeze_leases).
    pub fn freeze_leases(&self) {
        self.member.with(|node, _| node.leases_held = true);
    }

    /// Leases expire again; those that are overdue do at once.
    pub fn unfreeze_leases(&self) {
        self.member.with(|node, _| node.leases_held = false);
    }

    /// One lease runs out now.
    pub fn expire_lease(&self, id: i64) {
        self.member.with(|node, now| {
            node.lessor.end_now(id, now);
            node.expire(now);
        });
    }

    /// All leases run out now.
    pub fn expire_leases(&self) {
        self.member.with(|node, now| {
            for id in node.lessor.ids().collect::<Vec<_>>() {
                node.lessor.end_now(id, now);
            }
            node.expire(now);
        });
    }

    /// The next `count` changes of keys that begin with `prefix` reach no watch, not even one that starts
    /// later in the past. Reads see them.
    pub fn lose_events(&self, prefix: impl Into<Vec<u8>>, count: usize) {
        self.member.with(|node, _| node.losing = Some((prefix.into(), count)));
    }

    /// Every watcher is told again of all changes since a revision, as a member that lags behind does to a
    /// watcher which was moved to it.
    pub fn replay_events(&self, from_revision: i64) {
        self.member.with(|node, _| node.watches.replay(from_revision, node.store.revision()));
    }

    /// The next `count` watches are refused with this reason, such as `etcdserver: permission denied`.
    pub fn refuse_watches(&self, count: usize, reason: &str) {
        self.member.with(|node, _| node.watches.refuse(count, reason));
    }

    /// Forgets all tokens: who used one is told `invalid auth token`, as after its TTL.
    pub fn expire_tokens(&self) {
        self.member.with(|node, _| node.auth.forget_tokens());
    }

    /// The next `count` requests with a token are told that the `revision of auth store is old`, as those are that
    /// were on their way while users were changed. The token stays good.
    pub fn outdate_tokens(&self, count: usize) {
        self.member.with(|node, _| node.auth.outdate(count));
    }

    /// How many watches are open.
    pub fn watch_count(&self) -> usize {
        self.member.with(|node, _| node.watches.count())
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.member.with(|node, _| node.lessor.ids().count())
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.member.with(|node, _| node.store.revision())
    }
}
