//! BAL-21, its part on TLS, and what TLS owes beside it: who is trusted, what is shown, and certificates that change
//! under load.

use std::path::Path;
use std::time::Duration;

use svc_channel::{Channel, ChannelBuilder, EndpointState, TlsConfig};
use svc_tests::backends::Backend;
use svc_tests::raw_h2;
use svc_tests::tls::{Authority, Certified, server};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::load::Load;
use crate::support::{endpoint, hello, in_state, until, until_ready};

/// The host that endpoints of these tests are dialled at.
const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];

fn builder() -> ChannelBuilder {
    Channel::builder()
        .name("greeter")
        .connect_timeout(Duration::from_secs(5))
        .max_backoff(Duration::from_millis(100))
}

fn trusting(authority: &Authority) -> TlsConfig {
    TlsConfig::ca_pem(authority.pem()).expect("a CA")
}

/// A backend of these certificates is never Ready, and call and dump say all of `says`.
async fn refused(backend_at: &str, tls: Option<TlsConfig>, says: &[&str]) {
    let builder = match tls {
        Some(tls) => builder().tls(tls),
        None => builder(),
    };
    let channel = builder.fixed([endpoint("b0", backend_at)]);
    let status = hello(&channel).await.expect_err("it is not to be connected");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    for part in says {
        assert!(status.message().contains(part), "{part:?} is missing in {status}");
    }
    let dump = channel.dump();
    assert_eq!(in_state(&dump, EndpointState::Ready), 0, "{dump:?}");
    let told = dump.endpoints[0].last_error.as_deref().unwrap_or_default();
    assert!(says.iter().all(|part| told.contains(part)), "the dump says it too: {told}");
}

#[tokio::test]
async fn calls_go_over_tls_to_a_server_of_a_trusted_authority() {
    let ca = Authority::new("ca");
    let backend = Backend::start_tls("b0", server(&ca.issue(LOOPBACK), None, &["h2"])).await;
    let channel = builder().tls(trusting(&ca)).fixed([endpoint("b0", &backend.address()).secure(true)]);
    for _ in 0..20 {
        assert_eq!(hello(&channel).await.expect("a reply").instance, "b0");
    }
    assert_eq!(backend.counts().accepted, 1);
}

/// The system's trust is read when the config is made, from where OpenSSL would look: `SSL_CERT_FILE` first. A variable of this
/// process would be everybody's, so a child runs the other half.
#[tokio::test]
async fn native_roots_are_those_of_the_system() {
    let ca = Authority::new("ca");
    let backend = Backend::start_tls("b0", server(&ca.issue(LOOPBACK), None, &["h2"])).await;
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, ca.pem()).expect("a file");
    let strange = folder.path().join("strange.pem");
    std::fs::write(&strange, Authority::new("strangers").pem()).expect("a file");
    for (roots, reached) in [(&trusted, true), (&strange, false)] {
        let child = tokio::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "tls::half_of_native_roots", "--ignored"])
            .env("SSL_CERT_FILE", roots)
            .env("BACKEND", backend.address())
            .kill_on_drop(true)
            .output();
        let ran =
            tokio::time::timeout(Duration::from_secs(60), child).await.expect("in time").expect("it starts");
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(told.contains("1 passed") == reached, "{told}");
        assert!(reached || told.contains("UnknownIssuer"), "{told}");
    }
}

#[tokio::test]
#[ignore = "the other half of native_roots_are_those_of_the_system, which runs it"]
async fn half_of_native_roots() {
    let backend = std::env::var("BACKEND").expect("run by the other half");
    let tls = TlsConfig::with_native_roots().expect("a system with roots");
    let channel = builder().tls(tls).fixed([endpoint("b0", &backend)]);
    assert_eq!(hello(&channel).await.expect("a reply").instance, "b0");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_servers_that_want_one() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let backend = Backend::start_tls("b0", server(&ca.issue(LOOPBACK), Some(&clients), &["h2"])).await;
    let client = clients.issue(&["client"]);
    let tls = trusting(&ca).identity_pem(&client.certificate, &client.key).expect("a pair");
    let channel = builder().tls(tls).fixed([endpoint("b0", &backend.address())]);
    assert_eq!(hello(&channel).await.expect("a reply").instance, "b0");

    refused(
        &backend.address(),
        Some(trusting(&ca)),
        &["TLS", "wants a client certificate", "TlsConfig::identity_files"],
    )
    .await;
    let stranger = Authority::new("strangers").issue(&["client"]);
    let tls = trusting(&ca).identity_pem(&stranger.certificate, &stranger.key).expect("a pair");
    refused(&backend.address(), Some(tls), &["TLS", "refuses this channel's client certificate"]).await;
}

#[tokio::test]
async fn bal_21_a_server_of_tls_behind_a_channel_without_is_never_ready() {
    let ca = Authority::new("ca");
    let backend = Backend::start_tls("b0", server(&ca.issue(LOOPBACK), None, &["h2"])).await;
    refused(&backend.address(), None, &["speaks TLS", "ChannelBuilder::tls"]).await;
}

#[tokio::test]
async fn bal_21_a_server_without_tls_behind_a_channel_with_it_is_never_ready() {
    let tls = || Some(trusting(&Authority::new("ca")));
    let backend = Backend::start("b0").await;
    refused(&backend.address(), tls(), &["does not speak TLS", "plaintext"]).await;
    assert_eq!(backend.counts().calls, 0);
    let http1 = raw_h2::http1().await;
    refused(&http1.address(), tls(), &["does not speak TLS", "HTTP/1.1"]).await;
}

#[tokio::test]
async fn bal_21_the_whole_handshake_counts_within_the_connect_timeout() {
    let silent = raw_h2::silent().await;
    let channel = Channel::builder()
        .connect_timeout(Duration::from_millis(300))
        .tls(trusting(&Authority::new("ca")))
        .fixed([endpoint("silent", &silent.address())]);
    let status = hello(&channel).await.expect_err("it never speaks");
    for part in ["within 300ms", "TLS handshake"] {
        assert!(status.message().contains(part), "{part:?} is missing in {status}");
    }
}

#[tokio::test]
async fn bal_21_a_server_that_does_not_agree_on_h2_is_never_ready() {
    let ca = Authority::new("ca");
    for alpn in [&[][..], &["http/1.1"]] {
        let backend = Backend::start_tls("b0", server(&ca.issue(LOOPBACK), None, alpn)).await;
        refused(&backend.address(), Some(trusting(&ca)), &["TLS", "ALPN \"h2\"", "port of a gRPC server"])
            .await;
    }
}

#[tokio::test]
async fn an_unknown_authority_a_wrong_name_and_an_expired_certificate_are_refused_with_the_remedy() {
    let ca = Authority::new("ca");
    let cases: [(Certified, TlsConfig, [&str; 2]); 3] = [
        (ca.issue(LOOPBACK), trusting(&Authority::new("other")), ["no authority", "TlsConfig::ca_file"]),
        (ca.issue(&["elsewhere.test"]), trusting(&ca), ["another name", "TlsConfig::server_name"]),
        (ca.issue_expired(LOOPBACK), trusting(&ca), ["renewed", "clock"]),
    ];
    for (certified, tls, says) in cases {
        let backend = Backend::start_tls("b0", server(&certified, None, &["h2"])).await;
        refused(&backend.address(), Some(tls), &says).await;
    }
}

#[tokio::test]
async fn the_name_that_is_checked_is_the_configured_one_or_the_authoritys() {
    let ca = Authority::new("ca");
    let backend = Backend::start_tls("b0", server(&ca.issue(&["greeter.test"]), None, &["h2"])).await;
    let named = trusting(&ca).server_name("greeter.test").expect("a name");
    let channel = builder().tls(named).fixed([endpoint("b0", &backend.address())]);
    hello(&channel).await.expect("the configured name");
    let authority = "greeter.test:443".parse().expect("an authority");
    let channel =
        builder().tls(trusting(&ca)).fixed([endpoint("b0", &backend.address()).authority(authority)]);
    hello(&channel).await.expect("the authority's host");
}

#[tokio::test]
async fn an_instance_that_wants_tls_is_not_dialled_without() {
    let backend = Backend::start("b0").await;
    let channel = builder().fixed([endpoint("b0", &backend.address()).secure(true)]);
    let status = hello(&channel).await.expect_err("no TLS");
    assert!(
        status.message().contains("wants TLS") && status.message().contains("ChannelBuilder::tls"),
        "{status}"
    );
    assert_eq!(backend.counts().accepted, 0);
}

#[tokio::test]
async fn tls_goes_over_a_unix_socket_too_and_its_name_is_localhost() {
    let ca = Authority::new("ca");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("greeter.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let acceptor = TlsAcceptor::from(server(&ca.issue(&["localhost"]), None, &["h2"]));
    let backend = Backend::start("behind").await;
    let behind = backend.address();
    // Takes TLS off and hands on; ended by the test's runtime.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(stream).await else { continue };
            let Ok(mut server) = tokio::net::TcpStream::connect(&behind).await else { continue };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    });
    let channel = builder().tls(trusting(&ca)).fixed([endpoint("unix", &format!("unix:{}", path.display()))]);
    assert_eq!(hello(&channel).await.expect("a reply").instance, "behind");
}

/// As those do who rotate certificates: a new file under the old name.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("a file");
    // A key that everybody may read is refused.
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    std::fs::rename(new, path).expect("a renamed file");
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(ca: &Authority, client: &Certified) -> Self {
        let files = Files { folder: tempfile::tempdir().expect("a folder") };
        files.put(ca, client);
        files
    }

    fn put(&self, ca: &Authority, client: &Certified) {
        for (name, content) in
            [("ca.pem", &ca.pem()), ("tls.crt", &client.certificate), ("tls.key", &client.key)]
        {
            replace(&self.folder.path().join(name), content);
        }
    }

    fn config(&self) -> TlsConfig {
        let path = |name| self.folder.path().join(name);
        let trusted = TlsConfig::ca_file(path("ca.pem")).expect("a CA");
        trusted.identity_files(path("tls.crt"), path("tls.key")).expect("a pair")
    }
}

#[tokio::test]
async fn certificates_change_under_load_without_a_failed_call_and_new_connections_use_the_new_ones() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::new(&old, &old.issue(&["client"]));
    let mut backends = Vec::new();
    for name in ["b0", "b1"] {
        let config = server(&old.issue(LOOPBACK), Some(&old), &["h2"]);
        backends.push(Backend::start_tls(name, config).await);
    }
    let endpoints = backends.iter().map(|b| endpoint(b.name(), &b.address()));
    let channel = builder().tls(files.config()).fixed(endpoints);
    until_ready(&channel, 2).await;
    let load = Load::start(&channel, 8, None);
    load.more(100).await;
    files.put(&new, &new.issue(&["client"]));
    load.more(100).await;
    assert!(backends.iter().all(|b| b.counts().accepted == 1), "connections that are up stay");
    for backend in &backends {
        // From here on it trusts and shows the new authority only: nobody connects with what was there before.
        backend.set_tls(server(&new.issue(LOOPBACK), Some(&new), &["h2"]));
        backend.goaway().await;
        backend.until(|counts| counts.accepted == 2).await;
        load.more(100).await;
    }
    until_ready(&channel, 2).await;
    let tally = load.finish_unharmed().await;
    assert!(backends.iter().all(|b| tally.of(b.name()) > 0), "{tally:?}");
}

#[tokio::test]
async fn changed_files_that_cannot_be_used_leave_the_last_good_ones_in_use_until_they_are_mended() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let client = old.issue(&["client"]);
    let files = Files::new(&old, &client);
    let backend = Backend::start_tls("b0", server(&old.issue(LOOPBACK), Some(&old), &["h2"])).await;
    let channel = builder().tls(files.config()).fixed([endpoint("b0", &backend.address())]);
    let load = Load::start(&channel, 4, None);
    load.more(20).await;
    let folder = files.folder.path();
    let half_rotated = new.issue(&["client"]);
    for (connection, (name, content)) in
        [("tls.crt", "nonsense"), ("tls.crt", &half_rotated.certificate), ("ca.pem", "")]
            .into_iter()
            .enumerate()
    {
        replace(&folder.join(name), content);
        backend.goaway().await;
        backend.until(|counts| counts.accepted == connection as u64 + 2).await;
        load.more(20).await;
    }
    std::fs::remove_file(folder.join("tls.key")).expect("it was there");
    backend.goaway().await;
    load.more(20).await;
    files.put(&new, &new.issue(&["client"]));
    backend.set_tls(server(&new.issue(LOOPBACK), Some(&new), &["h2"]));
    backend.goaway().await;
    load.more(20).await;
    load.finish_unharmed().await;
    until(&channel, |dump| in_state(dump, EndpointState::Ready) == 1).await;
}
