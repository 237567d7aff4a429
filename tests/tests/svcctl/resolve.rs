//! `resolve`: whom a client would call, and why not the others.

use serde_json::json;
use svc_registry::State;
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;

use crate::bench::{Paper, svcctl};

svc_tests::etcd_tests! {
    async fn who_is_left_out_is_shown_with_the_reason(etcd: TestEtcd) {
        let _serving = Paper::register(&etcd, "greeter", "g-1").await;
        let mut drained = Paper::register(&etcd, "greeter", "g-2").await;
        drained.shows(State::Drained, Some(0)).await;
        let ran = svcctl(&etcd.url(), &["resolve", "greeter", "-o", "json"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let got = ran.json();
        assert_eq!(got["target"], "greeter");
        let of = |n: usize| (got["candidates"][n]["id"].clone(), got["candidates"][n]["excluded"].clone());
        assert_eq!(of(0), (json!("g-1"), json!(null)));
        assert_eq!(of(1), (json!("g-2"), json!("it is drained")));
        let table = svcctl(&etcd.url(), &["resolve", "etcd:///greeter"]).await.out;
        assert!(table.contains("yes") && table.contains("no: it is drained"), "{table}");
    }

    async fn nobody_to_call_is_exit_3(etcd: TestEtcd) {
        let ran = svcctl(&etcd.url(), &["resolve", "greeter"]).await;
        assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
        assert!(ran.err.contains("nobody to call"), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_static_target_needs_no_etcd() {
    let ran = svcctl("127.0.0.1:1", &["resolve", "static:///127.0.0.1:1,127.0.0.1:2", "-o", "json"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
    assert_eq!(ran.json()["candidates"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_bad_target_is_refused_with_the_remedy() {
    for (target, part) in [
        ("ftp://h/greeter", "scheme"),
        ("etcd:///", "etcd:///greeter"),
        ("a b", "service"),
        ("", "etcd:///greeter"),
    ] {
        let ran = svcctl("127.0.0.1:1", &["resolve", target]).await;
        assert_eq!(ran.exit, Exit::Usage, "{target:?}: {ran:?}");
        assert!(ran.err.contains(part), "{target:?}: {}", ran.err);
    }
}
