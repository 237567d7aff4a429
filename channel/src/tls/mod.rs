//! TLS towards endpoints. [`TlsConfig`] says whom to trust and what to show; `material.rs` makes rustls' configuration
//! of it, `reload.rs` keeps that in step with the files, `handshake.rs` uses it for one connection and says in words
//! what went wrong.

mod error;
mod handshake;
mod material;
mod reload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;

use error::Kind;
pub use error::TlsError;
use material::{Identity, Material, Roots, Source};
use reload::Reloading;

/// How a channel speaks TLS: for [`ChannelBuilder::tls`](crate::ChannelBuilder::tls). A channel with it speaks TLS to
/// all its endpoints, over TCP, unix sockets and any connector alike; one without it to none.
///
/// Everything is read and checked as it is set. Files are looked at again whenever a connection is dialled (their time,
/// length and inode), and read anew where one has changed: connections that are up stay as they are, new ones use what
/// is new. What cannot be used is logged, and the last good certificates stay. Clones share what was read. The
/// system's trust store and PEM from memory are read once.
///
/// ```no_run
/// use svc_channel::{Channel, Endpoint, TlsConfig};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = TlsConfig::ca_file("/etc/greeter/ca.pem")?
///     .identity_files("/etc/greeter/client.pem", "/etc/greeter/client.key")?
///     .server_name("greeter.internal")?;
/// let channel = Channel::builder().tls(tls).fixed([Endpoint::new("10.0.0.1:50051")?]);
/// # Ok(()) }
/// ```
///
/// # Defaults
/// No client certificate. A server's certificate must be for the host of its endpoint's authority, which is its address
/// unless told otherwise (`localhost` for a unix socket). TLS 1.3 or 1.2 with rustls' choice of ciphers; HTTP/2 must be
/// agreed on by ALPN. Certificates are always verified; there is no switch for that.
#[derive(Clone)]
pub struct TlsConfig {
    files: Arc<Reloading>,
    server_name: Option<ServerName<'static>>,
}

impl TlsConfig {
    /// Trusts the authorities that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` count where they are set).
    ///
    /// # Errors
    /// The system has none.
    pub fn with_native_roots() -> Result<Self, TlsError> {
        Self::trusting(Roots::Native)
    }

    /// Trusts the authorities that Mozilla trusts, as compiled in: for images without a trust store.
    ///
    /// # Errors
    /// None that is known of.
    pub fn with_webpki_roots() -> Result<Self, TlsError> {
        Self::trusting(Roots::Webpki)
    }

    /// Trusts the certificates in a PEM file and no others.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn ca_file(path: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::trusting(Roots::Pem(Source::File(path.into())))
    }

    /// Trusts the certificates in this PEM and no others.
    ///
    /// # Errors
    /// It holds no certificate.
    pub fn ca_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Self::trusting(Roots::Pem(Source::Memory(pem.as_ref().into())))
    }

    /// Trusts the certificates in a PEM file too.
    ///
    /// # Errors
    /// As [`ca_file`](Self::ca_file).
    pub fn and_ca_file(self, path: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let mut material = self.files.material.clone();
        material.roots.push(Roots::Pem(Source::File(path.into())));
        self.with(material)
    }

    /// Shows servers the certificate in one PEM file (its intermediates behind it), whose key is in another.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of its kind, or the key is not the certificate's, or is open to everybody on this
    /// machine.
    pub fn identity_files(
        self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        self.showing(Source::File(certificate.into()), Source::File(key.into()))
    }

    /// The same from memory.
    ///
    /// # Errors
    /// As [`identity_files`](Self::identity_files).
    pub fn identity_pem(
        self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        self.showing(Source::Memory(certificate.as_ref().into()), Source::Memory(key.as_ref().into()))
    }

    /// The name or IP address that every server's certificate must be for, instead of its endpoint's own. It is sent to
    /// servers (SNI); the `:authority` of calls stays the endpoint's.
    ///
    /// # Errors
    /// It is neither a DNS name nor an IP address.
    pub fn server_name(self, name: &str) -> Result<Self, TlsError> {
        let parsed = ServerName::try_from(name.to_owned()).map_err(|e| {
            let why = "is neither a DNS name nor an IP address; write it without scheme and port";
            TlsError::new(Kind::ServerName, format_args!("server name {name:?}"), why).with(e)
        })?;
        Ok(Self { server_name: Some(parsed), ..self })
    }

    fn trusting(roots: Roots) -> Result<Self, TlsError> {
        let files = Reloading::new(Material { roots: vec![roots], identity: None })?;
        Ok(Self { files: Arc::new(files), server_name: None })
    }

    fn showing(self, chain: Source, key: Source) -> Result<Self, TlsError> {
        let mut material = self.files.material.clone();
        material.identity = Some(Identity { chain, key });
        self.with(material)
    }

    fn with(self, material: Material) -> Result<Self, TlsError> {
        Ok(Self { files: Arc::new(Reloading::new(material)?), ..self })
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("material", &self.files.material)
            .field("server_name", &self.server_name)
            .finish()
    }
}

#[cfg(test)]
mod tests;
