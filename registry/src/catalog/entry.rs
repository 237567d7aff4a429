//! What a key under one of our roots turns out to hold.

use std::sync::Arc;

use crate::intent::DrainIntent;
use crate::keys::{DrainTarget, Root};
use crate::name::{LeaseId, Revision, ServiceName};
use crate::record::Record;

/// A record as it lies in etcd. Shared, never changed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The root that it lies under.
    pub root: Root,
    /// What its value says.
    pub record: Record,
    /// The lease that keeps it; [`LeaseId::NONE`] if nobody does.
    pub lease: LeaseId,
    /// When its key was created.
    pub created: Revision,
    /// When its value or lease last changed.
    pub modified: Revision,
}

/// An operator's wish as it lies in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentEntry {
    /// Whom it means.
    pub target: DrainTarget,
    /// What is wished.
    pub intent: DrainIntent,
    /// When it was last written.
    pub modified: Revision,
}

/// How an operator wants a service's clients to behave, as it lies in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Whose clients are meant.
    pub service: ServiceName,
    /// gRPC service config JSON, as it was written: whether it is good is its readers' to say.
    pub value: Vec<u8>,
    /// When it was last written.
    pub modified: Revision,
}

/// A key whose value cannot be used; it is skipped, counted and shown, and harms nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry {
    /// The key, control characters escaped.
    pub key: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// One of the four.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Record(Arc<Entry>),
    Intent(Arc<IntentEntry>),
    Policy(Arc<PolicyEntry>),
    Bad(Arc<BadEntry>),
}

impl Item {
    /// Whether a subscriber would see no difference; a put of an unchanged value is none.
    pub(super) fn is_same(&self, other: &Item) -> bool {
        match (self, other) {
            (Self::Record(a), Self::Record(b)) => a.record == b.record && a.lease == b.lease,
            (Self::Intent(a), Self::Intent(b)) => a.intent == b.intent,
            (Self::Policy(a), Self::Policy(b)) => a.value == b.value,
            (Self::Bad(a), Self::Bad(b)) => a == b,
            _ => false,
        }
    }
}
