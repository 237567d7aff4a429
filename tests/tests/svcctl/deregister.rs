//! `deregister`: a wish to those who live, a guarded deletion of what nobody owns.

use svc_tests::etcd::TestEtcd;
use svcctl::Exit;

use crate::bench::{Paper, svcctl, value};

svc_tests::etcd_tests! {
    async fn an_owned_record_is_never_touched_its_owner_is_asked(etcd: TestEtcd) {
        let _instances = [Paper::register(&etcd, "greeter", "g-1").await, Paper::register(&etcd, "greeter", "g-2").await];
        let before = value(&etcd, "/services/greeter/g-1").await;
        let ran = svcctl(&etcd.url(), &["deregister", "greeter", "g-1"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        assert!(ran.err.contains("svcctl undrain greeter g-1"), "how it comes back: {}", ran.err);
        assert_eq!(value(&etcd, "/services/greeter/g-1").await, before);
        let wish = value(&etcd, "/services-control/drain/greeter/g-1").await.expect("a wish");
        assert!(wish.contains(r#""then":"remove""#), "{wish}");
        let drained = svcctl(&etcd.url(), &["drain", "greeter", "g-1"]).await;
        assert_eq!(drained.exit, Exit::Ok);
        let wish = value(&etcd, "/services-control/drain/greeter/g-1").await.expect("a wish");
        assert!(wish.contains(r#""then":"remove""#), "the stronger wish stays: {wish}");
    }

    async fn a_record_without_a_lease_is_deleted(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.put("/services/legacy/a:1", "10.0.0.7:8080", None).await.expect("etcd is up");
        client.put("/services/legacy/b:1", "10.0.0.8:8080", None).await.expect("etcd is up");
        let ran = svcctl(&etcd.url(), &["deregister", "legacy", "a:1"]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "legacy/a:1 deleted; its record had no owner\n"));
        assert_eq!(value(&etcd, "/services/legacy/a:1").await, None);
        let ran = svcctl(&etcd.url(), &["deregister", "legacy", "b:1"]).await;
        assert_eq!(ran.exit, Exit::Refused, "the last one: {ran:?}");
        let ran = svcctl(&etcd.url(), &["deregister", "legacy", "b:1", "--force"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let ran = svcctl(&etcd.url(), &["deregister", "legacy", "b:1"]).await;
        assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
    }

    async fn the_last_that_serves_is_asked_to_leave_only_with_force(etcd: TestEtcd) {
        let _one = Paper::register(&etcd, "greeter", "g-1").await;
        let ran = svcctl(&etcd.url(), &["deregister", "greeter", "g-1"]).await;
        assert_eq!(ran.exit, Exit::Refused, "{ran:?}");
        let ran = svcctl(&etcd.url(), &["deregister", "greeter", "g-1", "--force"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
    }
}
