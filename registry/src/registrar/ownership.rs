//! Who owns an id, and the transactions that respect it, as values.
//!
//! What was read of an instance's five keys (two records, two drain intents, one override) comes in as [`Seen`]; out goes whether we may
//! write ([`judge`]) and the one transaction that brings etcd to what we want ([`settle`], [`goodbye`]). Every
//! transaction compares the `mod_revision` of each key that the decision was based on, so that a decision on stale
//! knowledge changes nothing and reads back what is true. `execute.rs` sends them; tests apply them to a model.

use crate::intent::{DrainIntent, SetIntent};
use crate::keys::{Prefix, Root};
use crate::name::{Epoch, Incarnation, InstanceId, LeaseId, Revision, ServiceName};

/// The keys that the registration of one instance reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) serving: String,
    pub(crate) draining: String,
    pub(crate) intent: String,
    pub(crate) intent_for_all: String,
    pub(crate) set: String,
}

impl Keys {
    pub(crate) fn new(prefix: &Prefix, service: &ServiceName, id: &InstanceId) -> Keys {
        Keys {
            serving: prefix.record(service, id),
            draining: prefix.draining_record(service, id),
            intent: prefix.drain_intent(service, id),
            intent_for_all: prefix.drain_intent_for_all(service),
            set: prefix.set_intent(service, id),
        }
    }

    fn record(&self, root: Root) -> &str {
        match root {
            Root::Serving => &self.serving,
            Root::Draining => &self.draining,
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) mod_revision: Revision,
    pub(crate) lease: LeaseId,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) value: Vec<u8>,
}

/// An intent as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wished {
    pub(crate) mod_revision: Revision,
    pub(crate) intent: DrainIntent,
}

/// An operator's override as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overridden {
    pub(crate) mod_revision: Revision,
    pub(crate) set: SetIntent,
}

/// What the five keys held at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    pub(crate) serving: Option<Held>,
    pub(crate) draining: Option<Held>,
    pub(crate) intent: Option<Wished>,
    pub(crate) intent_for_all: Option<Wished>,
    pub(crate) set: Option<Overridden>,
}

impl Seen {
    /// The operator's wish: the stronger of the two.
    pub(crate) fn wish(&self) -> Option<&DrainIntent> {
        DrainIntent::stronger(
            self.intent.as_ref().map(|wished| &wished.intent),
            self.intent_for_all.as_ref().map(|wished| &wished.intent),
        )
    }

    fn records(&self) -> impl Iterator<Item = (Root, &Held)> {
        let serving = self.serving.iter().map(|held| (Root::Serving, held));
        serving.chain(self.draining.iter().map(|held| (Root::Draining, held)))
    }

    fn record(&self, root: Root) -> Option<&Held> {
        match root {
            Root::Serving => self.serving.as_ref(),
            Root::Draining => self.draining.as_ref(),
        }
    }

    /// The highest epoch under the two record keys.
    fn highest_epoch(&self) -> Option<Epoch> {
        self.records().filter_map(|(_, held)| held.epoch).max()
    }
}

/// Who we are: the process, and, once it has registered, its place in the order of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) incarnation: Incarnation,
    /// Set when the first registering transaction is sent.
    pub(crate) epoch: Option<Epoch>,
}

/// Whether we may write over what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ours to write, with this epoch.
    Owner(Epoch),
    /// Another process has a higher claim: this registration is over.
    Superseded { by: Option<Incarnation> },
}

/// Law 3: a first registration takes over whatever it read; a later one only what is absent, ours, or older.
pub(crate) fn judge(owner: Owner, started_ms: u64, seen: &Seen) -> Verdict {
    let Some(epoch) = owner.epoch else {
        let after = seen.highest_epoch().map_or(0, |Epoch(highest)| highest.saturating_add(1));
        return Verdict::Owner(Epoch(after.max(started_ms)));
    };
    let rival = seen.records().map(|(_, held)| held).find(|held| {
        held.incarnation != Some(owner.incarnation) && held.epoch.is_some_and(|theirs| theirs >= epoch)
    });
    match rival {
        Some(held) => Verdict::Superseded { by: held.incarnation },
        None => Verdict::Owner(epoch),
    }
}

/// One guarded transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// These keys must have these `mod_revision`s; 0 means absent.
    pub(crate) compares: Vec<(String, Revision)>,
    pub(crate) puts: Vec<(String, Vec<u8>, LeaseId)>,
    pub(crate) deletes: Vec<String>,
}

/// The transaction that puts `value` under `root` on `lease` and nothing under the other root; `None` if that is so.
pub(crate) fn settle(keys: &Keys, seen: &Seen, root: Root, value: &[u8], lease: LeaseId) -> Option<Change> {
    let other = match root {
        Root::Serving => Root::Draining,
        Root::Draining => Root::Serving,
    };
    let stands = seen.record(root).is_some_and(|held| held.value == value && held.lease == lease);
    if stands && seen.record(other).is_none() {
        return None;
    }
    Some(Change {
        compares: unchanged(keys, seen),
        puts: vec![(keys.record(root).to_owned(), value.to_vec(), lease)],
        deletes: seen.record(other).map(|_| keys.record(other).to_owned()).into_iter().collect(),
    })
}

/// That none of the five keys has changed since they were read: what is known then holds at the transaction's revision
/// too, so that every event up to there is old news.
fn unchanged(keys: &Keys, seen: &Seen) -> Vec<(String, Revision)> {
    let at = |revision: Option<Revision>| revision.unwrap_or_default();
    vec![
        (keys.serving.clone(), at(seen.serving.as_ref().map(|held| held.mod_revision))),
        (keys.draining.clone(), at(seen.draining.as_ref().map(|held| held.mod_revision))),
        (keys.intent.clone(), at(seen.intent.as_ref().map(|wished| wished.mod_revision))),
        (keys.intent_for_all.clone(), at(seen.intent_for_all.as_ref().map(|wished| wished.mod_revision))),
        (keys.set.clone(), at(seen.set.as_ref().map(|overridden| overridden.mod_revision))),
    ]
}

/// Law 4: the transaction that deletes what is ours (by incarnation or lease) and nothing else; `None` if nothing is.
pub(crate) fn goodbye(
    keys: &Keys,
    seen: &Seen,
    incarnation: Incarnation,
    lease: Option<LeaseId>,
) -> Option<Change> {
    // A record that names an owner is that one's, on whatever lease; the lease tells only where none is named.
    let ours = |held: &Held| match held.incarnation {
        Some(theirs) => theirs == incarnation,
        None => held.lease != LeaseId::NONE && Some(held.lease) == lease,
    };
    let ours = seen.records().filter(|(_, held)| ours(held));
    let deletes: Vec<String> = ours.map(|(root, _)| keys.record(root).to_owned()).collect();
    let compares = unchanged(keys, seen);
    (!deletes.is_empty()).then_some(Change { compares, puts: Vec::new(), deletes })
}

/// Whether a transaction that failed and read this back was applied all the same, by an earlier sending of it. Who wrote what
/// stands, and on which lease, is in the value and beside it; no other process writes ours.
pub(crate) fn landed(keys: &Keys, change: &Change, seen: &Seen) -> bool {
    let stands = |(key, value, lease): &(String, Vec<u8>, LeaseId)| {
        let held = seen.records().find(|(root, _)| keys.record(*root) == key);
        held.is_some_and(|(_, held)| held.value == *value && held.lease == *lease)
    };
    let is_gone = |key: &String| !seen.records().any(|(root, _)| keys.record(root) == key);
    !change.puts.is_empty() && change.puts.iter().all(stands) && change.deletes.iter().all(is_gone)
}

/// What is true once `change` has been applied at `revision`.
pub(crate) fn applied(keys: &Keys, seen: &Seen, change: &Change, revision: Revision, owner: Owner) -> Seen {
    let mut after = Seen { revision, ..seen.clone() };
    for key in &change.deletes {
        if *key == keys.serving {
            after.serving = None;
        } else {
            after.draining = None;
        }
    }
    for (key, value, lease) in &change.puts {
        let held = Held {
            mod_revision: revision,
            lease: *lease,
            incarnation: Some(owner.incarnation),
            epoch: owner.epoch,
            value: value.clone(),
        };
        if *key == keys.serving {
            after.serving = Some(held);
        } else {
            after.draining = Some(held);
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Then;

    const ME: Incarnation = Incarnation(1);
    const OTHER: Incarnation = Incarnation(2);
    const LEASE: LeaseId = LeaseId(77);

    fn keys() -> Keys {
        let (service, id) = (ServiceName::new("greeter").unwrap(), InstanceId::new("i-1").unwrap());
        Keys::new(&Prefix::default(), &service, &id)
    }

    fn held(incarnation: Option<Incarnation>, epoch: Option<u64>) -> Held {
        Held {
            mod_revision: Revision(7),
            lease: LeaseId(5),
            incarnation,
            epoch: epoch.map(Epoch),
            value: b"theirs".to_vec(),
        }
    }

    fn owner(epoch: Option<u64>) -> Owner {
        Owner { incarnation: ME, epoch: epoch.map(Epoch) }
    }

    #[test]
    fn a_first_registration_takes_over_whatever_it_read_with_a_higher_epoch() {
        let empty = Seen::default();
        assert_eq!(judge(owner(None), 1000, &empty), Verdict::Owner(Epoch(1000)));
        let seen = Seen { draining: Some(held(Some(OTHER), Some(5000))), ..Seen::default() };
        assert_eq!(judge(owner(None), 1000, &seen), Verdict::Owner(Epoch(5001)), "the clock went back");
        assert_eq!(judge(owner(None), 9000, &seen), Verdict::Owner(Epoch(9000)));
    }

    #[test]
    fn a_later_registration_yields_to_a_holder_that_is_not_older() {
        for (incarnation, epoch, superseded) in [
            (Some(ME), Some(9), false),
            (None, None, false),
            (Some(OTHER), None, false),
            (Some(OTHER), Some(4), false),
            (Some(OTHER), Some(5), true),
            (Some(OTHER), Some(6), true),
            (None, Some(6), true),
        ] {
            for draining in [false, true] {
                let record = Some(held(incarnation, epoch));
                let seen = if draining {
                    Seen { draining: record, ..Seen::default() }
                } else {
                    Seen { serving: record, ..Seen::default() }
                };
                let verdict = judge(owner(Some(5)), 1000, &seen);
                let expected = if superseded {
                    Verdict::Superseded { by: incarnation }
                } else {
                    Verdict::Owner(Epoch(5))
                };
                assert_eq!(verdict, expected, "{incarnation:?} {epoch:?}");
            }
        }
    }

    #[test]
    fn a_put_compares_all_five_keys_and_leaves_one_record() {
        let seen = Seen {
            serving: Some(held(Some(ME), Some(5))),
            intent: Some(Wished { mod_revision: Revision(9), intent: DrainIntent::default() }),
            ..Seen::default()
        };
        let change = settle(&keys(), &seen, Root::Draining, b"mine", LEASE).unwrap();
        assert_eq!(
            change.compares,
            [
                ("/services/greeter/i-1".into(), Revision(7)),
                ("/services-draining/greeter/i-1".into(), Revision(0)),
                ("/services-control/drain/greeter/i-1".into(), Revision(9)),
                ("/services-control/drain/greeter/*".into(), Revision(0)),
                ("/services-control/set/greeter/i-1".into(), Revision(0)),
            ]
        );
        assert_eq!(change.puts, [("/services-draining/greeter/i-1".into(), b"mine".to_vec(), LEASE)]);
        assert_eq!(change.deletes, ["/services/greeter/i-1"]);

        let after = applied(&keys(), &seen, &change, Revision(10), owner(Some(5)));
        assert_eq!(
            settle(&keys(), &after, Root::Draining, b"mine", LEASE),
            None,
            "no writes in steady state"
        );
        assert!(settle(&keys(), &after, Root::Draining, b"mine", LeaseId(78)).is_some(), "a new lease");
        assert!(settle(&keys(), &after, Root::Draining, b"changed", LEASE).is_some());
    }

    #[test]
    fn a_goodbye_deletes_only_what_is_ours_at_the_revision_read() {
        let theirs = Seen { serving: Some(held(Some(OTHER), Some(9))), ..Seen::default() };
        assert_eq!(goodbye(&keys(), &theirs, ME, Some(LEASE)), None, "the successor's key stays");
        let mine = Seen { serving: Some(held(Some(ME), Some(9))), ..theirs.clone() };
        let change = goodbye(&keys(), &mine, ME, None).unwrap();
        assert_eq!(
            change.compares,
            unchanged(&keys(), &mine),
            "an intent that changes meanwhile is not missed"
        );
        assert_eq!(change.compares[0], ("/services/greeter/i-1".into(), Revision(7)));
        assert_eq!(change.deletes, ["/services/greeter/i-1"]);
        let successor = goodbye(&keys(), &theirs, ME, Some(LeaseId(5)));
        assert_eq!(successor, None, "it names another owner, be it on our lease");
        let nameless = Seen { serving: Some(held(None, None)), ..theirs.clone() };
        assert!(goodbye(&keys(), &nameless, ME, Some(LeaseId(5))).is_some(), "ours by its lease");
        assert_eq!(goodbye(&keys(), &nameless, ME, Some(LEASE)), None, "on another's lease");
        let ownerless = Seen { serving: Some(Held { lease: LeaseId::NONE, ..held(None, None) }), ..theirs };
        assert_eq!(goodbye(&keys(), &ownerless, ME, Some(LeaseId::NONE)), None);
    }

    #[test]
    fn a_transaction_that_was_sent_twice_knows_its_own_work() {
        let seen = Seen::default();
        for root in [Root::Serving, Root::Draining] {
            let change = settle(&keys(), &seen, root, b"mine", LEASE).unwrap();
            let after = applied(&keys(), &seen, &change, Revision(10), owner(Some(5)));
            assert!(landed(&keys(), &change, &after));
            assert!(!landed(&keys(), &change, &seen), "nothing is there");
            let mut changed = after.clone();
            for held in changed.serving.iter_mut().chain(&mut changed.draining) {
                held.value = b"theirs".to_vec();
            }
            assert!(!landed(&keys(), &change, &changed), "somebody has written over it");
            let elsewhere = settle(&keys(), &seen, root, b"mine", LeaseId(78)).unwrap();
            assert!(!landed(&keys(), &elsewhere, &after), "on another lease");
        }
    }

    #[test]
    fn the_stronger_wish_counts() {
        let wished =
            |then| Some(Wished { mod_revision: Revision(1), intent: DrainIntent::new("", "").then(then) });
        let seen =
            Seen { intent: wished(Then::Stay), intent_for_all: wished(Then::Remove), ..Seen::default() };
        assert_eq!(seen.wish().map(|wish| wish.then), Some(Then::Remove));
    }
}
