//! The clock of one lease that many registrations share, as a pure value.
//!
//! In come grants, renewals, their failures and the time; out goes what is due ([`Lease::due`]) and where the lease
//! stands. A keepalive goes out at each third of the granted TTL, one at a time: a slow etcd sets the pace. The deadline
//! is kept on the local clock from when a renewal was *sent*; passing it makes the lease Suspect, for etcd may well have
//! prolonged it (after a change of leader it gives every lease its full TTL). Lost is only what etcd says is lost.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::name::LeaseId;

/// What a lease needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask etcd for this lease.
    Grant(LeaseId),
    /// Renew it.
    Renew(LeaseId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// None held; ask from `not_before` on.
    Absent { not_before: Instant },
    /// Asked for at `sent`, and at `first` for the first time. The id is ours, so that asking twice leaks nothing.
    Granting { id: LeaseId, first: Instant, sent: Instant },
    /// An attempt failed without telling whether it happened: ask again for the same id.
    Again { id: LeaseId, first: Instant, not_before: Instant },
    Held {
        id: LeaseId,
        deadline: Instant,
        renew_at: Instant,
        /// Of the renewal that is under way.
        sent: Option<Instant>,
    },
}

/// A lease and its clock.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    at: At,
    ttl: Duration,
    backoff: Backoff,
}

impl Lease {
    /// A lease that is to be asked for at once. `ttl` is the wish; etcd may grant more.
    pub(crate) fn new(ttl: Duration, now: Instant) -> Lease {
        Lease { at: At::Absent { not_before: now }, ttl, backoff: Backoff::registration() }
    }

    /// The lease to put records on.
    pub(crate) fn id(&self) -> Option<LeaseId> {
        match self.at {
            At::Held { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The lease that etcd may hold for us, to be revoked when nobody needs it any more.
    pub(crate) fn leftover(&self) -> Option<LeaseId> {
        match self.at {
            At::Held { id, .. } | At::Granting { id, .. } | At::Again { id, .. } => Some(id),
            At::Absent { .. } => None,
        }
    }

    /// The TTL granted, or wished for.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether the local deadline has passed without an answer.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        matches!(self.at, At::Held { deadline, .. } if now >= deadline)
    }

    /// What is to be done now, and notes that it is done.
    pub(crate) fn due(&mut self, now: Instant, random: &mut fastrand::Rng) -> Option<Due> {
        match &mut self.at {
            At::Absent { not_before } if now >= *not_before => {
                let id = LeaseId(random.i64(1..));
                self.at = At::Granting { id, first: now, sent: now };
                Some(Due::Grant(id))
            }
            At::Again { id, first, not_before } if now >= *not_before => {
                let (id, first) = (*id, *first);
                self.at = At::Granting { id, first, sent: now };
                Some(Due::Grant(id))
            }
            At::Held { id, renew_at, sent: sent @ None, .. } if now >= *renew_at => {
                // A woken process has one tick due, not one for each that it slept through.
                *renew_at = now + self.ttl / 3;
                *sent = Some(now);
                Some(Due::Renew(*id))
            }
            _ => None,
        }
    }

    /// When [`Lease::due`] or [`Lease::is_suspect`] changes next.
    pub(crate) fn wakeup(&self, now: Instant) -> Option<Instant> {
        match self.at {
            At::Absent { not_before } | At::Again { not_before, .. } => Some(not_before),
            At::Granting { .. } => None,
            At::Held { deadline, renew_at, sent, .. } => {
                let due = sent.is_none().then_some(renew_at);
                due.into_iter().chain((deadline > now).then_some(deadline)).min()
            }
        }
    }

    /// etcd granted `id` for `ttl`.
    pub(crate) fn granted(&mut self, id: LeaseId, ttl: Duration) {
        if let At::Granting { id: asked, sent, .. } = self.at
            && asked == id
        {
            self.ttl = ttl;
            self.at = At::Held { id, deadline: sent + ttl, renew_at: sent + ttl / 3, sent: None };
        }
    }

    /// etcd has the id already: an earlier attempt of ours was carried out. Renewed at once, since it may be old.
    pub(crate) fn exists(&mut self, id: LeaseId, now: Instant) {
        if let At::Granting { id: asked, first, .. } = self.at
            && asked == id
        {
            self.at = At::Held { id, deadline: first + self.ttl, renew_at: now, sent: None };
        }
    }

    /// The grant failed; perhaps it was carried out.
    pub(crate) fn not_granted(&mut self, id: LeaseId, now: Instant, random: &mut fastrand::Rng) {
        if let At::Granting { id: asked, first, .. } = self.at
            && asked == id
        {
            self.at = At::Again { id, first, not_before: now + self.backoff.next(random) };
        }
    }

    /// The renewal that was sent at `asked` was answered.
    pub(crate) fn renewed(&mut self, id: LeaseId, asked: Instant) {
        if let At::Held { id: held, deadline, sent, .. } = &mut self.at
            && *held == id
        {
            *deadline = (*deadline).max(asked + self.ttl);
            // An answer that was given up for lost and came all the same leaves the next one under way.
            sent.take_if(|sent| *sent <= asked);
        }
    }

    /// The renewal could not be sent: the next third asks again.
    pub(crate) fn unsent(&mut self) {
        if let At::Held { sent, .. } = &mut self.at {
            *sent = None;
        }
    }

    /// The stream was lost with whatever was under way on it.
    pub(crate) fn unanswered(&mut self, now: Instant) {
        if let At::Held { renew_at, sent, .. } = &mut self.at
            && sent.take().is_some()
        {
            // The stream backs off by itself; the renewal only has to be in its queue.
            *renew_at = now;
        }
    }

    /// etcd says that `id` does not exist: take another one, after a jittered wait. Returns whether it was ours.
    pub(crate) fn lost(&mut self, id: LeaseId, now: Instant, random: &mut fastrand::Rng) -> bool {
        let ours = self.id() == Some(id);
        if ours {
            self.at = At::Absent { not_before: now + self.backoff.next(random) };
        }
        ours
    }

    /// A record stands on the lease: the next loss waits as briefly as the first.
    pub(crate) fn proven(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn random() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    fn held() -> (Lease, LeaseId, Instant) {
        let now = Instant::now();
        let mut lease = Lease::new(TTL, now);
        let Some(Due::Grant(id)) = lease.due(now, &mut random()) else { panic!("a grant is due") };
        lease.granted(id, TTL);
        (lease, id, now)
    }

    #[test]
    fn a_keepalive_is_due_at_each_third_of_the_granted_ttl() {
        let (mut lease, id, start) = held();
        let mut random = random();
        for third in 1..10 {
            let tick = start + TTL / 3 * third;
            assert_eq!(lease.due(tick - Duration::from_millis(1), &mut random), None);
            assert_eq!(lease.due(tick, &mut random), Some(Due::Renew(id)));
            assert_eq!(lease.due(tick, &mut random), None, "once a tick");
            lease.renewed(id, tick);
            assert_eq!(lease.wakeup(tick), Some(tick + TTL / 3));
        }
    }

    #[test]
    fn etcds_floor_replaces_our_wish() {
        let now = Instant::now();
        let mut lease = Lease::new(Duration::from_secs(1), now);
        let Some(Due::Grant(id)) = lease.due(now, &mut random()) else { panic!("a grant is due") };
        lease.granted(id, Duration::from_secs(2));
        assert_eq!(lease.ttl(), Duration::from_secs(2));
        assert_eq!(lease.wakeup(now), Some(now + Duration::from_secs(2) / 3));
    }

    #[test]
    fn local_expiry_is_suspect_and_never_lost() {
        let (mut lease, id, start) = held();
        assert!(!lease.is_suspect(start + TTL - Duration::from_millis(1)));
        let later = start + TTL * 5;
        assert!(lease.is_suspect(later));
        assert_eq!(lease.id(), Some(id), "the same lease");
        assert_eq!(lease.due(later, &mut random()), Some(Due::Renew(id)), "it goes on asking");
        lease.renewed(id, later);
        assert!(!lease.is_suspect(later + Duration::from_millis(5)));
        assert!(lease.is_suspect(later + TTL), "the deadline counts from when the renewal was sent");
    }

    #[test]
    fn the_next_keepalive_waits_for_the_answer_of_the_last() {
        let (mut lease, id, start) = held();
        let mut random = random();
        let tick = start + TTL / 3;
        assert_eq!(lease.due(tick, &mut random), Some(Due::Renew(id)));
        let late = tick + TTL / 2;
        assert_eq!((lease.due(late, &mut random), lease.wakeup(late)), (None, Some(start + TTL)));
        lease.renewed(id, tick);
        assert_eq!(lease.due(late, &mut random), Some(Due::Renew(id)), "and goes out as soon as it is there");
    }

    #[test]
    fn an_answer_that_was_given_up_for_lost_counts_from_its_own_renewal() {
        let (mut lease, id, start) = held();
        let mut random = random();
        let (first, second) = (start + TTL / 3, start + TTL / 3 * 2);
        lease.due(first, &mut random);
        lease.unanswered(second);
        assert_eq!(lease.due(second, &mut random), Some(Due::Renew(id)));
        lease.renewed(id, first);
        assert!(!lease.is_suspect(start + TTL));
        assert!(lease.is_suspect(first + TTL), "not from the second one's");
        assert_eq!(lease.due(first + TTL, &mut random), None, "which is under way still");
        lease.renewed(id, second);
        assert!(!lease.is_suspect(first + TTL));
    }

    #[test]
    fn a_lost_lease_is_replaced_by_a_new_one_after_a_jittered_wait() {
        let (mut lease, id, start) = held();
        let mut random = random();
        assert!(lease.lost(id, start, &mut random));
        assert!(!lease.lost(id, start, &mut random), "an answer to an old lease is nothing to us");
        assert_eq!(lease.id(), None);
        let Some(Due::Grant(next)) = lease.due(start + Duration::from_millis(100), &mut random) else {
            panic!("the first wait is at most 100 ms")
        };
        assert_ne!(next, id);
    }

    #[test]
    fn a_grant_that_may_have_happened_is_repeated_under_the_same_id() {
        let now = Instant::now();
        let mut random = random();
        let mut lease = Lease::new(TTL, now);
        let Some(Due::Grant(id)) = lease.due(now, &mut random) else { panic!("a grant is due") };
        lease.not_granted(id, now, &mut random);
        let later = now + Duration::from_millis(100);
        assert_eq!(lease.due(later, &mut random), Some(Due::Grant(id)));
        lease.exists(id, later);
        assert_eq!(lease.id(), Some(id));
        assert!(lease.is_suspect(now + TTL), "it may be as old as the first attempt");
        assert_eq!(lease.due(later, &mut random), Some(Due::Renew(id)), "it may be old: renewed at once");
    }

    #[test]
    fn a_lost_stream_asks_again_at_once_but_only_for_what_was_under_way() {
        let (mut lease, id, start) = held();
        let mut random = random();
        lease.unanswered(start);
        assert_eq!(lease.due(start, &mut random), None, "nothing was under way");
        let tick = start + TTL / 3;
        lease.due(tick, &mut random);
        lease.unanswered(tick);
        assert_eq!(lease.due(tick, &mut random), Some(Due::Renew(id)));
    }
}
