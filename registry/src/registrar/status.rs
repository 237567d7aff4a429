//! Where a registration stands, for programs (a `watch::Receiver`), dashboards (metrics) and people (tracing).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

/// Tells people and dashboards of changes of state: one line a change, but with many registrations on one lost
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
        metrics::counter!("svc_registry_transitions_total", "to" => to.as_str()).increment(1);
        metrics::gauge!("svc_registry_registrations", "state" => from.as_str()).decrement(1.0);
        metrics::gauge!("svc_registry_registrations", "state" => to.as_str()).increment(1.0);

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

    /// A new registration counts from its first state.
    pub(super) fn begin(status: &RegistrationStatus) {
        metrics::gauge!("svc_registry_registrations", "state" => status.as_str()).increment(1.0);
    }

    /// One that is forgotten no longer counts.
    pub(super) fn end(status: &RegistrationStatus) {
        metrics::gauge!("svc_registry_registrations", "state" => status.as_str()).decrement(1.0);
    }
}
