//! What the tests of the write side share: a look at etcd from outside our code, and instances to register.

use std::time::{Duration, Instant};

use etcd_client::{Client, KeyValue};
use svc_registry::{
    Etcd, EtcdConfig, Instance, Registrar, RegistrarConfig, Registration, RegistrationStatus,
};
use svc_tests::etcd::TestEtcd;
use svc_tests::process::Process;

/// The shortest bound of a fault test (five times one second).
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A wait that is no law: for something that has to be so before the fault.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The record of `i-1`.
pub(crate) const KEY: &str = "/services/greeter/i-1";

pub(crate) fn connect(url: &str) -> Etcd {
    Etcd::new(EtcdConfig::new([url]).expect("a URL")).expect("inside a runtime")
}

/// A registrar whose leases live for `ttl` seconds.
pub(crate) fn registrar(url: &str, ttl: u64) -> Registrar {
    let config = RegistrarConfig { ttl: Duration::from_secs(ttl), ..RegistrarConfig::default() };
    Registrar::with_config(&connect(url), config).expect("a valid configuration")
}

pub(crate) fn instance(id: &str) -> Instance {
    Instance::new("greeter", id, "10.0.0.1:50051").expect("valid")
}

/// Registers an instance and waits until it is.
pub(crate) async fn registered(registrar: &Registrar, id: &str) -> Registration {
    let registration = registrar.register(instance(id));
    until_status("registered", &registration, RegistrationStatus::is_registered).await;
    registration
}

pub(crate) async fn until_status(
    what: &str,
    registration: &Registration,
    wanted: impl FnMut(&RegistrationStatus) -> bool,
) {
    let mut status = registration.status();
    let waited = tokio::time::timeout(LONG, status.wait_for(wanted)).await;
    assert!(waited.is_ok(), "it is not {what}: {:?}", registration.status().borrow().clone());
}

/// A greeter of `Serve` in a process of its own, its record in etcd.
pub(crate) async fn service(etcd: &TestEtcd, look: &mut Look, id: &str, ttl: u64) -> Process {
    let program = env!("CARGO_BIN_EXE_service");
    let process = Process::spawn(program, &[&etcd.url(), id, &ttl.to_string()]);
    let address = process.line().to_owned();
    let key = format!("/services/greeter/{id}");
    look.until(LONG, &format!("{id} is registered"), &key, |kv| {
        kv.is_some_and(|kv| value(kv)["address"] == address.as_str())
    })
    .await;
    process
}

pub(crate) fn value(kv: &KeyValue) -> serde_json::Value {
    serde_json::from_slice(kv.value()).unwrap_or_default()
}

/// etcd as somebody else sees it.
pub(crate) struct Look {
    pub(crate) client: Client,
}

impl Look {
    pub(crate) async fn at(etcd: &TestEtcd) -> Look {
        Look { client: etcd.client().await }
    }

    pub(crate) async fn get(&mut self, key: &str) -> Option<KeyValue> {
        // A client that has just lost its etcd needs a moment; the tests ask again.
        let mut found = self.client.get(key, None).await.ok()?;
        found.take_kvs().pop()
    }

    /// The key, which is there.
    pub(crate) async fn there(&mut self, key: &str) -> KeyValue {
        self.get(key).await.unwrap_or_else(|| panic!("{key} is there"))
    }

    /// Looks until a key is as wanted; the time that it took.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        key: &str,
        mut wanted: impl FnMut(Option<&KeyValue>) -> bool,
    ) -> Duration {
        let begin = Instant::now();
        loop {
            // An answer is owed: no answer is neither there nor gone.
            let found = self.client.get(key, None).await.map(|mut found| found.take_kvs().pop());
            if let Ok(found) = &found
                && wanted(found.as_ref())
            {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < limit, "not within {limit:?}: {what}; now {found:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn until_there(&mut self, limit: Duration, key: &str) -> Duration {
        self.until(limit, &format!("{key} is there"), key, |kv| kv.is_some()).await
    }

    pub(crate) async fn until_gone(&mut self, limit: Duration, key: &str) -> Duration {
        self.until(limit, &format!("{key} is gone"), key, |kv| kv.is_none()).await
    }

    /// How many leases there are.
    pub(crate) async fn leases(&mut self) -> usize {
        self.client.leases().await.expect("etcd is up").leases().len()
    }
}

pub(crate) fn report(what: &str, took: Duration) {
    println!("{what}: {} ms", took.as_millis());
}

/// The sum of a real etcd's metrics whose lines begin so. `None` for the embedded one, which has no such page.
pub(crate) async fn counted(etcd: &TestEtcd, line: &str) -> Option<f64> {
    if etcd.embedded().is_some() {
        return None;
    }
    Some(svc_tests::etcd::counted(&etcd.address(), line).await.expect("etcd is up"))
}

/// How many watches etcd has.
pub(crate) async fn watches(etcd: &TestEtcd) -> u64 {
    match etcd.embedded() {
        Some(embedded) => embedded.hooks().watch_count() as u64,
        None => counted(etcd, "etcd_debugging_mvcc_watcher_total").await.unwrap_or_default() as u64,
    }
}
