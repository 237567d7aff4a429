//! TLS towards real etcds: a registration over mTLS, and what is said where it cannot be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use svc_registry::{Etcd, EtcdConfig, Registrar, RegistrationStatus};
use svc_tests::etcd::{Kind, Options, ServerTls, TestEtcd, run};
use svc_tests::tls::{Authority, Certified};
use tempfile::TempDir;

use crate::support::{KEY, LONG, Look, instance, registered, until_status};
use crate::users::{USER, enable, root};

/// The certificates of one test, as files.
struct Pki {
    folder: TempDir,
}

impl Pki {
    fn new() -> Pki {
        let pki = Pki { folder: tempfile::tempdir().expect("a folder") };
        let (ca, stranger) = (Authority::new("etcd's CA"), Authority::new("another CA"));
        pki.put("ca.pem", &ca.pem());
        pki.put("other-ca.pem", &stranger.pem());
        pki.pair("server", &ca.issue(&["127.0.0.1", "etcd.test"]));
        pki.pair("client", &ca.issue(&["client"]));
        pki.pair(USER, &ca.issue(&[USER]));
        pki.pair("stranger", &stranger.issue(&["client"]));
        pki
    }

    fn pair(&self, name: &str, certified: &Certified) {
        self.put(&format!("{name}.pem"), &certified.certificate);
        self.put(&format!("{name}.key"), &certified.key);
    }

    fn put(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.at(name), text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.at(name), mode).expect("its owner's");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An etcd that demands client certificates on its TLS port.
    fn options(&self) -> Options {
        let clients = Some(self.at("ca.pem"));
        let tls = ServerTls { certificate: self.at("server.pem"), key: self.at("server.key"), clients };
        Options { tls: Some(tls), ..Options::default() }
    }
}

fn config(url: &str, ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> EtcdConfig {
    let config = EtcdConfig::new([url]).expect("a URL");
    config.with_tls_files(Some(ca.to_owned()), identity).expect("good files")
}

async fn a_registration_lives_over_mutual_tls(etcd: TestEtcd, pki: &Pki) {
    let mut look = Look::at(&etcd).await;
    let identity = Some((pki.at("client.pem"), pki.at("client.key")));
    let ours = Etcd::new(config(&etcd.tls_url(), &pki.at("ca.pem"), identity)).expect("inside a runtime");
    ours.ready(LONG).await.expect("etcd answers over TLS");
    let registration = registered(&Registrar::new(&ours), "i-1").await;
    look.there(KEY).await;
    registration.deregister(LONG).await.expect("etcd is there");
    assert!(look.get(KEY).await.is_none());
}

/// Without a user of the configuration etcd takes the certificate's common name for one.
async fn a_certificates_common_name_is_the_user(etcd: TestEtcd, pki: &Pki) {
    enable(&etcd).await;
    let as_user = |name: &str| {
        let identity = Some((pki.at(&format!("{name}.pem")), pki.at(&format!("{name}.key"))));
        Etcd::new(config(&etcd.tls_url(), &pki.at("ca.pem"), identity)).expect("inside a runtime")
    };
    let ours = as_user(USER);
    ours.ready(LONG).await.expect("etcd answers over TLS");
    let registrar = Registrar::new(&ours);
    let registration = registered(&registrar, "i-1").await;
    assert_eq!(root(&etcd).await.get(KEY, None).await.expect("root may").count(), 1);
    registration.deregister(LONG).await.expect("etcd is there");
    assert_eq!(root(&etcd).await.get(KEY, None).await.expect("root may").count(), 0);

    let nobody = as_user("client");
    let registrar = Registrar::new(&nobody);
    let registration = registrar.register(instance("i-1"));
    let denied = |status: &RegistrationStatus| status.reason().contains("denied");
    until_status("denied", &registration, denied).await;
    let said = registration.status().borrow().reason().to_owned();
    assert!(said.contains("grant"), "{said} says the remedy");
}

async fn what_cannot_be_is_said_with_the_remedy(etcd: TestEtcd, pki: &Pki) {
    let url = etcd.tls_url();
    let stranger = Some((pki.at("stranger.pem"), pki.at("stranger.key")));
    let client = Some((pki.at("client.pem"), pki.at("client.key")));
    let no_tls = EtcdConfig::new([url.trim_start_matches("https://")]).expect("an address");
    for (config, part) in [
        (config(&url, &pki.at("ca.pem"), None), "client certificate"),
        (config(&url, &pki.at("ca.pem"), stranger), "client certificate"),
        (config(&url, &pki.at("other-ca.pem"), client.clone()), "add its CA"),
        (config(&etcd.url().replace("http://", "https://"), &pki.at("ca.pem"), client), "a plaintext server"),
        (no_tls, "TLS"),
    ] {
        let ours = Etcd::new(config).expect("inside a runtime");
        let error = ours.ready(Duration::from_secs(2)).await.expect_err("refused");
        assert!(error.is_unreachable(), "{error}");
        assert!(error.to_string().contains(part), "{error} says {part:?}");
    }
}

#[test]
fn a_registration_lives_over_mutual_tls_etcd_3_4() {
    let pki = Pki::new();
    run(Kind::Etcd34, &pki.options(), |etcd| a_registration_lives_over_mutual_tls(etcd, &pki));
}

#[test]
fn a_registration_lives_over_mutual_tls_etcd_3_5() {
    let pki = Pki::new();
    run(Kind::Etcd35, &pki.options(), |etcd| a_registration_lives_over_mutual_tls(etcd, &pki));
}

#[test]
fn what_cannot_be_is_said_with_the_remedy_etcd_3_4() {
    let pki = Pki::new();
    run(Kind::Etcd34, &pki.options(), |etcd| what_cannot_be_is_said_with_the_remedy(etcd, &pki));
}

#[test]
fn what_cannot_be_is_said_with_the_remedy_etcd_3_5() {
    let pki = Pki::new();
    run(Kind::Etcd35, &pki.options(), |etcd| what_cannot_be_is_said_with_the_remedy(etcd, &pki));
}

#[test]
fn a_certificates_common_name_is_the_user_etcd_3_4() {
    let pki = Pki::new();
    run(Kind::Etcd34, &pki.options(), |etcd| a_certificates_common_name_is_the_user(etcd, &pki));
}

#[test]
fn a_certificates_common_name_is_the_user_etcd_3_5() {
    let pki = Pki::new();
    run(Kind::Etcd35, &pki.options(), |etcd| a_certificates_common_name_is_the_user(etcd, &pki));
}
