//! The crate's one error: what was being done, to what, what went wrong, and what helps.
//!
//! Made at the boundaries (configuration, etcd, registration, serving); read by people through
//! `Display` and by programs through the `is_*` predicates.

use std::error::Error as StdError;
use std::fmt;

use crate::etcd::Failure;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why an operation of this crate failed.
///
/// The message names the service, instance, key or etcd endpoints concerned and the remedy.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Record,
    Etcd(Failure),
    TimedOut,
    #[cfg(feature = "server")]
    Superseded,
    #[cfg(feature = "server")]
    Serve,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// A wrong value of `field`, found before anything was tried.
    pub(crate) fn config(field: &str, reason: impl fmt::Display) -> Error {
        Error::new(Kind::Config, format!("{field}: {reason}"))
    }

    /// A record that cannot be used, where one was asked for.
    pub(crate) fn record(key: &str, reason: &str) -> Error {
        let remedy = "have its owner write it again, or delete the key";
        Error::new(Kind::Record, format!("the record at {key} cannot be used: {reason}; {remedy}"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// A configuration value is wrong; the message starts with the name of its field.
    pub fn is_config(&self) -> bool {
        self.kind == Kind::Config
    }

    /// No etcd member could be reached, or none had a leader, until the deadline.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.kind, Kind::Etcd(Failure::Unreachable | Failure::NoLeader | Failure::TimedOut))
    }

    /// etcd refused the operation for want of permission or of a valid user.
    pub fn is_denied(&self) -> bool {
        matches!(self.kind, Kind::Etcd(Failure::Denied | Failure::AuthFailed | Failure::StaleToken))
    }

    /// etcd did not accept user, password or token, or wants a user where none is configured.
    pub fn is_auth_failed(&self) -> bool {
        matches!(self.kind, Kind::Etcd(Failure::AuthFailed | Failure::StaleToken))
    }

    /// The lease does not exist any more.
    pub fn is_lease_gone(&self) -> bool {
        self.kind == Kind::Etcd(Failure::LeaseNotFound)
    }

    /// etcd is over its quota: reads, keepalives and deletes go on, writes do not until somebody compacts and defragments it.
    pub fn is_no_space(&self) -> bool {
        self.kind == Kind::Etcd(Failure::NoSpace)
    }

    /// A request or an answer exceeds a limit of size.
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::Etcd(Failure::TooLarge)
    }

    /// The revision that was asked for has been compacted.
    pub fn is_compacted(&self) -> bool {
        self.kind == Kind::Etcd(Failure::Compacted)
    }

    /// Another process has taken over the id of this instance; only a server's `run` says so.
    #[cfg(feature = "server")]
    pub fn is_superseded(&self) -> bool {
        self.kind == Kind::Superseded
    }

    /// A deadline passed before the work was done, whoever was slow.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::TimedOut | Kind::Etcd(Failure::TimedOut))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
