//! What may happen to an id, and the ten lines that say what has to stand in etcd for it once all is well.

use svc_registry::intent::Then;

/// Numbers a process in the order of starts.
pub(super) type Number = usize;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A process registers the id: newly, again after a goodbye or a crash, or as its newer owner.
    Register(Number),
    /// A process is no more, without a goodbye.
    Crash(Number),
    /// A process says goodbye for this id.
    Goodbye(Number),
    /// A process gives its instance another zone.
    Update(Number),
    /// An operator's wish for the id; `None` takes it back.
    Drain(Option<Then>),
    /// An operator's wish for all ids.
    DrainAll(Option<Then>),
    /// Somebody else deletes a record.
    ForeignDelete,
    /// Somebody else overwrites a record, without a lease.
    ForeignPut,
    /// Somebody else revokes a lease.
    Revoke,
    /// Everything in etcd up to now is compacted.
    Compact,
    /// A process and etcd do not hear each other.
    Silence(Number),
    /// A process's connections to etcd are reset, and none can be made.
    Cut(Number),
    /// A process's link is well again.
    Heal(Number),
    /// etcd is killed.
    Outage,
    /// etcd is back with its data.
    Back,
    /// etcd is killed and comes back empty.
    Wipe,
}

/// What is known of one id.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// The processes that have it registered, in the order of starts.
    pub(super) alive: Vec<Number>,
    newest: Number,
    drain: Option<Then>,
    drain_all: Option<Then>,
}

impl Model {
    pub(super) fn apply(&mut self, step: Step) {
        match step {
            Step::Register(process) => {
                self.alive.push(process);
                self.newest = process;
            }
            Step::Crash(process) | Step::Goodbye(process) => self.alive.retain(|other| *other != process),
            Step::Drain(wish) => self.drain = wish,
            Step::DrainAll(wish) => self.drain_all = wish,
            Step::Wipe => (self.drain, self.drain_all) = (None, None),
            _ => {} // it heals
        }
    }

    /// The newest of those that live, and the state of its record; none with [`Then::Remove`].
    pub(super) fn expected(&self) -> (Option<Number>, Option<&'static str>) {
        (self.alive.last().copied(), [Some("serving"), Some("drained"), None][self.wish() as usize])
    }

    fn wish(&self) -> Wish {
        match self.drain.max(self.drain_all) {
            None => Wish::Serve,
            Some(Then::Stay | Then::Exit) => Wish::Drain,
            Some(Then::Remove) => Wish::Remove,
        }
    }

    /// Only a newer process supersedes one; who is told so has lost the id for good.
    pub(super) fn superseded(&mut self, process: Number) {
        assert!(process != self.newest, "process {process} yields, and none is newer");
        self.alive.retain(|other| *other != process);
    }
}

enum Wish {
    Serve,
    Drain,
    Remove,
}
