//! The record of an instance: what lies under its key in etcd.
//!
//! Owners of ours write one with [`Record::encode`], in a shape that etcd's official Go resolver, kratos and kitex
//! read too. Values come back through [`decode`], which also reads what those write, and whose result is either a
//! record that is safe to use or a [`BadRecord`] that says why not; the catalog skips, counts and reports the latter.

mod address;
mod decode;
mod encode;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

pub use address::{Address, InvalidAddress};
pub use decode::{BadRecord, MAX_VALUE, decode};
pub(crate) use decode::{is_printable, readable};

use crate::name::{Epoch, Incarnation, InstanceId, ServiceName};

/// An instance as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The service, from the key.
    pub service: ServiceName,
    /// The instance's id, from the key.
    pub id: InstanceId,
    /// Where it is dialled.
    pub address: Address,
    /// Whether it wants TLS (its endpoint is written as `grpcs://`).
    pub secure: bool,
    /// Its share of the load.
    pub weight: Weight,
    /// Where it runs, for clients that prefer their own zone.
    pub zone: Option<Arc<str>>,
    /// The version of the program.
    pub version: Option<Arc<str>>,
    /// Labels of the user's. The writer adds `zone` to them for readers elsewhere; here it is in its own field only.
    pub tags: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether it takes new work.
    pub state: State,
    /// Which start of the process wrote it; none in records of other systems.
    pub incarnation: Option<Incarnation>,
    /// Orders two owners of one id; none in records of other systems.
    pub epoch: Option<Epoch>,
    /// When the process started.
    pub started_at: Option<SystemTime>,
    /// The lease's time to live in seconds, as granted.
    pub ttl_s: Option<u32>,
    /// Calls in flight, streams included; told only while draining.
    pub inflight: Option<u64>,
    /// Why the instance keeps itself out of service; told only while it is not serving. An operator's reason stands in
    /// the intent.
    pub reason: Option<Arc<str>>,
    /// Who wrote it.
    pub form: Form,
}

impl Record {
    /// A serving record of ours with nothing but an address; the other fields are public.
    pub fn new(service: ServiceName, id: InstanceId, address: Address) -> Self {
        Self {
            service,
            id,
            address,
            secure: false,
            weight: Weight::default(),
            zone: None,
            version: None,
            tags: BTreeMap::new(),
            state: State::Serving,
            incarnation: None,
            epoch: None,
            started_at: None,
            ttl_s: None,
            inflight: None,
            reason: None,
            form: Form::Native,
        }
    }

    /// Whether another system wrote it, which does not know states, incarnations and epochs.
    pub fn is_foreign(&self) -> bool {
        self.form != Form::Native
    }
}

/// Which of the known forms a record was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Ours.
    Native,
    /// `{"Op":0,"Addr":"host:port","Metadata":..}` of etcd's official Go naming package.
    Naming,
    /// Bare `host:port`, as go-zero and shell scripts write it.
    Plain,
}

/// Whether an instance takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum State {
    /// Takes new work.
    #[default]
    Serving,
    /// Takes no new work and finishes what it has.
    Draining,
    /// Has no work left.
    Drained,
}

impl State {
    /// The word in the record and in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        [Self::Serving, Self::Draining, Self::Drained].into_iter().find(|state| state.as_str() == s).ok_or(())
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A share of the load relative to the weights of the others; 0 takes none while others have some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// The highest weight: an integer, since Go readers fail on fractions, and small enough that sums stay exact.
    pub const MAX: u32 = 1_000_000;

    /// `None` above [`Weight::MAX`].
    pub fn new(weight: u32) -> Option<Self> {
        (weight <= Self::MAX).then_some(Self(weight))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    /// 100, so that a share can be lowered to a hundredth and still be a whole number.
    fn default() -> Self {
        Self(100)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Weight {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        s.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| format!("weight {s:?} is invalid: use an integer from 0 to {}", Self::MAX))
    }
}

impl serde::Serialize for Weight {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(self.0)
    }
}
