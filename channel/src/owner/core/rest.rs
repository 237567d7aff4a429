//! The set at rest: the channel is idle, all connections are let go and none is dialled until it is woken. What
//! discovery says in the meantime is noted.

use tokio::time::Instant;

use super::EndpointSet;
use crate::subchannel::state::{Event, Life, State};

impl EndpointSet {
    /// Closes every connection, each after its last call, and dials none until [`wake`](Self::wake).
    pub(crate) fn rest(&mut self, now: Instant) {
        self.asleep = true;
        (self.changed, self.urgent) = (true, true);
        self.queue.clear();
        for id in self.entries.keys().copied().collect::<Vec<_>>() {
            self.touch_one(id);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.endpoint.held_until.is_some() {
                self.remove(id, now); // it was kept for its connection's sake
                continue;
            }
            if entry.life.state() == State::Ready {
                entry.presence.went(now);
            }
            if let Some(alarm) = entry.alarm.take() {
                self.alarms.remove(&(alarm, id));
            }
            let own = [entry.life.link(), entry.life.dialling()].into_iter().flatten();
            let connections: Vec<_> = own.chain(entry.siblings.clear()).collect();
            // As on the first day: what failed or was ejected before may be another process by then.
            entry.life = Life::default();
            entry.since = now;
            for connection in connections {
                self.close(connection);
            }
        }
    }

    /// Connects again, as when the channel was made.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.asleep = false;
        self.changed = true;
        if self.connects_all {
            for id in self.entries.keys().copied().collect::<Vec<_>>() {
                self.tell(id, Event::Wanted, now);
            }
        }
        self.settle(now);
    }

    /// Whether it rests.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep
    }
}
