//! What TLS is made of: where certificates and keys come from, and the rustls configuration that they make. In come
//! paths and PEM, out go a [`ClientConfig`] or an error that names the file. `reload.rs` asks again when files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto};

use super::error::{Kind, TlsError};

/// The protocol that every connection must agree on (RFC 7301); a server that does not is none of gRPC's.
pub(super) const H2: &[u8] = b"h2";

/// Where one PEM comes from.
#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// Never its content: it may be a key.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory(_) => f.write_str("the PEM given"),
        }
    }
}

impl Source {
    fn read(&self) -> Result<Arc<[u8]>, TlsError> {
        match self {
            Self::File(path) => {
                std::fs::read(path).map(Into::into).map_err(|error| TlsError::unreadable(path, error))
            }
            Self::Memory(bytes) => Ok(bytes.clone()),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let pem = self.read()?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|e| {
            TlsError::new(Kind::Certificate, self, format_args!("is no valid PEM ({e}); write it anew"))
                .with(e)
        })?;
        if certificates.is_empty() {
            const WHY: &str =
                "holds no certificate; PEM with BEGIN CERTIFICATE belongs there (DER must be converted)";
            return Err(TlsError::new(Kind::Certificate, self, WHY));
        }
        Ok(certificates)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        if let Self::File(path) = self {
            private(path)?;
        }
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|e| match e {
            pem::Error::NoItemsFound => TlsError::new(
                Kind::Key,
                self,
                "holds no private key that can be read; PEM with BEGIN PRIVATE KEY (PKCS #8, not encrypted), BEGIN RSA \
                 PRIVATE KEY or BEGIN EC PRIVATE KEY belongs there",
            ),
            e => TlsError::new(Kind::Key, self, format_args!("is no valid PEM ({e}); write it anew")).with(e),
        })
    }
}

/// Refuses a key that everybody on this machine may read or write, as ssh does; a group may, since that is how Kubernetes gives a
/// secret to a process that is not root (`fsGroup`).
#[cfg(unix)]
fn private(key: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_err(|error| TlsError::unreadable(key, error))?.permissions().mode();
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let why = format!(
        "is open to everybody on this machine (mode {:03o}); run chmod 600 on it (in Kubernetes: defaultMode 0440 and an \
         fsGroup)",
        mode & 0o777
    );
    Err(TlsError::new(Kind::Key, key.display(), why))
}

/// Permissions elsewhere are not those of Unix: nothing is checked.
#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

/// Which certification authorities are trusted.
#[derive(Clone, Debug)]
pub(super) enum Roots {
    /// The system's.
    Native,
    /// Mozilla's, as compiled in.
    Webpki,
    Pem(Source),
}

/// What servers are shown.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) chain: Source,
    pub(super) key: Source,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Material {
    pub(super) roots: Vec<Roots>,
    pub(super) identity: Option<Identity>,
}

/// What tells that a file has changed: its content may, with the same length and within the clock's grain, but then it
/// is another file, since whoever rotates certificates writes a new one and renames it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Material {
    /// The stamps of all its files; `None` for one that is not there.
    pub(super) fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files().map(|path| std::fs::metadata(path).ok().map(|data| Stamp::of(&data))).collect()
    }

    pub(super) fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let roots = self.roots.iter().filter_map(|roots| match roots {
            Roots::Pem(source) => Some(source),
            Roots::Native | Roots::Webpki => None,
        });
        let identity = self.identity.iter().flat_map(|identity| [&identity.chain, &identity.key]);
        roots.chain(identity).filter_map(|source| match source {
            Source::File(path) => Some(path),
            Source::Memory(_) => None,
        })
    }

    /// Reads all of it and makes what connections use.
    pub(super) fn load(&self) -> Result<ClientConfig, TlsError> {
        // ring, chosen by name: what the process has installed as its default says nothing to us.
        let provider = Arc::new(crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        for roots in &self.roots {
            roots.add_to(&mut store)?;
        }
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::refused(Kind::Certificate, "rustls", e))?
            .with_root_certificates(store);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = identity.load(&provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    }
}

impl Roots {
    fn add_to(&self, store: &mut RootCertStore) -> Result<(), TlsError> {
        match self {
            Self::Webpki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::Native => {
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = store.add_parsable_certificates(found.certs);
                if added == 0 {
                    let why = found.errors.first().map(|e| format!(" ({e})")).unwrap_or_default();
                    let why = format!(
                        "holds no certificate{why}; install ca-certificates, set SSL_CERT_FILE, or use ca_file"
                    );
                    return Err(TlsError::new(Kind::Certificate, "the system's trust store", why));
                }
            }
            Self::Pem(source) => {
                for certificate in source.certificates()? {
                    store.add(certificate).map_err(|e| TlsError::refused(Kind::Certificate, source, e))?;
                }
            }
        }
        Ok(())
    }
}

impl Identity {
    fn load(&self, provider: &crypto::CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let (chain, key) = (self.chain.certificates()?, self.key.key()?);
        CertifiedKey::from_der(chain, key, provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                let why = format_args!(
                    "does not belong to the certificate in {}; the first certificate there must be the one of this key",
                    self.chain
                )
                .to_string();
                TlsError::new(Kind::Key, &self.key, why).with(e)
            }
            rustls::Error::InvalidCertificate(_) => TlsError::refused(Kind::Certificate, &self.chain, e),
            e => TlsError::refused(Kind::Key, &self.key, e),
        })
    }
}

impl Stamp {
    fn of(data: &std::fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(data);
        #[cfg(not(unix))]
        let inode = 0;
        Self { modified: data.modified().ok(), length: data.len(), inode }
    }
}
