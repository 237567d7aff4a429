//! `set`: what an operator overrides is what the instance registers, until it is taken back.

use std::time::Duration;

use svc_registry::{Etcd, EtcdConfig, Instance, Registrar, Registration};
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;
use tokio::time::{Instant, sleep};

use crate::bench::{svcctl, value};

const KEY: &str = "/services/greeter/g-1";
const OVERRIDE: &str = "/services-control/set/greeter/g-1";

fn start(etcd: &TestEtcd) -> Registration {
    let etcd = Etcd::new(EtcdConfig::new([etcd.address()]).expect("valid")).expect("a runtime");
    let instance = Instance::new("greeter", "g-1", "127.0.0.1:50051").expect("valid");
    Registrar::new(&etcd).register(instance.with_zone("a").with_tag("team", "blue"))
}

/// Waits until the record is as wanted; its value.
async fn until(
    etcd: &TestEtcd,
    what: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let record = value(etcd, KEY).await.unwrap_or_default();
        let record = serde_json::from_str(&record).unwrap_or_default();
        if wanted(&record) {
            return record;
        }
        assert!(Instant::now() < limit, "not {what}: {record}");
        sleep(Duration::from_millis(10)).await;
    }
}

svc_tests::etcd_tests! {
    async fn an_override_holds_over_restarts_until_it_is_taken_back(etcd: TestEtcd) {
        let registration = start(&etcd);
        let before = until(&etcd, "registered", |record| record["weight"] == 100).await;
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--weight", "7", "--tag", "team=red"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        assert!(ran.out.contains(r#"{"weight":7,"tags":{"team":"red"}}"#), "{ran:?}");
        until(&etcd, "overridden", |record| record["weight"] == 7 && record["tags"]["team"] == "red").await;
        // What a later one does not name stays.
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--zone", "b", "--untag", "team"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let record = until(&etcd, "in zone b", |record| record["zone"] == "b").await;
        assert_eq!((record["weight"].clone(), record["tags"].get("team")), (7.into(), None));

        registration.deregister(Duration::from_secs(5)).await.expect("etcd is up");
        let registration = start(&etcd);
        until(&etcd, "overridden after a restart", |record| record["weight"] == 7).await;
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--clear"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let after = until(&etcd, "as started", |record| record["weight"] == 100).await;
        assert_eq!((&after["zone"], &after["tags"]), (&before["zone"], &before["tags"]));
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--clear"]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "greeter/g-1 had no override\n"), "{ran:?}");
        drop(registration);
    }

    async fn an_override_with_a_ttl_ends_by_itself(etcd: TestEtcd) {
        let registration = start(&etcd);
        until(&etcd, "registered", |record| record["weight"] == 100).await;
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--weight", "7", "--ttl", "1s"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        until(&etcd, "overridden", |record| record["weight"] == 7).await;
        until(&etcd, "as started", |record| record["weight"] == 100).await;
        assert_eq!(value(&etcd, OVERRIDE).await, None);
        drop(registration);
    }

    async fn an_override_for_nobody_is_refused(etcd: TestEtcd) {
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--weight", "7"]).await;
        assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--clear"]).await;
        assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
        etcd.client().await.put(KEY, "10.0.0.7:8080", None).await.expect("etcd is up");
        let ran = svcctl(&etcd.url(), &["set", "greeter", "g-1", "--weight", "7"]).await;
        assert_eq!(ran.exit, Exit::Refused, "its owner does not obey: {ran:?}");
        assert_eq!(value(&etcd, OVERRIDE).await, None);
    }
}
