//! `services` and `get`: both record roots, one entry an id, bad records named, nothing obeyed by a terminal.

use serde_json::json;
use svc_registry::State;
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;

use crate::bench::{Paper, svcctl};

svc_tests::etcd_tests! {
    async fn both_roots_are_listed_in_the_shape_of_the_contract(etcd: TestEtcd) {
        let mut one = Paper::register(&etcd, "greeter", "g-1").await;
        let _two = Paper::register(&etcd, "greeter", "g-2").await;
        let _other = Paper::register(&etcd, "greeter-v2", "g-1").await;
        one.shows(State::Draining, Some(3)).await;

        let ran = svcctl(&etcd.url(), &["get", "greeter", "-o", "json"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        let got = ran.json();
        assert!(got["revision"].as_i64() > Some(0));
        assert_eq!(got["bad"], json!([]));
        let of = |id: &str, state: &str, inflight: serde_json::Value, lease: i64| {
            json!({"service": "greeter", "id": id, "address": "127.0.0.1:50051", "state": state, "weight": 100,
                   "zone": null, "version": null, "tags": {}, "inflight": inflight, "lease": format!("{lease:x}"),
                   "ttl_s": 60, "incarnation": "000000000000feed", "started_at": null, "drain": null,
                   "reason": null})
        };
        let expected = [of("g-1", "draining", json!(3), one.lease), of("g-2", "serving", json!(null), _two.lease)];
        assert_eq!(got["instances"], json!(expected), "greeter-v2 is not mixed in");

        let ran = svcctl(&etcd.url(), &["-o", "json", "services"]).await;
        assert_eq!(ran.json(), json!({"services": [
            {"name": "greeter", "serving": 1, "draining": 1, "drained": 0, "bad": 0},
            {"name": "greeter-v2", "serving": 1, "draining": 0, "drained": 0, "bad": 0},
        ]}));
        assert_eq!(ran.err, "", "results only");
    }

    async fn an_unknown_service_is_an_empty_answer_and_exit_3(etcd: TestEtcd) {
        let ran = svcctl(&etcd.url(), &["get", "greeter", "-o", "json"]).await;
        assert_eq!(ran.exit, Exit::NotFound);
        let got = ran.json();
        assert_eq!((&got["instances"], &got["bad"]), (&json!([]), &json!([])));
        assert!(ran.err.contains("no instance of greeter under /services/"), "{}", ran.err);
        let ran = svcctl(&etcd.url(), &["services"]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "no services\n"));
    }

    async fn a_wrong_prefix_is_named(etcd: TestEtcd) {
        let _one = Paper::register(&etcd, "greeter", "g-1").await;
        let ran = svcctl(&etcd.url(), &["get", "greeter", "--prefix", "/elsewhere"]).await;
        assert_eq!(ran.exit, Exit::NotFound);
        assert!(ran.err.contains("/elsewhere/"), "{}", ran.err);
    }

    async fn cli_2_terminal_escapes_in_values_are_printed_escaped(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let record = |version: &str| {
            format!(r#"{{"Op":0,"Addr":"127.0.0.1:1","version":"{version}","state":"serving"}}"#)
        };
        client.put("/services/greeter/g-1", record("1"), None).await.expect("etcd is up");
        client.put("/services/greeter/g-3", record(r"\u001b[2J\u009b31m"), None).await.expect("etcd is up");
        client.put("/services/greeter/\u{1b}]0;x\u{7}", "127.0.0.1:2", None).await.expect("etcd is up");
        let wish = r#"{"reason":"\u001b[2J\u009b31m"}"#;
        client.put("/services-control/drain/greeter/g-1", wish, None).await.expect("etcd is up");
        client.put("/services/greeter/g-2", "not an address \u{1b}[31m", None).await.expect("etcd is up");
        for output in ["table", "json"] {
            let ran = svcctl(&etcd.url(), &["get", "greeter", "-o", output]).await;
            assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
            let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!ran.out.contains(obeyed) && !ran.err.contains(obeyed), "{output}: {:?}", ran.out);
            assert!(ran.out.contains("g-1") && ran.out.contains("g-2"), "the bad one is named: {}", ran.out);
        }
        let got = svcctl(&etcd.url(), &["get", "greeter", "-o", "json"]).await.json();
        assert_eq!(got["instances"][0]["drain"]["reason"], "\u{1b}[2J\u{9b}31m", "JSON keeps the value");
        assert_eq!(got["bad"].as_array().map(Vec::len), Some(3), "{got}");
    }
}
