//! The crate's one error: which target, what is wrong with it, what helps.

use std::error::Error as StdError;
use std::fmt;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a target could not be followed.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<BoxError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Target,
    Etcd,
    Runtime,
}

impl Error {
    /// A target that cannot be understood: the part of it that is wrong, why, and what to write instead.
    pub(crate) fn target(target: &str, part: &str, why: impl fmt::Display) -> Self {
        // What was given may be anything; it is shown so that it cannot steer a terminal.
        let message = format!("target {target:?}: {part}: {why}");
        Self { kind: Kind::Target, message, source: None }
    }

    /// Channels have tasks, and tasks need a runtime.
    pub(crate) fn no_runtime(target: &str) -> Self {
        let message =
            format!("target {target:?}: no tokio runtime here; make channels inside #[tokio::main]");
        Self { kind: Kind::Runtime, message, source: None }
    }

    /// Whether the target itself is wrong, so that trying again is of no use.
    pub fn is_target(&self) -> bool {
        self.kind == Kind::Target
    }
}

impl From<svc_registry::Error> for Error {
    fn from(error: svc_registry::Error) -> Self {
        Self { kind: Kind::Etcd, message: error.to_string(), source: Some(error.into()) }
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
