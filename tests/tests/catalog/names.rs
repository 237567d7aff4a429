//! What lies beside a service's records, or among them, harms nothing.

use svc_registry::catalog::Selector;
use svc_tests::etcd::TestEtcd;

use crate::view::{View, catalog, key, record, service};

svc_tests::etcd_tests! {
    async fn key_1_greeter_and_greeter_v2_are_never_mixed(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let catalog = catalog(&etcd.url());
        client.put(key("greeter-v2", 0), record(0, "two", 0), None).await.unwrap();
        let mut one = View::following(&catalog, "greeter").await;
        let mut two = View::following(&catalog, "greeter-v2").await;
        assert_eq!((one.present.len(), two.present.len()), (0, 1), "from the first list on");
        client.put(key("greeter-v2", 1), record(1, "two", 0), None).await.unwrap();
        client.put(key("greeter", 2), record(2, "one", 0), None).await.unwrap();
        one.until("greeter's is seen", |view| !view.present.is_empty()).await;
        two.until("greeter-v2's are seen", |view| view.present.len() == 2).await;
        assert!(one.versions().values().all(|v| v == "one") && two.versions().values().all(|v| v == "two"));
        let listed = catalog.list(Selector::service(service("greeter"))).await.unwrap();
        assert_eq!(listed.instances.len(), 1);
        assert_eq!(catalog.list(Selector::all()).await.unwrap().instances.len(), 3);
    }

    async fn bad_1_bad_values_are_skipped_and_reported_and_harm_nothing_else(etcd: TestEtcd) {
        let with = |field: &str| format!(r#"{{"state":"serving","address":"10.0.0.1:1",{field}}}"#).into_bytes();
        let address = |address: &str| format!(r#"{{"state":"serving","address":"{address}"}}"#).into_bytes();
        let bad: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            b"null".to_vec(),
            b"{\"state\":\"serv".to_vec(),
            b"\xff\xfe\x00".to_vec(),
            vec![b'x'; 1_400_000],
            br#"{"state":"serving"}"#.to_vec(),
            address("10.0.0.1:0"),
            address("10.0.0.1:70000"),
            with(r#""weight":-1"#),
            with(r#""weight":1000000000"#),
            with(r#""zone":"\u001b[2J""#),
        ];
        let mut client = etcd.client().await;
        let catalog = catalog(&etcd.url());
        // Half of them are there before, half come while it is watched.
        for (n, value) in bad.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
            client.put(key("greeter", n), value.clone(), None).await.unwrap();
        }
        client.put(key("greeter", 100), record(100, "good", 0), None).await.unwrap();
        let mut view = View::following(&catalog, "greeter").await;
        assert_eq!((view.present.len(), view.bad.len()), (1, bad.len().div_ceil(2)));
        for (n, value) in bad.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
            client.put(key("greeter", n), value.clone(), None).await.unwrap();
        }
        client.put(key("greeter", 101), record(101, "good", 0), None).await.unwrap();
        view.until("the good one is seen", |view| view.present.len() == 2).await;
        assert_eq!(view.bad.len(), bad.len(), "each is reported");

        let listed = catalog.list(Selector::all()).await.unwrap();
        assert_eq!((listed.instances.len(), listed.bad.len()), (2, bad.len()));
        let reasons: Vec<_> = listed.bad.iter().map(|bad| bad.reason.clone()).collect();
        assert!(reasons.iter().all(|r| !r.is_empty() && !r.chars().any(char::is_control)), "{reasons:?}");

        client.put(key("greeter", 0), record(0, "mended", 0), None).await.unwrap();
        view.until("a mended value counts", |view| view.present.len() == 3).await;
        assert_eq!(view.bad.len(), bad.len() - 1);
    }
}
