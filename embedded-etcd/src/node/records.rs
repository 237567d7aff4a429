//! The node's state as records, and back: what [`crate::journal`] keeps.

use std::sync::Arc;
use std::time::Instant;

use super::{Identity, Node};
use crate::pb::journal::record::What;
use crate::pb::journal::{Change, Grant, Record, Start, Value, Write};
use crate::store::{Item, Store};

/// A record that does not fit what came before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a record does not fit those before it: {0}")]
pub(crate) struct Misfit(String);

impl Node {
    /// Takes note of a change of the state, if states are kept.
    pub(super) fn record(&mut self, what: impl FnOnce(&Self) -> What) {
        if self.settings.kept {
            let record = Record { what: Some(what(self)) };
            self.unsaved.push(record);
        }
    }

    /// The changes since the last call, in their order.
    pub(crate) fn take_unsaved(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.unsaved)
    }

    /// The same as one write, from the changes at or after a revision.
    pub(super) fn record_write(&mut self, first: i64, ended: i64) {
        self.record(|node| {
            let changes =
                node.store.changes().since(first).map(|change| written(&change.key, change.now.as_ref()));
            What::Write(Write { revision: node.store.revision(), changes: changes.collect(), ended })
        });
    }

    /// The whole state.
    pub(crate) fn dump(&self) -> Vec<Record> {
        let start = Start {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            term: self.term,
            index: self.index,
            revision: self.store.revision(),
            compacted: self.store.compacted(),
        };
        let mut all = vec![What::Start(start)];
        all.push(What::Users(self.auth.dump()));
        if self.no_space.raised {
            all.push(What::NoSpace(true));
        }
        all.extend(self.lessor.ids().filter_map(|id| {
            let ttl = self.lessor.get(id)?.ttl;
            Some(What::Grant(Grant { id, ttl }))
        }));
        let write = |revision, changes| What::Write(Write { revision, changes, ended: 0 });
        // What is older than the last compaction is in no log any more; its order does not matter.
        all.extend(
            self.store
                .before_compaction()
                .map(|item| write(item.mod_revision, vec![written(&item.key, Some(item))])),
        );
        let mut last: Option<Write> = None;
        for change in self.store.changes().since(0) {
            let done = match &mut last {
                Some(write) if write.revision == change.revision => {
                    write.changes.push(written(&change.key, change.now.as_ref()));
                    None
                }
                _ => {
                    let changes = vec![written(&change.key, change.now.as_ref())];
                    last.replace(Write { revision: change.revision, changes, ended: 0 })
                }
            };
            all.extend(done.map(What::Write));
        }
        all.extend(last.map(What::Write));
        all.into_iter().map(|what| Record { what: Some(what) }).collect()
    }

    /// Takes the state that records tell of.
    pub(crate) fn restore(&mut self, records: Vec<Record>, now: Instant) -> Result<(), Misfit> {
        records.into_iter().try_for_each(|record| self.replay(record, now))?;
        self.store.settle();
        Ok(())
    }

    /// Does again what a record tells of. Watches hear nothing of it.
    fn replay(&mut self, record: Record, now: Instant) -> Result<(), Misfit> {
        self.index += 1;
        match record.what {
            Some(What::Start(start)) => {
                let Start { cluster_id, member_id, term, index, revision, compacted } = start;
                self.identity = Identity { cluster_id, member_id };
                (self.term, self.index) = (term, index);
                self.store = Store::at(revision, compacted);
            }
            Some(What::Write(write)) => self.rewrite(write),
            Some(What::Grant(Grant { id, ttl })) => {
                self.lessor.grant(id, ttl, now).map_err(|refusal| misfit(&refusal))?;
            }
            Some(What::Compact(revision)) => {
                self.store.compact(revision).map_err(|refusal| misfit(&refusal))?;
            }
            Some(What::Term(term)) => self.term = term,
            Some(What::Users(users)) => self.auth.restore(users),
            Some(What::NoSpace(raised)) => self.no_space.raised = raised,
            None => return Err(Misfit("it is of a newer version".to_owned())),
        }
        Ok(())
    }

    fn rewrite(&mut self, write: Write) {
        let Write { revision, changes, ended } = write;
        self.lessor.remove(ended);
        for Change { key, value } in changes {
            let item = value.map(|Value { value, create_revision, version, lease }| Item {
                key: key.clone().into(),
                value: value.into(),
                create_revision,
                mod_revision: revision,
                version,
                lease,
            });
            let change = self.store.restore(revision, key.into(), item.map(Arc::new));
            self.lessor.follow(&change);
            self.store.log(change);
        }
    }
}

fn written(key: &[u8], now: Option<&Arc<Item>>) -> Change {
    let value = now.map(|item| Value {
        value: item.value.to_vec(),
        create_revision: item.create_revision,
        version: item.version,
        lease: item.lease,
    });
    Change { key: key.to_vec(), value }
}

fn misfit(refusal: &crate::refusal::Refusal) -> Misfit {
    Misfit(refusal.to_string())
}
