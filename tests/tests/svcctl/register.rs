//! `register`: instances that cannot register themselves, each kind of check out of service and back, and operators.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use svc_registry::intent::{DrainIntent, Then};
use svc_tests::etcd::{Kind, TestEtcd};
use svcctl::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};
use tonic_health::ServingStatus;

use crate::bench::{Captured, svcctl, svcctl_into, value};

const SERVING: &str = "/services/legacy/l-1";
const DRAINING: &str = "/services-draining/legacy/l-1";
const INTENT: &str = "/services-control/drain/legacy/l-1";

/// Checks that are asked so often that no test waits for them, with deadlines that a busy machine keeps.
const PACE: [&str; 6] = ["--interval", "20ms", "--failures", "2", "--timeout", "10s"];

/// A running `svcctl register legacy --id l-1`.
struct Registered {
    err: Captured,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Exit>,
}

impl Registered {
    fn start(etcd: &TestEtcd, address: &str, more: &[&str]) -> Registered {
        let (err, url) = (Captured::default(), etcd.url());
        let line = ["register", "legacy", "--id", "l-1", "--notice", "200ms", "--address", address];
        let line: Vec<String> = line.iter().chain(&PACE).chain(more).map(ToString::to_string).collect();
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = err.clone();
        let runtime = tokio::runtime::Handle::current();
        // A command line is a future of one thread. It ends with the value that is made here.
        let task = tokio::task::spawn_blocking(move || {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let cancelled = async move { drop(stopped.await) };
            runtime.block_on(svcctl_into(&url, &line, &Captured::default(), &seen, cancelled))
        });
        Registered { err, stop: Some(stop), task }
    }

    /// Waits until its record is under this key, as wanted; at no revision it has two.
    async fn until(&self, etcd: &TestEtcd, key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + Duration::from_secs(30);
        let mut client = etcd.client().await;
        loop {
            let all = etcd_client::GetOptions::new().with_prefix();
            let found = client.get("/services", Some(all)).await.expect("etcd is up");
            let records =
                found.kvs().iter().filter(|kv| [SERVING, DRAINING].map(str::as_bytes).contains(&kv.key()));
            let records: Vec<_> = records.collect();
            assert!(records.len() <= 1, "one record an id: {records:?}");
            match records.first() {
                Some(kv) if kv.key() == key.as_bytes() => {
                    let record = serde_json::from_slice(kv.value()).expect("JSON");
                    if wanted(&record) {
                        return record;
                    }
                }
                _ => {}
            }
            assert!(
                Instant::now() < limit,
                "not as wanted under {key}: {records:?}; it says {:?}",
                self.err.text()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn serving(&self, etcd: &TestEtcd) {
        self.until(etcd, SERVING, |record| record["state"] == "serving").await;
    }

    /// Waits until it is out by its own check, and out of clients' sight; gives the reason.
    async fn out(&self, etcd: &TestEtcd) -> String {
        let record = self.until(etcd, DRAINING, |record| record["reason"].is_string()).await;
        assert_eq!(record["state"], "draining", "{record}");
        record["reason"].as_str().expect("text").to_owned()
    }

    async fn stop(mut self, etcd: &TestEtcd) {
        drop(self.stop.take());
        let exit = self.task.await.expect("no panic");
        assert_eq!(exit, Exit::Ok, "{}", self.err.text());
        assert_eq!(
            (value(etcd, SERVING).await, value(etcd, DRAINING).await),
            (None, None),
            "it said goodbye"
        );
    }
}

/// Waits until it has said as many lines as these, which is how they begin. How etcd is may be said at any time.
async fn says(err: &Captured, told: &[&str]) {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let text = err.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("legacy/l-1 "));
        let lines: Vec<&str> = lines.filter(|line| !line.contains("trying on")).collect();
        let is_so = lines.iter().zip(told).all(|(line, told)| line.starts_with(told));
        assert!(is_so && lines.len() <= told.len(), "{lines:#?}, not {told:#?}");
        if lines.len() == told.len() {
            return;
        }
        assert!(Instant::now() < limit, "{lines:#?}, not yet {told:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A port that takes connections until this is dropped.
struct Port(AbortHandle);

impl Port {
    async fn open(address: SocketAddr) -> Port {
        // Another process may have it for a moment: it is one of the system's own choice.
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let accept = async move { while listener.accept().await.is_ok() {} };
        Port(tokio::spawn(accept).abort_handle())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A page of one word, whose status the test says; 0 hangs up. It ends when it is dropped.
struct Page {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    task: AbortHandle,
}

impl Page {
    async fn serve() -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let status = Arc::new(AtomicU16::new(200));
        let says = Arc::clone(&status);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break, // whoever asked has given up
                    }
                }
                let answer = match says.load(Ordering::Relaxed) {
                    0 => continue,
                    status => format!("HTTP/1.1 {status} Some Reason\r\nContent-Length: 2\r\n\r\nok"),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Page { address, status, task: task.abort_handle() }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file that is touched ten times a second, while the test says so.
struct Heart {
    file: tempfile::NamedTempFile,
    text: Arc<Mutex<Option<String>>>,
    task: AbortHandle,
}

impl Heart {
    fn beat() -> Heart {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = Arc::new(Mutex::new(Some(String::new())));
        let (path, says) = (file.path().to_owned(), Arc::clone(&text));
        let task = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(100)).await;
                let text = says.lock().unwrap().clone();
                if let Some(text) = text {
                    std::fs::write(&path, text).expect("it can be written");
                }
            }
        });
        Heart { file, text, task: task.abort_handle() }
    }

    fn says(&self, text: Option<&str>) {
        *self.text.lock().unwrap() = text.map(ToOwned::to_owned);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

svc_tests::etcd_tests! {
    async fn start_1_a_tcp_check_lets_it_in_takes_it_out_and_brings_it_back(etcd: TestEtcd) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let registered = Registered::start(&etcd, &address.to_string(), &[]);
        registered.err.shows("not ready, so not registered").await;
        assert_eq!((value(&etcd, SERVING).await, value(&etcd, DRAINING).await), (None, None));
        for _ in 0..2 {
            let port = Port::open(address).await;
            registered.serving(&etcd).await;
            drop(port);
            let reason = registered.out(&etcd).await;
            assert!(reason.starts_with(&format!("no connection to {address}: ")), "{reason}");
        }
        registered.err.shows("legacy/l-1 ready again").await;
        registered.stop(&etcd).await;
    }

    async fn an_http_check_takes_it_out_and_brings_it_back(etcd: TestEtcd) {
        let page = Page::serve().await;
        let registered =
            Registered::start(&etcd, &page.address.to_string(), &["--check", "http:///healthz"]);
        registered.serving(&etcd).await;
        for status in [503, 302, 0] {
            page.says(status);
            let reason = registered.out(&etcd).await;
            assert!(reason.starts_with(&format!("http://{}/healthz: ", page.address)), "{reason}");
            assert!(status == 0 || reason.contains(&status.to_string()), "{reason}");
            page.says(204);
            registered.serving(&etcd).await;
        }
        registered.stop(&etcd).await;
    }

    async fn who_is_out_by_its_check_is_not_said_to_be_registered(etcd: TestEtcd) {
        let page = Page::serve().await;
        let address = page.address.to_string();
        let registered = Registered::start(&etcd, &address, &["--check", "http:///"]);
        let (at, out) = (format!("registered at {address}"), format!("not ready: http://{address}/: "));
        let mut told = vec![at.as_str()];
        says(&registered.err, &told).await;
        for _ in 0..3 {
            page.says(503);
            registered.out(&etcd).await;
            told.push(&out);
            says(&registered.err, &told).await;
            page.says(200);
            registered.serving(&etcd).await;
            told.extend(["ready again", &at]);
            says(&registered.err, &told).await;
        }
        let err = registered.err.clone();
        registered.stop(&etcd).await;
        told.extend(["leaving", "deregistered"]);
        says(&err, &told).await;
    }

    async fn a_grpc_check_takes_it_out_and_brings_it_back(etcd: TestEtcd) {
        let (reporter, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tokio::spawn(
            tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming),
        );
        let named = "legacy.v1.Legacy";
        let check = format!("grpc://{named}");
        let registered = Registered::start(&etcd, &address, &["--check", &check]);
        registered.err.shows("does not know that name").await;
        for _ in 0..2 {
            reporter.set_service_status(named, ServingStatus::Serving).await;
            registered.serving(&etcd).await;
            reporter.set_service_status(named, ServingStatus::NotServing).await;
            let reason = registered.out(&etcd).await;
            assert_eq!(reason, format!("{address}, {named}: health is NOT_SERVING"));
        }
        registered.stop(&etcd).await;
        server.abort();
    }

    async fn a_heartbeat_takes_it_out_and_brings_it_back(etcd: TestEtcd) {
        let heart = Heart::beat();
        let check = format!("ttl=1s:{}", heart.file.path().display());
        let registered = Registered::start(&etcd, "10.0.0.7:9000", &["--check", &check]);
        registered.serving(&etcd).await;
        for (says, part) in [(None, "no heartbeat for 1s"), (Some("fail: disk full"), "disk full")] {
            heart.says(says);
            let reason = registered.out(&etcd).await;
            assert!(reason.ends_with(part), "{reason}");
            heart.says(Some("pass"));
            registered.serving(&etcd).await;
        }
        registered.stop(&etcd).await;
    }

    async fn what_an_operator_wants_wins_over_the_check(etcd: TestEtcd) {
        let page = Page::serve().await;
        let registered = Registered::start(&etcd, &page.address.to_string(), &["--check", "http:///"]);
        registered.serving(&etcd).await;
        let ran = svcctl(&etcd.url(), &["drain", "legacy", "l-1", "--force", "--wait"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        registered.err.shows("drained by an operator").await;
        for _ in 0..2 {
            page.says(500);
            registered.until(&etcd, DRAINING, |record| record["reason"].is_string()).await;
            page.says(200);
            let record = registered.until(&etcd, DRAINING, |record| record.get("reason").is_none()).await;
            assert_eq!(record["state"], "drained", "a passing check undrains nobody");
        }
        page.says(500);
        registered.until(&etcd, DRAINING, |record| record["reason"].is_string()).await;
        let ran = svcctl(&etcd.url(), &["undrain", "legacy", "l-1"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let record = registered.until(&etcd, DRAINING, |record| record["state"] == "draining").await;
        assert!(record["reason"].is_string(), "an undrain mends nothing: {record}");
        let shown = svcctl(&etcd.url(), &["get", "legacy"]).await;
        assert!(shown.out.contains("not ready: http://"), "{}", shown.out);
        page.says(200);
        registered.serving(&etcd).await;

        let ran = svcctl(&etcd.url(), &["deregister", "legacy", "l-1", "--force", "--reason", "moved"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        registered.err.shows("removed by an operator (moved)").await;
        assert_eq!((value(&etcd, SERVING).await, value(&etcd, DRAINING).await), (None, None));
        svcctl(&etcd.url(), &["undrain", "legacy", "l-1"]).await;
        registered.serving(&etcd).await;
        registered.stop(&etcd).await;
    }

    async fn an_operators_exit_ends_it(etcd: TestEtcd) {
        let registered = Registered::start(&etcd, "10.0.0.7:9000", &["--check", "none"]);
        registered.serving(&etcd).await;
        let intent = DrainIntent::new("test", "test").then(Then::Exit);
        etcd.client().await.put(INTENT, intent.encode(), None).await.expect("etcd is up");
        assert_eq!(registered.task.await.expect("no panic"), Exit::Ok);
        assert_eq!((value(&etcd, SERVING).await, value(&etcd, DRAINING).await), (None, None));
    }

    async fn what_is_said_of_it_is_in_its_record(etcd: TestEtcd) {
        let more = [
            "--check", "none", "--weight", "7", "--zone", "b", "--version-tag", "2.1", "--tag", "team=blue",
            "--ttl", "5s", "--tls",
        ];
        let registered = Registered::start(&etcd, "10.0.0.7:9000", &more);
        registered.serving(&etcd).await;
        let shown = svcctl(&etcd.url(), &["get", "legacy", "-o", "json"]).await.json();
        let shown = &shown["instances"][0];
        for (field, wanted) in [
            ("address", Value::from("10.0.0.7:9000")),
            ("weight", 7.into()),
            ("zone", "b".into()),
            ("version", "2.1".into()),
            ("ttl_s", 5.into()),
            ("reason", Value::Null),
        ] {
            assert_eq!(shown[field], wanted, "{field}: {shown}");
        }
        assert_eq!(shown["tags"]["team"], "blue", "{shown}");
        let record = value(&etcd, SERVING).await.expect("it is there");
        assert!(record.contains("grpcs://10.0.0.7:9000"), "{record}");
        registered.stop(&etcd).await;
    }

    async fn reg_12_the_newer_of_two_has_the_id_and_the_older_ends(etcd: TestEtcd) {
        let older = Registered::start(&etcd, "10.0.0.7:9000", &["--check", "none"]);
        older.serving(&etcd).await;
        let newer = Registered::start(&etcd, "10.0.0.8:9000", &["--check", "none"]);
        let exit = older.task.await.expect("no panic");
        assert_eq!(exit, Exit::Other, "{}", older.err.text());
        assert!(older.err.text().contains("has taken over the id"), "{}", older.err.text());
        newer.until(&etcd, SERVING, |record| record["address"] == "10.0.0.8:9000").await;
        newer.stop(&etcd).await;
    }

    async fn stop_1_it_ends_in_time_although_etcd_is_away(etcd: TestEtcd) {
        let registered = Registered::start(&etcd, "10.0.0.7:9000", &["--check", "none"]);
        registered.serving(&etcd).await;
        etcd.freeze();
        drop(registered.stop);
        let exit = tokio::time::timeout(Duration::from_secs(30), registered.task).await.expect("in time");
        etcd.thaw();
        assert_eq!(exit.expect("no panic"), Exit::Ok, "{}", registered.err.text());
        assert!(registered.err.text().contains("runs out with its lease"), "{}", registered.err.text());
    }
}

#[tokio::test]
async fn cli_1_an_etcd_that_is_away_is_said_and_waited_for() {
    let etcd = TestEtcd::start_kind(Kind::Embedded).await.expect("the embedded one");
    etcd.freeze();
    let registered =
        Registered::start(&etcd, "10.0.0.7:9000", &["--check", "none", "--command-timeout", "1s"]);
    registered.err.shows(&etcd.address()).await;
    assert!(registered.err.text().contains("trying on"), "{}", registered.err.text());
    etcd.thaw();
    registered.serving(&etcd).await;
    registered.err.shows("registered at 10.0.0.7:9000").await;
    registered.stop(&etcd).await;
}
