//! An etcd with users, real ones of two versions: tokens run out, users change, authentication is switched on while we
//! run, passwords are wrong.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Permission};
use futures_util::StreamExt;
use svc_registry::catalog::{Catalog, CatalogEvent, Selector, Subscription};
use svc_registry::{
    Etcd, EtcdConfig, Registrar, RegistrarConfig, Registration, RegistrationStatus, ServiceName, Weight,
};
use svc_tests::etcd::{Kind, Options, TestEtcd, run};

use crate::support::{KEY, LIMIT, LONG, Look, instance, registered, report, until_status, value};

pub(crate) const USER: &str = "greeter-user";
const PASSWORD: &str = "hunter2-is-secret";

/// Users with the rights that DESIGN gives a service: its own keys, and everybody's to read. Then authentication is on.
pub(crate) async fn enable(etcd: &TestEtcd) {
    let mut client = etcd.client().await;
    client.user_add("root", "root", None).await.expect("no users yet");
    client.role_add("root").await.expect("no roles yet");
    client.user_grant_role("root", "root").await.expect("both are there");
    client.user_add(USER, PASSWORD, None).await.expect("a new user");
    client.role_add("service").await.expect("a new role");
    for permission in [
        Permission::read("/services").with_prefix(),
        Permission::read_write("/services/greeter/").with_prefix(),
        Permission::read_write("/services-draining/greeter/").with_prefix(),
    ] {
        client.role_grant_permission("service", permission).await.expect("the role is there");
    }
    client.user_grant_role(USER, "service").await.expect("both are there");
    client.auth_enable().await.expect("there is a root");
}

pub(crate) async fn root(etcd: &TestEtcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "root");
    Client::connect([etcd.url()], Some(options)).await.expect("root may")
}

/// Somebody else's change, by a client whose token is fresh.
async fn put(etcd: &TestEtcd, key: &str, address: &str) {
    let record = format!(r#"{{"state":"serving","address":"{address}"}}"#);
    root(etcd).await.put(key, record, None).await.expect("root may");
}

/// A service and a client of it, on one handle.
struct Process {
    etcd: Etcd,
    registration: Registration,
    catalog: Catalog,
    greeters: Follower,
}

impl Process {
    async fn start(etcd: &TestEtcd) -> Process {
        let config = EtcdConfig::new([etcd.url()]).and_then(|config| config.with_user(USER, PASSWORD));
        let ours = Etcd::new(config.expect("good")).expect("inside a runtime");
        let config = RegistrarConfig { ttl: Duration::from_secs(3), ..RegistrarConfig::default() };
        let registration =
            registered(&Registrar::with_config(&ours, config).expect("a valid configuration"), "i-1").await;
        let catalog = Catalog::new(&ours);
        let mut greeters = Follower::of(&catalog, "greeter");
        greeters.until("i-1").await;
        Process { etcd: ours, registration, catalog, greeters }
    }

    /// Everything goes on: the old watch, a new one, a list, a write, the lease. `mark` names what is new this time.
    async fn goes_on(&mut self, etcd: &TestEtcd, mark: &str, weight: u32) {
        put(etcd, &format!("/services/greeter/{mark}"), "10.0.0.9:1").await;
        self.greeters.until(mark).await;
        let mut new = Follower::of(&self.catalog, &format!("new-{mark}"));
        put(etcd, &format!("/services/new-{mark}/first"), "10.0.0.9:2").await;
        new.until("first").await;
        put(etcd, &format!("/services/new-{mark}/second"), "10.0.0.9:3").await;
        new.until("second").await;
        let listed = self.catalog.list(Selector::all()).await.expect("a list goes on");
        assert!(listed.instances.iter().any(|i| i.record.id.as_str() == "i-1"), "{listed:?}");
        self.registration.update(|instance| instance.set_weight(Weight::new(weight).expect("in range")));
        let mut look = Look { client: root(etcd).await };
        let wanted = |kv: Option<&etcd_client::KeyValue>| kv.is_some_and(|kv| value(kv)["weight"] == weight);
        let took = look.until(LIMIT * 2, "an update goes on", KEY, wanted).await;
        report("an update with a user", took);
        until_status("registered", &self.registration, RegistrationStatus::is_registered).await;
    }
}

/// The ids that a subscriber of one service has seen.
struct Follower {
    events: Subscription,
    seen: BTreeSet<String>,
}

impl Follower {
    fn of(catalog: &Catalog, service: &str) -> Follower {
        let selector = Selector::service(ServiceName::new(service).expect("a name"));
        Follower { events: catalog.watch(selector), seen: BTreeSet::new() }
    }

    async fn until(&mut self, id: &str) {
        let follow = async {
            while !self.seen.contains(id) {
                match self.events.next().await.expect("a subscription never ends") {
                    CatalogEvent::Snapshot(snapshot) => {
                        self.seen.extend(snapshot.instances.iter().map(|i| i.record.id.to_string()));
                    }
                    event => {
                        let text = format!("{event:?}");
                        if text.contains(&format!("\"{id}\"")) {
                            self.seen.insert(id.to_owned());
                        }
                    }
                }
            }
        };
        let followed = tokio::time::timeout(LONG, follow).await;
        assert!(followed.is_ok(), "{id} is not seen; seen are {:?}", self.seen);
    }
}

async fn tokens_run_out(etcd: TestEtcd) {
    lines(); // from here on what is logged is kept
    enable(&etcd).await;
    let mut process = Process::start(&etcd).await;
    let lease = Look { client: root(&etcd).await }.there(KEY).await.lease();
    // The fault itself is time: four times the token's.
    tokio::time::sleep(Duration::from_secs(20)).await;
    process.goes_on(&etcd, "late", 7).await;
    assert_eq!(Look { client: root(&etcd).await }.there(KEY).await.lease(), lease, "the same lease");
    assert_no_secret(&process);
}

async fn users_are_added_while_we_run(etcd: TestEtcd) {
    enable(&etcd).await;
    let mut process = Process::start(&etcd).await;
    for (weight, name) in [(7, "one"), (8, "two")] {
        root(&etcd).await.user_add(name, "pw", None).await.expect("a new user");
        process.goes_on(&etcd, name, weight).await;
    }
    // Past the life of a JWT, which nothing prolongs.
    tokio::time::sleep(Duration::from_secs(7)).await;
    process.goes_on(&etcd, "late", 9).await;
    assert_no_secret(&process);
}

async fn authentication_is_switched_on_and_etcd_restarted(etcd: TestEtcd) {
    lines();
    let begin = Instant::now();
    let mut process = Process::start(&etcd).await; // a user, and an etcd that has none yet
    enable(&etcd).await;
    process.goes_on(&etcd, "enabled", 7).await;
    etcd.kill().await;
    etcd.start().await; // simple tokens do not outlive it
    process.goes_on(&etcd, "restarted", 8).await;
    etcd.wipe().await;
    etcd.start().await; // no users again, and no record
    let mut look = Look::at(&etcd).await;
    let took = look.until_there(LIMIT * 2, KEY).await;
    report("after a wipe with users the key is back", took);
    enable(&etcd).await;
    process.goes_on(&etcd, "again", 9).await;
    assert_no_secret(&process);
    assert_few_lines(&etcd, begin);
}

async fn a_wrong_password_is_said_at_once(etcd: TestEtcd) {
    lines();
    let begin = Instant::now();
    enable(&etcd).await;
    let config = EtcdConfig::new([etcd.url()]).and_then(|config| config.with_user(USER, "wrong-and-secret"));
    let ours = Etcd::new(config.expect("well-formed")).expect("inside a runtime");
    let asked = Instant::now();
    let error = ours.ready(LONG).await.expect_err("refused");
    assert!(asked.elapsed() < LIMIT, "at once, not after {:?}", asked.elapsed());
    assert!(error.is_denied(), "{error}");
    assert!(error.to_string().contains("--user"), "{error}");
    // It never gives up: the password may be put right in etcd.
    let registration = Registrar::new(&ours).register(instance("i-1"));
    let catalog = Catalog::new(&ours);
    let mut greeters = Follower::of(&catalog, "greeter");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_few_lines(&etcd, begin);
    root(&etcd).await.user_change_password(USER, "wrong-and-secret").await.expect("root may");
    until_status("registered", &registration, RegistrationStatus::is_registered).await;
    greeters.until("i-1").await;
    assert!(!lines().iter().any(|line| line.contains("wrong-and-secret")), "no password in a log");
}

/// Neither in what is logged at any level, nor in `Debug` of anything that we hold.
fn assert_no_secret(process: &Process) {
    let shown = format!("{:?} {:?} {:?}", process.etcd, process.registration, process.catalog);
    assert!(!shown.contains(PASSWORD), "{shown}");
    let said = lines();
    let leaked = said.iter().find(|line| line.contains(PASSWORD));
    assert!(leaked.is_none(), "{leaked:?}");
}

/// What operators see (info and above) of this etcd, which is known by its port.
fn assert_few_lines(etcd: &TestEtcd, since: Instant) {
    let address = etcd.address();
    let said: Vec<_> =
        lines().into_iter().filter(|line| line.contains(&address) && !line.contains("DEBUG")).collect();
    let seconds = since.elapsed().as_secs() as usize + 1;
    assert!(said.len() <= seconds, "{} lines in {seconds} s: {said:#?}", said.len());
}

/// The lines that were logged by our libraries since the first call of this, by all tests of this process.
fn lines() -> Vec<String> {
    static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    static ON: OnceLock<()> = OnceLock::new();
    struct Keep;
    impl io::Write for Keep {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            SAID.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    ON.get_or_init(|| {
        let filter = "svc_registry=trace,svc_channel=debug";
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        log.with_writer(|| Keep).try_init().expect("nobody else keeps the log");
    });
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
}

fn simple() -> Options {
    let arguments = ["--auth-token", "simple", "--auth-token-ttl", "5", "--bcrypt-cost", "4"];
    Options { arguments: arguments.map(str::to_owned).to_vec(), ..Options::default() }
}

/// JWT, signed by a key pair of the test's own, in the forms that Go reads.
fn jwt(folder: &Path) -> Options {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
    let (private, public) = (folder.join("jwt.key"), folder.join("jwt.pub"));
    std::fs::write(&private, sec1(&pair.serialize_der())).expect("a file");
    std::fs::write(&public, pair.public_key_pem()).expect("a file");
    let token =
        format!("jwt,sign-method=ES256,pub-key={},priv-key={},ttl=5s", public.display(), private.display());
    let arguments = ["--auth-token", &token, "--bcrypt-cost", "4"];
    Options { arguments: arguments.map(str::to_owned).to_vec(), ..Options::default() }
}

/// `EC PRIVATE KEY` (RFC 5915) of a P-256 key in PKCS #8: etcd 3.4 reads no other. The inner structure is the same but for the
/// curve's name, which stands outside in PKCS #8.
fn sec1(pkcs8: &[u8]) -> String {
    let public = &pkcs8[pkcs8.len() - 65..];
    let at = pkcs8.windows(5).position(|bytes| bytes == [0x02, 0x01, 0x01, 0x04, 0x20]);
    let secret = at.map(|at| &pkcs8[at + 5..at + 37]).expect("an EC private key");
    let mut der = vec![0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
    der.extend_from_slice(secret);
    der.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    der.extend_from_slice(&[0xa1, 0x44, 0x03, 0x42, 0x00]);
    der.extend_from_slice(public);
    pem("EC PRIVATE KEY", &der)
}

fn pem(label: &str, der: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter)) & 63;
            text.push(if letter <= three.len() { char::from(LETTERS[index as usize]) } else { '=' });
        }
    }
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("letters")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn auth_1_everything_goes_on_when_simple_tokens_run_out_etcd_3_4() {
    run(Kind::Etcd34, &simple(), tokens_run_out);
}

#[test]
fn auth_1_everything_goes_on_when_simple_tokens_run_out_etcd_3_5() {
    run(Kind::Etcd35, &simple(), tokens_run_out);
}

#[test]
fn auth_2_a_wrong_password_is_said_at_once_and_not_again_and_again_etcd_3_4() {
    run(Kind::Etcd34, &simple(), a_wrong_password_is_said_at_once);
}

#[test]
fn auth_2_a_wrong_password_is_said_at_once_and_not_again_and_again_etcd_3_5() {
    run(Kind::Etcd35, &simple(), a_wrong_password_is_said_at_once);
}

#[test]
fn auth_3_everything_goes_on_with_jwt_when_users_are_added_etcd_3_4() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Kind::Etcd34, &jwt(folder.path()), users_are_added_while_we_run);
}

#[test]
fn auth_3_everything_goes_on_with_jwt_when_users_are_added_etcd_3_5() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Kind::Etcd35, &jwt(folder.path()), users_are_added_while_we_run);
}

#[test]
fn auth_4_everything_goes_on_when_authentication_is_switched_on_or_etcd_restarted_etcd_3_4() {
    run(Kind::Etcd34, &simple(), authentication_is_switched_on_and_etcd_restarted);
}

#[test]
fn auth_4_everything_goes_on_when_authentication_is_switched_on_or_etcd_restarted_etcd_3_5() {
    run(Kind::Etcd35, &simple(), authentication_is_switched_on_and_etcd_restarted);
}
