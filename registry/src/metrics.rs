//! Names and descriptions of what the registrar and the catalog measure, through the `metrics` facade; `docs/metrics.md`
//! has the table.
//!
//! Always on: no call passes here, and a change in etcd costs a few additions. What counts for as long as it lives is
//! counted by a value whose drop takes it out again: `registrar::status::Standing`, `catalog::tally::Shown`. Labels
//! are services and states, never instances, so that no recorder fills up.

use metrics::Unit::{Count, Seconds};
use metrics::{describe_counter, describe_gauge, describe_histogram};

pub(crate) const REGISTRATIONS: &str = "svc_registry_registrations";
pub(crate) const TRANSITIONS: &str = "svc_registry_transitions_total";
pub(crate) const REGISTERED_AFTER: &str = "svc_registry_registered_after_seconds";
pub(crate) const AWAY: &str = "svc_registry_away_seconds";
pub(crate) const LEASES_LOST: &str = "svc_registry_leases_lost_total";
pub(crate) const TAKEOVERS: &str = "svc_registry_takeovers_total";
pub(crate) const WRITES: &str = "svc_registry_writes_total";
pub(crate) const KEEPALIVES: &str = "svc_registry_keepalives_total";
pub(crate) const READINESS_CHECKS: &str = "svc_registry_readiness_checks_total";
#[cfg(feature = "server")]
pub(crate) const HANDLER_PANICS: &str = "svc_registry_handler_panics_total";

pub(crate) const INSTANCES: &str = "svc_catalog_instances";
pub(crate) const STALE: &str = "svc_catalog_stale";
pub(crate) const HEARD: &str = "svc_catalog_heard_timestamp_seconds";
pub(crate) const LISTS: &str = "svc_catalog_lists_total";
pub(crate) const STREAMS: &str = "svc_catalog_streams_opened_total";
pub(crate) const CHANGES: &str = "svc_catalog_changes_total";

/// Tells the recorder what each name means, as a registrar is made.
pub(crate) fn describe_registrar() {
    describe_gauge!(REGISTRATIONS, Count, "Registrations of this process, by where they stand");
    describe_counter!(TRANSITIONS, Count, "Times that a registration came to stand elsewhere");
    describe_histogram!(REGISTERED_AFTER, Seconds, "From the wish to be registered to the record in etcd");
    describe_histogram!(AWAY, Seconds, "How long a registration was suspect or lost before it stood again");
    describe_counter!(LEASES_LOST, Count, "Leases that ran out, or that somebody revoked");
    describe_counter!(TAKEOVERS, Count, "Records that were another's and are ours now");
    describe_counter!(WRITES, Count, "Changes of records, by how they ended");
    describe_counter!(KEEPALIVES, Count, "Renewals of leases that were asked for");
    describe_counter!(READINESS_CHECKS, Count, "Answers of readiness checks");
    #[cfg(feature = "server")]
    describe_counter!(HANDLER_PANICS, Count, "Handlers of calls that panicked");
}

/// The same, as a catalog is made.
pub(crate) fn describe_catalog() {
    describe_gauge!(INSTANCES, Count, "Instances that the catalog knows of");
    describe_gauge!(STALE, Count, "Whether what is known of a service is the last before etcd went away");
    describe_gauge!(HEARD, Seconds, "When etcd last answered the catalog, in seconds since 1970");
    describe_counter!(LISTS, Count, "Lists of all instances of a range: the first, and those after a gap");
    describe_counter!(STREAMS, Count, "Watch streams that were opened");
    describe_counter!(CHANGES, Count, "Changes that were handed on");
}
