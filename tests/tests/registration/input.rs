//! Wrong configurations: refused before anything is asked of etcd, with the field's name. Files with certificates, keys and
//! passwords have their tests in `registry/src/etcd/tls.rs` and `user.rs`.

use std::time::Duration;

use svc_registry::{Error, Etcd, EtcdConfig, Instance, Registrar, RegistrarConfig, Serve};

/// Nobody listens there: whoever asks etcd first does not fail at once.
const NOWHERE: &str = "127.0.0.1:1";

fn refused<T>(result: Result<T, Error>, field: &str) {
    let Err(error) = result else { panic!("{field} is refused") };
    assert!(error.is_config(), "{field}: {error}");
    assert!(error.to_string().starts_with(&format!("{field}: ")), "{field}: {error}");
}

fn serve(service: &str) -> Serve {
    let etcd = Etcd::new(EtcdConfig::new([NOWHERE]).expect("an address")).expect("inside a runtime");
    Serve::new(&etcd, service).listen("127.0.0.1:0")
}

#[tokio::test]
async fn every_wrong_configuration_is_refused_with_the_name_of_its_field() {
    let long = "x".repeat(254);
    refused(EtcdConfig::new(Vec::<String>::new()), "endpoints");
    refused(EtcdConfig::new(["http://"]), "endpoints");
    refused(EtcdConfig::new(["https://a:1", "http://b:1"]), "endpoints");
    refused(EtcdConfig::default().with_prefix("services"), "prefix");
    refused(EtcdConfig::default().with_dial_timeout(Duration::ZERO), "dial-timeout");
    refused(EtcdConfig::default().with_user("", "x"), "user");
    refused(EtcdConfig::default().with_password_file("me", "/nowhere/password"), "password-file");
    refused(EtcdConfig::default().with_tls_files(Some("/nowhere/ca.pem".into()), None), "cacert");
    refused(Instance::new(&long, "i-1", "10.0.0.1:1"), "service");
    refused(Instance::new("greeter", &long, "10.0.0.1:1"), "id");
    refused(Instance::new("greeter", "i-1", "10.0.0.1:0"), "address");
    refused(Instance::new("greeter", "i-1", "0.0.0.0:1"), "address");
    refused(serve(&long).run().await, "service");
    refused(serve("greeter").advertise("0.0.0.0:1").run().await, "advertise");
    refused(serve("greeter").advertise("10.0.0.1:0").run().await, "advertise");
    refused(serve("greeter").advertise("10.0.0.1:00").run().await, "advertise");
    refused(serve("greeter").also("admin").also("greeter").run().await, "service");
    let changed = |change: fn(Instance) -> Instance| serve("greeter").instance(change).run();
    refused(changed(|instance| instance.with_zone("a\tb")).await, "zone");
    refused(changed(|instance| instance.with_version("1\n2")).await, "version");
    refused(changed(|instance| instance.with_tag("colour", "\u{1b}[31m")).await, "tags");
    refused(changed(|instance| instance.with_tag("much", "x".repeat(65_536))).await, "tags");
    let short = RegistrarConfig { ttl: Duration::from_millis(999), ..RegistrarConfig::default() };
    refused(serve("greeter").registrar(short).run().await, "ttl");
    let long = RegistrarConfig { ttl: Duration::from_secs(25 * 3600), ..RegistrarConfig::default() };
    refused(serve("greeter").registrar(long).run().await, "ttl");
    let etcd = Etcd::new(EtcdConfig::new([NOWHERE]).expect("an address")).expect("inside a runtime");
    refused(Registrar::with_config(&etcd, short), "ttl");
    refused(Registrar::with_config(&etcd, long), "ttl");
    let error = "1000001".parse::<svc_registry::Weight>().expect_err("out of range").to_string();
    assert!(error.contains("weight") && error.contains("1000000"), "{error}");
}

#[tokio::test]
async fn an_etcd_that_is_away_holds_up_no_start_unless_asked_to() {
    let etcd = Etcd::new(EtcdConfig::new([NOWHERE]).expect("an address")).expect("made at once");
    let begin = std::time::Instant::now();
    let error = etcd.ready(Duration::from_millis(300)).await.expect_err("nobody answers");
    assert!(error.is_unreachable() && begin.elapsed() < crate::support::LIMIT, "{error}");
    // It serves, and heals behind.
    let (started, is_started) = tokio::sync::oneshot::channel();
    let serve = serve("greeter")
        .started(move |_| started.send(()).expect("it is waited for"))
        .shutdown(async move { is_started.await.expect("it has started") });
    let ended = tokio::time::timeout(crate::support::LONG, serve.run()).await;
    ended.expect("it ends").expect("an orderly stop");
}
