//! What connections report: to the life of their endpoint where it is the link, else to the link's siblings.

use tokio::time::Instant;

use super::{Action, EndpointId, EndpointSet, Owned, Report};
use crate::subchannel::id::ConnectionId;
use crate::subchannel::state::{Event, backoff};

impl EndpointSet {
    /// A connection reports.
    pub(crate) fn report(&mut self, connection: ConnectionId, report: Report, now: Instant) {
        let Some(id) = self.owners.get(&connection).map(|owned| owned.endpoint) else {
            if matches!(report, Report::Ready) {
                self.actions.push(Action::Close(connection)); // its endpoint is gone
            }
            return;
        };
        if matches!(report, Report::Ready | Report::DialFailed(_)) {
            self.dialling.remove(&connection);
        }
        match report {
            Report::Suspect(cause) => {
                if self.may_eject(id, connection) {
                    self.tell(id, Event::Eject(cause), now);
                }
            }
            Report::Saturated => self.grow(id, true),
            of_sibling if self.entries.get(&id).is_some_and(|e| e.siblings.contains(connection)) => {
                self.report_of_sibling(id, connection, &of_sibling, now);
            }
            of_link => self.report_of_link(id, connection, of_link, now),
        }
        self.settle(now);
    }

    fn report_of_sibling(&mut self, id: EndpointId, connection: ConnectionId, report: &Report, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if matches!(report, Report::DialFailed(_) | Report::Lost { .. }) {
            self.owners.remove(&connection);
        }
        match report {
            Report::Ready => entry.siblings.connected(connection),
            Report::DialFailed(_) | Report::GoAway { served: false } | Report::Lost { served: false, .. } => {
                let wait = backoff(entry.siblings.failures(), self.settings.max_backoff, &mut self.rng);
                entry.siblings.failed(connection, now + wait);
                if !matches!(report, Report::DialFailed(_)) {
                    self.touch_one(id);
                }
                self.set_alarm(id);
                return; // nobody may ask again before `rested`
            }
            Report::GoAway { .. } | Report::Lost { .. } => entry.siblings.ended(connection),
            Report::Pong | Report::Health(_) | Report::Suspect(_) | Report::Saturated => return,
        }
        self.touch_one(id);
        self.grow(id, false);
        self.actions.push(Action::MayGrow(id));
    }

    /// A dial beside the link may be tried again; calls that wait for a stream are woken, to ask for it.
    pub(super) fn rested(&mut self, id: EndpointId, now: Instant) {
        if self.entries.get_mut(&id).is_some_and(|entry| entry.siblings.rested(now)) {
            self.touch_one(id);
            self.grow(id, false);
            self.actions.push(Action::MayGrow(id));
        }
    }

    fn report_of_link(&mut self, id: EndpointId, connection: ConnectionId, report: Report, now: Instant) {
        if matches!(report, Report::GoAway { .. } | Report::Lost { .. })
            && let Some(entry) = self.entries.get_mut(&id)
            && entry.life.link() == Some(connection)
            && let Some(heir) = entry.siblings.heir()
        {
            self.tell(id, Event::Inherited(heir), now);
        }
        let event = match report {
            Report::Ready => Event::Connected(connection),
            Report::DialFailed(reason) => {
                self.owners.remove(&connection);
                Event::DialFailed(connection, reason)
            }
            // It drains on its own from here on; its end will be reported, and change nothing.
            Report::GoAway { served } => Event::LinkEnded { id: connection, reason: None, served },
            Report::Lost { reason, served } => {
                self.owners.remove(&connection);
                Event::LinkEnded { id: connection, reason: Some(reason), served }
            }
            Report::Pong => Event::Pong(connection),
            Report::Health(trouble) => Event::Health { id: connection, trouble },
            Report::Suspect(_) | Report::Saturated => return,
        };
        let connected = matches!(event, Event::Connected(_));
        self.tell(id, event, now);
        if connected {
            self.renew_siblings(id, connection);
        }
    }

    /// A new link: its siblings begin anew, since an endpoint whose address changed has none at the new one.
    pub(super) fn renew_siblings(&mut self, id: EndpointId, link: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|e| e.life.link() == Some(link)) else { return };
        for sibling in entry.siblings.clear() {
            self.close(sibling);
        }
        self.touch_one(id);
        self.grow(id, false);
        self.actions.push(Action::MayGrow(id));
    }

    /// Dials another connection, where one is wanted: as many as are set, and more when calls wait for streams.
    pub(super) fn grow(&mut self, id: EndpointId, asked: bool) {
        let connections = self.connections;
        let Some(entry) = self.entries.get_mut(&id).filter(|e| e.life.link().is_some()) else { return };
        if !entry.siblings.wants(connections, asked) {
            return;
        }
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        entry.siblings.dials(connection);
        let to = entry.endpoint.clone();
        self.owners.insert(connection, Owned { endpoint: id, at: None });
        self.actions.push(Action::Dial { endpoint: id, id: connection, to, extra: asked });
    }
}
