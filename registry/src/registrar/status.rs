//! Where a registration stands, for programs (a `watch::Receiver`), dashboards (metrics) and people (tracing).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{AWAY, REGISTERED_AFTER, REGISTRATIONS, TRANSITIONS};
use crate::name::{InstanceId, ServiceName};

/// Where a registration stands, with the reason where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationStatus {
    /// Not in etcd yet; the reason is the last thing that stood in the way, or what is being done.
    Registering {
        /// Why not yet.
        reason: Arc<str>,
    },
    /// In etcd, on a lease that is kept alive.
    Registered,
    /// No keepalive was answered for a whole TTL. The record may be there or not; it is asked for on and on.
    Suspect {
        /// What the keepalives met.
        reason: Arc<str>,
    },
    /// The record or its lease is gone; it is put again as soon as etcd lets us.
    Lost {
        /// What took it, or stands in the way.
        reason: Arc<str>,
    },
    /// An operator's intent keeps the record away; it returns when the intent is gone.
    Removed {
        /// The operator's reason.
        reason: Arc<str>,
    },
    /// Another process has taken over the id. Final.
    Superseded {
        /// By whom.
        reason: Arc<str>,
    },
    /// Said goodbye. Final.
    Deregistered,
}

impl RegistrationStatus {
    /// In etcd, on a living lease.
    pub fn is_registered(&self) -> bool {
        *self == RegistrationStatus::Registered
    }

    /// Nothing will change it any more.
    pub fn is_final(&self) -> bool {
        matches!(self, RegistrationStatus::Superseded { .. } | RegistrationStatus::Deregistered)
    }

    /// The reason, empty where there is none.
    pub fn reason(&self) -> &str {
        use RegistrationStatus::{Deregistered, Lost, Registered, Registering, Removed, Superseded, Suspect};
        match self {
            Registered | Deregistered => "",
            Registering { reason }
            | Suspect { reason }
            | Lost { reason }
            | Removed { reason }
            | Superseded { reason } => reason,
        }
    }

    /// One word for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            RegistrationStatus::Registering { .. } => "registering",
            RegistrationStatus::Registered => "registered",
            RegistrationStatus::Suspect { .. } => "suspect",
            RegistrationStatus::Lost { .. } => "lost",
            RegistrationStatus::Removed { .. } => "removed",
            RegistrationStatus::Superseded { .. } => "superseded",
            RegistrationStatus::Deregistered => "deregistered",
        }
    }
}

/// Tells people of changes of state: one line a change, but with many registrations on one lost
/// etcd at most one a second, which says how many were left out.
#[derive(Debug, Default)]
pub(super) struct Narrator {
    last: Option<Instant>,
    left_out: u64,
}

/// The least time between two lines about registrations that are away.
const LINE_EVERY: Duration = Duration::from_secs(1);

impl Narrator {
    pub(super) fn tell(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        from: &RegistrationStatus,
        to: &RegistrationStatus,
        now: Instant,
    ) {
        if from.as_str() == to.as_str() {
            return; // only the reason is new: the status has it
        }
        if !to.is_final() && self.last.is_some_and(|last| now < last + LINE_EVERY) {
            self.left_out += 1;
            return;
        }
        self.last = Some(now);
        let left_out = std::mem::take(&mut self.left_out);
        let (state, reason) = (to.as_str(), to.reason());
        match to {
            RegistrationStatus::Superseded { .. } => {
                tracing::error!(%service, %id, state, reason, left_out, "registration ended: the id has a newer owner");
            }
            RegistrationStatus::Suspect { .. } | RegistrationStatus::Lost { .. } => {
                tracing::warn!(%service, %id, state, reason, left_out, "registration away; healing");
            }
            _ => tracing::info!(%service, %id, state, reason, left_out, "registration"),
        }
    }
}

/// One registration as dashboards see it, from the wish to the end; its drop takes it out of the gauge.
#[derive(Debug)]
#[must_use]
pub(super) struct Standing {
    status: &'static str,
    /// Since when it is wished for and was never registered.
    wished: Option<Instant>,
    /// Since when it is suspect or lost.
    away: Option<Instant>,
}

impl Standing {
    pub(super) fn new(status: &RegistrationStatus, now: Instant) -> Standing {
        let status = status.as_str();
        metrics::gauge!(REGISTRATIONS, "status" => status).increment(1.0);
        Standing { status, wished: Some(now), away: None }
    }

    pub(super) fn is(&mut self, to: &RegistrationStatus, now: Instant) {
        if self.status == to.as_str() {
            return;
        }
        let from = std::mem::replace(&mut self.status, to.as_str());
        metrics::counter!(TRANSITIONS, "to" => self.status).increment(1);
        metrics::gauge!(REGISTRATIONS, "status" => from).decrement(1.0);
        metrics::gauge!(REGISTRATIONS, "status" => self.status).increment(1.0);
        match to {
            RegistrationStatus::Registered => {
                if let Some(wished) = self.wished.take() {
                    metrics::histogram!(REGISTERED_AFTER).record(now - wished);
                }
                if let Some(away) = self.away.take() {
                    metrics::histogram!(AWAY).record(now - away);
                }
            }
            RegistrationStatus::Suspect { .. } | RegistrationStatus::Lost { .. } => {
                self.away.get_or_insert(now);
            }
            // Not for want of etcd: somebody wants it so.
            RegistrationStatus::Removed { .. }
            | RegistrationStatus::Superseded { .. }
            | RegistrationStatus::Deregistered => (self.wished, self.away) = (None, None),
            RegistrationStatus::Registering { .. } => {}
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        metrics::gauge!(REGISTRATIONS, "status" => self.status).decrement(1.0);
    }
}
