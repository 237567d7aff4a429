//! Leases: who holds which keys until when. A value; the time comes in with each call.
//!
//! Which keys hang on a lease follows from the store's changes ([`Lessor::follow`]). What is due is asked for
//! by [`Lessor::due`]; the node deletes the keys and forgets the lease.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::refusal::Refusal;
use crate::store::Change;

/// The largest TTL that etcd grants, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

#[derive(Debug)]
pub(crate) struct Lease {
    /// As granted, in seconds.
    pub(crate) ttl: i64,
    expires: Instant,
    pub(crate) keys: BTreeSet<Bytes>,
}

impl Lease {
    /// Whole seconds left, rounded down as etcd does.
    pub(crate) fn remaining(&self, now: Instant) -> i64 {
        self.expires.saturating_duration_since(now).as_secs() as i64
    }
}

#[derive(Debug)]
pub(crate) struct Lessor {
    /// In seconds.
    min_ttl: i64,
    leases: HashMap<i64, Lease>,
    by_expiry: BTreeSet<(Instant, i64)>,
}

impl Lessor {
    pub(crate) fn new(min_ttl: i64) -> Self {
        Self { min_ttl, leases: HashMap::new(), by_expiry: BTreeSet::new() }
    }

    pub(crate) fn has(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All ids, that which expires first at the front.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_expiry.iter().map(|&(_, id)| id)
    }

    /// Grants a lease; an id of 0 lets us choose one. Gives the id and the TTL, which may be longer than
    /// asked for.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<(i64, i64), Refusal> {
        if ttl > MAX_TTL {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        let id = if id == 0 { self.unused_id() } else { id };
        if self.has(id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(self.min_ttl);
        let expires = end(now, ttl);
        self.leases.insert(id, Lease { ttl, expires, keys: BTreeSet::new() });
        self.by_expiry.insert((expires, id));
        Ok((id, ttl))
    }

    /// Gives a lease its full TTL again; `None` if there is no such lease.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        self.by_expiry.remove(&(lease.expires, id));
        lease.expires = end(now, lease.ttl);
        self.by_expiry.insert((lease.expires, id));
        Some(lease.ttl)
    }

    /// A new leader does not know what was renewed last: every lease gets its full TTL.
    pub(crate) fn renew_all(&mut self, now: Instant) {
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            self.renew(id, now);
        }
    }

    /// Lets a lease be due now.
    pub(crate) fn end_now(&mut self, id: i64, now: Instant) {
        if let Some(lease) = self.leases.get_mut(&id) {
            self.by_expiry.remove(&(lease.expires, id));
            lease.expires = now;
            self.by_expiry.insert((now, id));
        }
    }

    /// Takes a lease away; the caller deletes its keys.
    pub(crate) fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.by_expiry.remove(&(lease.expires, id));
        Some(lease)
    }

    /// The lease whose time is over longest.
    pub(crate) fn due(&self, now: Instant) -> Option<i64> {
        self.by_expiry.first().filter(|(expires, _)| *expires <= now).map(|&(_, id)| id)
    }

    /// When the next lease runs out.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.first().map(|&(expires, _)| expires)
    }

    /// Takes note of what hangs on which lease after a change of a key.
    pub(crate) fn follow(&mut self, change: &Change) {
        if let Some(before) = change.before.as_ref().and_then(|item| self.leases.get_mut(&item.lease)) {
            before.keys.remove(&change.key);
        }
        if let Some(now) = change.now.as_ref().and_then(|item| self.leases.get_mut(&item.lease)) {
            now.keys.insert(change.key.clone());
        }
    }

    fn unused_id(&self) -> i64 {
        loop {
            let id = fastrand::i64(1..);
            if !self.has(id) {
                return id;
            }
        }
    }
}

/// The end of a TTL; as far away as the clock can tell where it overflows.
fn end(now: Instant, ttl: i64) -> Instant {
    let ttl = u64::try_from(ttl).unwrap_or(0);
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(Duration::from_secs(ttl)).unwrap_or(now + century)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_due_in_the_order_of_their_ends_and_a_renewed_one_later() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lessor = Lessor::new(2);
        lessor.grant(1, 10, start).unwrap();
        lessor.grant(2, 5, start).unwrap();
        lessor.grant(3, 0, start).unwrap();
        assert_eq!(lessor.ids().collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(lessor.renew(3, at(1)), Some(2), "raised to the least");
        assert_eq!((lessor.due(at(2)), lessor.due(at(3))), (None, Some(3)));
        lessor.remove(3);
        assert_eq!(
            (lessor.due(at(4)), lessor.due(at(5)), lessor.next_expiry()),
            (None, Some(2), Some(at(5)))
        );
        lessor.renew_all(at(5));
        assert_eq!(lessor.next_expiry(), Some(at(10)));
        assert_eq!(lessor.renew(3, at(5)), None, "gone");
    }

    #[test]
    fn the_longest_ttl_does_not_overflow_the_clock() {
        let mut lessor = Lessor::new(1);
        lessor.grant(1, MAX_TTL, Instant::now()).unwrap();
        assert_eq!(lessor.grant(2, MAX_TTL + 1, Instant::now()), Err(Refusal::LeaseTtlTooLarge));
    }
}
