//! Further connections to one endpoint, beside its link: a set number for clients with many workers, and more where the
//! peer's stream limit is reached (gRFC A105), up to a limit. Pure: the core tells it what happened and asks what it
//! wants.

use tokio::time::Instant;

use crate::subchannel::id::ConnectionId;

/// How many connections one endpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    /// So many in any case.
    pub(crate) set: usize,
    /// So many at most, when streams run out.
    pub(crate) most: usize,
}

/// The connections of one endpoint beside its link.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    ready: Vec<ConnectionId>,
    dialling: Option<ConnectionId>,
    /// Dials that failed, and connections that ended without having answered a call, since one was of use.
    failures: u32,
    /// After a failure no other one is dialled until then, whoever asks: calls that wait for a stream ask again at once.
    resting: Option<Instant>,
}

impl Siblings {
    pub(crate) fn ready(&self) -> &[ConnectionId] {
        &self.ready
    }

    pub(crate) fn contains(&self, id: ConnectionId) -> bool {
        self.dialling == Some(id) || self.ready.contains(&id)
    }

    /// Whether one more is to be dialled beside the link; `asked` says that streams have run out.
    pub(crate) fn wants(&self, connections: Connections, asked: bool) -> bool {
        let count = 1 + self.ready.len();
        let short = count < connections.set || (asked && count < connections.most);
        self.dialling.is_none() && self.resting.is_none() && short
    }

    pub(crate) fn dials(&mut self, id: ConnectionId) {
        self.dialling = Some(id);
    }

    pub(crate) fn connected(&mut self, id: ConnectionId) {
        self.dialling = None;
        self.ready.push(id);
    }

    /// How many failures there were in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// It could not be connected, or was of no use; the next dial comes after `until`.
    pub(crate) fn failed(&mut self, id: ConnectionId, until: Instant) {
        self.dialling.take_if(|dialling| *dialling == id);
        self.ready.retain(|sibling| *sibling != id);
        self.failures = self.failures.saturating_add(1);
        self.resting = Some(until);
    }

    /// It takes no new calls, and has answered some.
    pub(crate) fn ended(&mut self, id: ConnectionId) {
        self.ready.retain(|sibling| *sibling != id);
        self.failures = 0;
    }

    /// When [`rested`](Self::rested) wants to be called.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.resting
    }

    /// Whether a rest is over by now.
    pub(crate) fn rested(&mut self, now: Instant) -> bool {
        self.resting.take_if(|until| *until <= now).is_some()
    }

    /// One that can take the place of a link that has ended.
    pub(crate) fn heir(&mut self) -> Option<ConnectionId> {
        self.ready.pop()
    }

    /// The link is new: the others belong to what was before it. All of them, to be closed.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = ConnectionId> + use<> {
        (self.resting, self.failures) = (None, 0);
        std::mem::take(&mut self.ready).into_iter().chain(self.dialling.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTIONS: Connections = Connections { set: 2, most: 3 };

    #[test]
    fn the_set_number_is_dialled_and_more_when_streams_run_out_up_to_the_most() {
        let mut siblings = Siblings::default();
        assert!(siblings.wants(CONNECTIONS, false));
        siblings.dials(ConnectionId(1));
        assert!(!siblings.wants(CONNECTIONS, true), "one at a time");
        siblings.connected(ConnectionId(1));
        assert!(!siblings.wants(CONNECTIONS, false));
        assert!(siblings.wants(CONNECTIONS, true));
        siblings.dials(ConnectionId(2));
        siblings.connected(ConnectionId(2));
        assert!(!siblings.wants(CONNECTIONS, true), "the most is reached");
    }

    #[test]
    fn after_a_failure_it_rests_for_its_time_whoever_asks() {
        let mut siblings = Siblings::default();
        let until = Instant::now() + std::time::Duration::from_secs(1);
        siblings.dials(ConnectionId(1));
        siblings.failed(ConnectionId(1), until);
        assert!(!siblings.wants(CONNECTIONS, false) && !siblings.wants(CONNECTIONS, true));
        assert_eq!((siblings.alarm(), siblings.failures()), (Some(until), 1));
        assert!(siblings.rested(until));
        assert!(siblings.wants(CONNECTIONS, true));
    }
}
