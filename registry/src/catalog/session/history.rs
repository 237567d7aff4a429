//! What is known of the store's past, to tell a restored or wiped etcd from one that was only away (law 4).

use crate::name::Revision;

/// The header of an answer that was read linearizably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) struct Header {
    pub(in crate::catalog) cluster: u64,
    pub(in crate::catalog) term: u64,
    pub(in crate::catalog) revision: Revision,
}

/// The least that an honest store can still say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct History {
    cluster: Option<u64>,
    term: u64,
    revision: Revision,
}

impl History {
    /// Whether an answer continues what was known when it was asked for. Answers overtake each other, so it is
    /// compared with the history of that time, not with the present one.
    pub(super) fn is_continued_by(&self, header: Header) -> bool {
        self.cluster.is_none_or(|cluster| cluster == header.cluster)
            && header.term >= self.term
            && header.revision >= self.revision
    }

    /// Notes an answer.
    pub(super) fn note(&mut self, header: Header) {
        self.cluster = Some(header.cluster);
        self.term = self.term.max(header.term);
        self.reached(header.revision);
    }

    /// Notes that an event of this revision was seen.
    pub(super) fn reached(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }
}
