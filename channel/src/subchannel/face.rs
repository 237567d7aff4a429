//! What is published of one endpoint: what policies, calls and dumps read. Made anew by the owner when something of it
//! changes; many snapshots refer to the same one.

use std::sync::Arc;

use tokio::time::Instant;

use super::connection::Connection;
use super::slot::Slot;
use super::state::{Cause, State};
use crate::endpoint::Endpoint;
use crate::load::Load;
use crate::policy::warming::Warming;

/// One endpoint as it was last seen.
pub(crate) struct Face {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) load: Arc<Load>,
    /// Where it is connected.
    pub(crate) open: Option<Open>,
    pub(crate) standing: Standing,
    pub(crate) state: State,
    pub(crate) since: Instant,
    /// Which address its link goes to.
    pub(crate) reached: Option<Arc<str>>,
    pub(crate) last_error: Option<Arc<str>>,
    pub(crate) ejections: u32,
    /// Where it stands in slow start, if it does; perhaps no longer.
    pub(crate) warming: Option<Warming>,
}

/// What decides whether an endpoint takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It is connected, and says that it serves where it is asked.
    pub(crate) serves: bool,
    pub(crate) ejected_for: Option<Cause>,
}

/// The connections of an endpoint.
pub(crate) struct Open {
    pub(crate) link: Arc<Connection>,
    /// Mostly none.
    pub(crate) siblings: Box<[Arc<Connection>]>,
    /// Among so many, the link included, calls are spread; those beyond take what is left over, so that they fall idle
    /// and close when the rush is over.
    pub(crate) spread: usize,
}

impl Open {
    /// A stream slot, and the connection that it is on.
    pub(crate) fn slot(&self) -> Option<(&Arc<Connection>, Slot)> {
        let of = |connection| Slot::take(connection).map(|slot| (connection, slot));
        if self.siblings.is_empty() {
            return of(&self.link);
        }
        let (set, beyond) = self.siblings.split_at((self.spread - 1).min(self.siblings.len()));
        let least_used = std::iter::once(&self.link).chain(set).min_by_key(|c| c.used());
        let all = least_used.into_iter().chain([&self.link]).chain(set).chain(beyond);
        all.into_iter().find_map(of)
    }
}
