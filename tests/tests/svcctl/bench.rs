//! What these tests share: one command line run in this process, and instances that are nothing but their records.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use svc_registry::record::{Address, Record};
use svc_registry::{Incarnation, InstanceId, Prefix, ServiceName, State};
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;
use svcctl::output::{Format, Printer};
use tokio::time::{Instant, sleep};

/// How a command line ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What a command prints, readable while it runs.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("UTF-8")
    }

    /// Waits until it holds `part`.
    pub(crate) async fn shows(&self, part: &str) {
        let limit = Instant::now() + Duration::from_secs(30);
        while !self.text().contains(part) {
            assert!(Instant::now() < limit, "{part:?} is not printed: {:?}", self.text());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `svcctl` with these arguments to its end.
pub(crate) async fn svcctl(etcd: &str, arguments: &[&str]) -> Ran {
    let (out, err) = (Captured::default(), Captured::default());
    let exit = svcctl_into(etcd, arguments, &out, &err, std::future::pending()).await;
    Ran { exit, out: out.text(), err: err.text() }
}

/// The same, with its output readable meanwhile, until it is `cancelled`.
pub(crate) async fn svcctl_into(
    etcd: &str,
    arguments: &[&str],
    out: &Captured,
    err: &Captured,
    cancelled: impl Future<Output = ()> + Send + 'static,
) -> Exit {
    let line = ["svcctl", "--endpoints", etcd].into_iter().chain(arguments.iter().copied());
    let cancelled = futures_util::stream::once(cancelled);
    svcctl::run(line, Printer::to(Format::Table, out.clone(), err.clone()), cancelled).await
}

pub(crate) fn name(service: &str) -> ServiceName {
    ServiceName::new(service).expect("a valid name")
}

/// An instance that exists only as a record: the test says what it "does".
pub(crate) struct Paper {
    pub(crate) record: Record,
    pub(crate) lease: i64,
    client: etcd_client::Client,
}

impl Paper {
    /// Registers it, serving, with a lease of a minute.
    pub(crate) async fn register(etcd: &TestEtcd, service: &str, id: &str) -> Paper {
        let mut client = etcd.client().await;
        let lease = client.lease_grant(60, None).await.expect("a lease").id();
        let address: Address = "127.0.0.1:50051".parse().expect("an address");
        let mut record = Record::new(name(service), InstanceId::new(id).expect("a valid id"), address);
        record.incarnation = Some(Incarnation(0xfeed));
        record.ttl_s = Some(60);
        let mut paper = Paper { record, lease, client };
        paper.shows(State::Serving, None).await;
        paper
    }

    /// Writes its state as its owner would: who leaves the first root says why before it does.
    pub(crate) async fn shows(&mut self, state: State, inflight: Option<u64>) {
        use etcd_client::{PutOptions, Txn, TxnOp};
        let leaves = self.record.state == State::Serving && state != State::Serving;
        (self.record.state, self.record.inflight) = (state, inflight);
        let prefix = Prefix::default();
        let serving = prefix.record(&self.record.service, &self.record.id);
        let draining = prefix.draining_record(&self.record.service, &self.record.id);
        let lease = || Some(PutOptions::new().with_lease(self.lease));
        if leaves {
            self.client.put(serving.as_str(), self.record.encode(), lease()).await.expect("etcd is up");
        }
        let (here, there) = if state == State::Serving { (serving, draining) } else { (draining, serving) };
        let ops = [TxnOp::put(here, self.record.encode(), lease()), TxnOp::delete(there, None)];
        self.client.txn(Txn::new().and_then(ops)).await.expect("etcd is up");
    }

    /// Takes its record away.
    pub(crate) async fn leave(&mut self) {
        self.client.lease_revoke(self.lease).await.expect("etcd is up");
    }
}

/// The value under a key.
pub(crate) async fn value(etcd: &TestEtcd, key: &str) -> Option<String> {
    let answer = etcd.client().await.get(key, None).await.expect("etcd is up");
    answer.kvs().first().map(|pair| pair.value_str().expect("UTF-8").to_owned())
}
