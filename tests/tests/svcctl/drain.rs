//! `drain` and `undrain`: the wish, its guards, and the waiting.

use std::time::Duration;

use serde_json::json;
use svc_registry::State;
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;

use crate::bench::{Captured, Paper, svcctl, svcctl_into, value};

const INTENT: &str = "/services-control/drain/greeter/g-1";

svc_tests::etcd_tests! {
    async fn a_drain_is_a_wish_that_undrain_takes_back(etcd: TestEtcd) {
        let _instances = [Paper::register(&etcd, "greeter", "g-1").await, Paper::register(&etcd, "greeter", "g-2").await];
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--reason", "kernel", "-o", "json"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        assert_eq!(ran.json()["drain"]["reason"], "kernel");
        let wish: serde_json::Value = serde_json::from_str(&value(&etcd, INTENT).await.expect("a wish")).unwrap();
        assert_eq!((&wish["reason"], &wish["then"]), (&json!("kernel"), &json!("stay")));
        assert!(wish["by"].is_string() && wish["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{wish}");
        let shown = svcctl(&etcd.url(), &["get", "greeter"]).await;
        assert!(shown.out.contains(": kernel"), "{}", shown.out);

        let ran = svcctl(&etcd.url(), &["undrain", "greeter", "g-1"]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "greeter/g-1 undrained\n"));
        assert_eq!(value(&etcd, INTENT).await, None);
        let again = svcctl(&etcd.url(), &["undrain", "greeter", "g-1"]).await;
        assert_eq!((again.exit, again.out.as_str()), (Exit::Ok, "greeter/g-1 was not drained\n"));
    }

    async fn cli_3_the_last_that_serves_needs_force(etcd: TestEtcd) {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let of_another_service = Paper::register(&etcd, "greeter-v2", "g-3").await;
        // A wish counts before it is obeyed: the other one is about to be gone.
        assert_eq!(svcctl(&etcd.url(), &["drain", "greeter", "g-2"]).await.exit, Exit::Ok);
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1"]).await;
        assert_eq!(ran.exit, Exit::Refused, "{ran:?}");
        assert!(ran.err.contains("--force"), "{}", ran.err);
        assert_eq!(value(&etcd, INTENT).await, None, "nothing was written");
        assert_eq!(svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--force"]).await.exit, Exit::Ok);
        one.shows(State::Draining, Some(0)).await;
        assert_eq!(svcctl(&etcd.url(), &["drain", "greeter", "g-1"]).await.exit, Exit::Ok, "it is draining already");
        drop(of_another_service);
    }

    async fn cli_3_two_operators_cannot_drain_the_last_two_at_once(etcd: TestEtcd) {
        for _ in 0..10 {
            let _one = Paper::register(&etcd, "greeter", "g-1").await;
            let _two = Paper::register(&etcd, "greeter", "g-2").await;
            let url = etcd.url();
            let (a, b) =
                tokio::join!(svcctl(&url, &["drain", "greeter", "g-1"]), svcctl(&url, &["drain", "greeter", "g-2"]));
            let mut exits = [a.exit.code(), b.exit.code()];
            exits.sort_unstable();
            assert_eq!(exits, [Exit::Ok.code(), Exit::Refused.code()], "{a:?} {b:?}");
            svcctl(&url, &["undrain", "greeter", "g-1"]).await;
            svcctl(&url, &["undrain", "greeter", "g-2"]).await;
        }
    }

    async fn cli_3_an_unknown_id_is_an_error_that_lists_the_known(etcd: TestEtcd) {
        let _one = Paper::register(&etcd, "greeter", "g-1").await;
        for command in ["drain", "undrain", "deregister"] {
            let ran = svcctl(&etcd.url(), &[command, "greeter", "g-9"]).await;
            assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
            assert!(ran.err.contains("no instance g-9 of greeter; it has g-1"), "{}", ran.err);
            let ran = svcctl(&etcd.url(), &[command, "nobody", "g-1"]).await;
            assert_eq!(ran.exit, Exit::NotFound, "{ran:?}");
        }
        assert_eq!(value(&etcd, "/services-control/drain/greeter/g-9").await, None);
    }

    async fn cli_3_draining_twice_is_draining_once(etcd: TestEtcd) {
        let _instances = [Paper::register(&etcd, "greeter", "g-1").await, Paper::register(&etcd, "greeter", "g-2").await];
        for reason in ["first", "second"] {
            let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--reason", reason]).await;
            assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        }
        assert!(value(&etcd, INTENT).await.expect("a wish").contains("second"));
    }

    async fn waiting_shows_the_calls_in_flight_until_none_is_left(etcd: TestEtcd) {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let (out, err) = (Captured::default(), Captured::default());
        let url = etcd.url();
        let waiting = svcctl_into(&url, &["drain", "greeter", "g-1", "--wait"], &out, &err, std::future::pending());
        let instance = async {
            err.shows("greeter/g-1 draining").await;
            one.shows(State::Draining, Some(2)).await;
            err.shows("2 calls in flight").await;
            one.shows(State::Draining, Some(1)).await;
            err.shows("1 call in flight").await;
            assert_eq!(out.text(), "", "not yet");
            one.shows(State::Drained, Some(0)).await;
        };
        let (exit, ()) = tokio::join!(waiting, instance);
        assert_eq!((exit, out.text().as_str()), (Exit::Ok, "greeter/g-1 drained\n"));
    }

    async fn cli_3_a_wait_that_ends_leaves_the_wish_and_says_so(etcd: TestEtcd) {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        one.shows(State::Draining, Some(7)).await;
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--wait", "--timeout", "300ms"]).await;
        assert_eq!(ran.exit, Exit::TimedOut, "{ran:?}");
        assert!(ran.err.contains("the drain stays") && ran.err.contains("undrain greeter g-1"), "{}", ran.err);
        assert!(value(&etcd, INTENT).await.is_some());

        let (out, err) = (Captured::default(), Captured::default());
        let seen = err.clone();
        let enough = async move { seen.shows("7 calls in flight").await };
        let exit = svcctl_into(&etcd.url(), &["drain", "greeter", "g-1", "--wait"], &out, &err, enough).await;
        assert_eq!(exit, Exit::Other);
        assert!(err.text().contains("no longer waiting") && err.text().contains("the drain stays"), "{}", err.text());
        assert!(value(&etcd, INTENT).await.is_some());
    }

    async fn a_wait_ends_when_the_instance_leaves_or_is_undrained(etcd: TestEtcd) {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let (out, err) = (Captured::default(), Captured::default());
        let url = etcd.url();
        let waiting = svcctl_into(&url, &["drain", "greeter", "g-1", "--wait"], &out, &err, std::future::pending());
        let other = async {
            err.shows("draining").await;
            svcctl(&url, &["undrain", "greeter", "g-1"]).await
        };
        let (exit, _) = tokio::join!(waiting, other);
        assert_eq!(exit, Exit::Other);
        assert!(err.text().contains("undrained meanwhile"), "{}", err.text());

        let (out, err) = (Captured::default(), Captured::default());
        let waiting = svcctl_into(&url, &["drain", "greeter", "g-1", "--wait"], &out, &err, std::future::pending());
        let leaving = async {
            err.shows("draining").await;
            one.leave().await;
        };
        let (exit, ()) = tokio::join!(waiting, leaving);
        assert_eq!((exit, out.text().as_str()), (Exit::Ok, "greeter/g-1 gone\n"));
    }

    async fn a_drain_with_a_ttl_ends_by_itself(etcd: TestEtcd) {
        let _instances = [Paper::register(&etcd, "greeter", "g-1").await, Paper::register(&etcd, "greeter", "g-2").await];
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--ttl", "2s"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        assert!(value(&etcd, INTENT).await.is_some());
        let limit = tokio::time::Instant::now() + Duration::from_secs(30);
        while value(&etcd, INTENT).await.is_some() {
            assert!(tokio::time::Instant::now() < limit, "the wish outlives its ttl");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn a_foreign_instance_is_left_out_but_cannot_be_waited_for(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        client.put("/services/greeter/tcp@10.0.0.1:1", "10.0.0.1:1", None).await.expect("etcd is up");
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "tcp@10.0.0.1:1", "--wait"]).await;
        assert_eq!(ran.exit, Exit::Refused, "{ran:?}");
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "tcp@10.0.0.1:1"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        assert!(value(&etcd, "/services-control/drain/greeter/tcp@10.0.0.1:1").await.is_some());
    }
}

/// The two roots are watched apart: an instance on its way to the other one seemed gone, and the wait over, with calls in flight.
#[test]
fn cli_3_an_instance_between_the_two_roots_is_waited_for() {
    svc_tests::etcd::run(svc_tests::etcd::Kind::Embedded, &Default::default(), async |etcd: TestEtcd| {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let (out, err) = (Captured::default(), Captured::default());
        let url = etcd.url();
        let waiting =
            svcctl_into(&url, &["drain", "greeter", "g-1", "--wait"], &out, &err, std::future::pending());
        let instance = async {
            err.shows("greeter/g-1 draining").await;
            // What is told of the first root comes, what is told of the second does not.
            etcd.embedded().expect("the embedded one").hooks().lose_events("/services-draining/greeter/", 1);
            one.shows(State::Draining, Some(2)).await;
            err.shows("2 calls in flight").await;
            // The catalog waits a second for the other half of a move, and then says that the instance is gone.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert_eq!(out.text(), "", "not yet");
            one.shows(State::Drained, Some(0)).await;
        };
        let (exit, ()) = tokio::join!(waiting, instance);
        assert_eq!((exit, out.text().as_str()), (Exit::Ok, "greeter/g-1 drained\n"));
    });
}
