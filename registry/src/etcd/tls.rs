//! TLS towards etcd: files by field name come in, checked settings of the channel go out; a wrong one is refused with the
//! name of its field. Next is `client.rs`, which gives them to its channels.
//!
//! Without the crate's feature `tls` everything here refuses and says so.

#[cfg(feature = "tls")]
use std::path::Path;
use std::path::PathBuf;

#[cfg(feature = "tls")]
use svc_channel::{TlsConfig, TlsError};

#[cfg(feature = "tls")]
use crate::error::Error;

/// The files and the name that etcdctl's flags and variables give, as they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

/// How each of them is called where it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsNames {
    pub(crate) cacert: &'static str,
    pub(crate) cert: &'static str,
    pub(crate) key: &'static str,
    pub(crate) server_name: &'static str,
}

impl TlsNames {
    pub(crate) const FIELDS: TlsNames =
        TlsNames { cacert: "cacert", cert: "cert", key: "key", server_name: "tls-server-name" };
    #[cfg(feature = "cli")]
    pub(crate) const FLAGS: TlsNames =
        TlsNames { cacert: "--cacert", cert: "--cert", key: "--key", server_name: "--tls-server-name" };
    pub(crate) const ENVIRONMENT: TlsNames = TlsNames {
        cacert: "ETCDCTL_CACERT",
        cert: "ETCDCTL_CERT",
        key: "ETCDCTL_KEY",
        server_name: "SVC_TLS_SERVER_NAME",
    };
}

impl TlsFiles {
    /// The field that was given first, if one was.
    pub(crate) fn first(&self, names: &TlsNames) -> Option<&'static str> {
        [
            (self.cacert.is_some(), names.cacert),
            (self.cert.is_some(), names.cert),
            (self.key.is_some(), names.key),
            (self.server_name.is_some(), names.server_name),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// What the channels are told; without a CA the system's are trusted.
    #[cfg(feature = "tls")]
    pub(crate) fn load(&self, names: &TlsNames) -> Result<TlsConfig, Error> {
        let refuse = |field: &str| {
            let field = field.to_owned();
            move |error: TlsError| Error::config(&field, &error).with_source(error)
        };
        let mut tls = match &self.cacert {
            Some(path) => TlsConfig::ca_file(path).map_err(refuse(names.cacert))?,
            None => TlsConfig::with_native_roots().map_err(refuse(names.cacert))?,
        };
        match (&self.cert, &self.key) {
            (None, None) => {}
            (Some(_), None) => return Err(lacks(names.key, names.cert)),
            (None, Some(_)) => return Err(lacks(names.cert, names.key)),
            (Some(cert), Some(key)) => {
                readable(names.cert, cert)?;
                readable(names.key, key)?;
                let shown = tls.identity_files(cert, key);
                let field = |error: &TlsError| if error.is_key() { names.key } else { names.cert };
                tls = shown.map_err(|error| refuse(field(&error))(error))?;
            }
        }
        match &self.server_name {
            Some(name) => tls.server_name(name).map_err(refuse(names.server_name)),
            None => Ok(tls),
        }
    }
}

#[cfg(feature = "tls")]
fn lacks(field: &str, other: &str) -> Error {
    Error::config(
        field,
        format_args!("missing, while {other} is given; a certificate and its key go together"),
    )
}

#[cfg(feature = "tls")]
fn readable(field: &str, path: &Path) -> Result<(), Error> {
    let opened = std::fs::File::open(path);
    opened.map(drop).map_err(|error| super::secret::unreadable(field, path, error))
}

/// What is said where TLS is asked for and the crate was built without it.
#[cfg(not(feature = "tls"))]
pub(crate) const NO_TLS: &str = "this program was built without TLS; switch on svc-registry's feature `tls`";

#[cfg(all(test, unix, feature = "tls"))]
mod tests {
    use super::*;

    fn pem() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["etcd.test".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn put(folder: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn bad_files_are_refused_with_the_name_of_their_field() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = pem();
        let ca = put(&folder, "ca.pem", &cert, 0o644);
        let cert_file = put(&folder, "client.pem", &cert, 0o644);
        let key_file = put(&folder, "client.key", &key, 0o600);
        let open_key = put(&folder, "open.key", &key, 0o644);
        let other_key = put(&folder, "other.key", &pem().1, 0o600);
        let empty = put(&folder, "empty.pem", "", 0o644);
        let nowhere = folder.path().join("nowhere.pem");
        let files = |ca: &Path, cert: Option<&Path>, key: Option<&Path>| TlsFiles {
            cacert: Some(ca.to_owned()),
            cert: cert.map(Path::to_owned),
            key: key.map(Path::to_owned),
            server_name: None,
        };
        let refused = |files: TlsFiles, field: &str, part: &str| {
            let error = files.load(&TlsNames::FIELDS).expect_err(field);
            let text = error.to_string();
            assert!(error.is_config() && text.starts_with(&format!("{field}: ")), "{field}: {text}");
            assert!(text.contains(part), "{text} says {part:?}");
        };
        files(&ca, Some(&cert_file), Some(&key_file)).load(&TlsNames::FIELDS).expect("all is well");
        refused(files(&nowhere, None, None), "cacert", "nowhere.pem");
        refused(files(&empty, None, None), "cacert", "no certificate");
        refused(files(&ca, Some(&cert_file), None), "key", "cert is given");
        refused(files(&ca, None, Some(&key_file)), "cert", "key is given");
        refused(files(&ca, Some(&nowhere), Some(&key_file)), "cert", "nowhere.pem");
        refused(files(&ca, Some(&cert_file), Some(&nowhere)), "key", "nowhere.pem");
        refused(files(&ca, Some(&empty), Some(&key_file)), "cert", "no certificate");
        refused(files(&ca, Some(&cert_file), Some(&other_key)), "key", "does not belong");
        refused(files(&ca, Some(&cert_file), Some(&open_key)), "key", "chmod 600");
        let named = TlsFiles { server_name: Some("https://x".into()), ..files(&ca, None, None) };
        refused(named, "tls-server-name", "https://x");
    }
}
