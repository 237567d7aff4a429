//! [`TlsError`]: why TLS settings were refused. Made by `material.rs`, told to whoever configures, or, at a reload,
//! to the log.

use std::fmt;
use std::path::Path;

use tokio_rustls::rustls;

/// TLS settings that cannot be used. Its text names the file, what is wrong with it and what to do.
pub struct TlsError(Box<Inner>);

struct Inner {
    kind: Kind,
    /// Which file, or which argument.
    place: String,
    why: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Certificate,
    Key,
    ServerName,
}

impl TlsError {
    pub(super) fn new(kind: Kind, place: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self(Box::new(Inner { kind, place: place.to_string(), why: why.to_string(), source: None }))
    }

    pub(super) fn unreadable(path: &Path, error: std::io::Error) -> Self {
        let why = format!("cannot be read ({error}); check its path and that this process may read it");
        Self::new(Kind::File, path.display(), why).with(error)
    }

    /// What rustls made of the whole.
    pub(super) fn refused(kind: Kind, place: impl fmt::Display, error: rustls::Error) -> Self {
        Self::new(kind, place, format_args!("refused: {error}")).with(error)
    }

    pub(super) fn with(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// A file cannot be read.
    pub fn is_file(&self) -> bool {
        self.0.kind == Kind::File
    }

    /// There is no certificate where one belongs, or it cannot be understood.
    pub fn is_certificate(&self) -> bool {
        self.0.kind == Kind::Certificate
    }

    /// There is no private key where one belongs, or it does not belong to the certificate.
    pub fn is_key(&self) -> bool {
        self.0.kind == Kind::Key
    }

    /// The server name is no DNS name and no IP address.
    pub fn is_server_name(&self) -> bool {
        self.0.kind == Kind::ServerName
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS: {}: {}", self.0.place, self.0.why)
    }
}

impl fmt::Debug for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsError")
            .field("kind", &self.0.kind)
            .field("place", &self.0.place)
            .field("why", &self.0.why)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
