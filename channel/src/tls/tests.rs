use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate of its own signing, and its key.
fn pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["greeter.test".to_owned()]).expect("a name");
    (params.self_signed(&key).expect("a signature").pem(), key.serialize_pem())
}

fn put(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    #[cfg(unix)]
    open_to(&path, 0o600);
    path
}

#[cfg(unix)]
fn open_to(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The error names the file, or what was given, and each of these.
fn refused(result: Result<TlsConfig, TlsError>, is: fn(&TlsError) -> bool, says: &[&str]) {
    let error = result.expect_err("refused");
    assert!(is(&error), "{error:?}");
    let text = error.to_string();
    assert!(says.iter().all(|part| text.contains(part)), "{says:?} in {text}");
}

#[test]
fn what_cannot_be_used_is_refused_as_it_is_set_with_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let ((certificate, key), (_, other_key)) = (pair(), pair());
    let good = || TlsConfig::ca_pem(&certificate).expect("a CA");
    let file = |name, content: &str| put(folder.path(), name, content);

    refused(TlsConfig::ca_file("/nowhere/ca.pem"), TlsError::is_file, &["/nowhere/ca.pem", "check its path"]);
    refused(
        TlsConfig::ca_file(file("empty.pem", "")),
        TlsError::is_certificate,
        &["empty.pem", "holds no certificate", "BEGIN CERTIFICATE"],
    );
    refused(TlsConfig::ca_pem(&key), TlsError::is_certificate, &["the PEM given", "holds no certificate"]);
    let cut = &certificate[..certificate.len() / 2];
    refused(TlsConfig::ca_file(file("cut.pem", cut)), TlsError::is_certificate, &["cut.pem", "no valid PEM"]);
    refused(good().identity_pem(&key, &key), TlsError::is_certificate, &["holds no certificate"]);
    refused(
        good().identity_files(file("a.pem", &certificate), file("swapped.key", &certificate)),
        TlsError::is_key,
        &["swapped.key", "holds no private key", "PKCS #8"],
    );
    refused(
        good().identity_files(file("a.pem", &certificate), file("other.key", &other_key)),
        TlsError::is_key,
        &["other.key", "does not belong to the certificate in", "a.pem"],
    );
    refused(
        good().server_name("https://greeter"),
        TlsError::is_server_name,
        &["https://greeter", "without scheme"],
    );
    good().identity_pem(&certificate, &key).expect("a pair").server_name("10.0.0.1").expect("an IP address");
}

#[cfg(unix)]
#[test]
fn a_key_that_everybody_may_read_or_write_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = pair();
    let (chain, key) = (put(folder.path(), "a.pem", &certificate), put(folder.path(), "a.key", key));
    let shown = || TlsConfig::ca_pem(&certificate).expect("a CA").identity_files(&chain, &key);
    for mode in [0o600, 0o400, 0o440] {
        open_to(&key, mode);
        shown().expect("a group may read it");
    }
    for mode in [0o644, 0o602] {
        open_to(&key, mode);
        refused(shown(), TlsError::is_key, &["a.key", "open to everybody", "chmod 600"]);
    }
}

#[test]
fn a_key_is_never_shown() {
    let (certificate, key) = pair();
    let config =
        TlsConfig::ca_pem(&certificate).expect("a CA").identity_pem(&certificate, &key).expect("a pair");
    let secret = key.lines().nth(1).expect("a line of the key");
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn mozillas_roots_are_compiled_in() {
    TlsConfig::with_webpki_roots().expect("roots");
}

#[tokio::test]
async fn a_changed_file_is_loaded_at_the_next_dial_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = put(folder.path(), "ca.pem", pair().0);
    let config = TlsConfig::ca_file(&path).expect("a CA");
    let first = config.files.fresh().await;
    assert!(Arc::ptr_eq(&first, &config.clone().files.fresh().await), "nothing changed, nothing is read");
    put(folder.path(), "ca.pem", "nonsense");
    assert!(Arc::ptr_eq(&first, &config.files.fresh().await), "the last good one stays");
    std::fs::remove_file(&path).expect("it was there");
    assert!(Arc::ptr_eq(&first, &config.files.fresh().await), "the last good one stays");
    put(folder.path(), "ca.pem", pair().0);
    let second = config.files.fresh().await;
    assert!(!Arc::ptr_eq(&first, &second), "a good one is taken");
    // The same length and, where a test is quick, the same time: another file all the same.
    let other = put(folder.path(), "new.pem", pair().0);
    std::fs::rename(other, &path).expect("a renamed file");
    assert!(!Arc::ptr_eq(&second, &config.files.fresh().await));
}
