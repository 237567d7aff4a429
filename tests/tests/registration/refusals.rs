//! What etcd refuses, in the words of each version, and what we make of it: one table for all of them.

use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, Error as Refused, GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp,
};
use svc_registry::etcd::{Failure, classify};
use svc_registry::{Etcd, EtcdConfig};
use svc_tests::etcd::{Kind, Options, TestEtcd, run};

use crate::support::{LONG, connect};

svc_tests::etcd_tests! {
    async fn every_refusal_of_etcd_is_classified_and_named_with_the_remedy(etcd: TestEtcd) {
        let ours = connect(&etcd.url());
        let (mut kv, mut leases) = (ours.kv(), ours.leases());
        for n in 0..3 {
            kv.put("k", format!("{n}"), None).await.expect("etcd is up");
        }
        leases.grant(60, Some(LeaseGrantOptions::new().with_id(7))).await.expect("etcd is up");
        kv.compact(3, None).await.expect("etcd is up");
        let twice = Txn::new().when([Compare::version("k", CompareOp::Greater, 0)]).and_then([
            TxnOp::put("k", "1", None),
            TxnOp::put("k", "2", None),
        ]);
        let many: Vec<_> = (0..200).map(|n| TxnOp::put(format!("k{n}"), "1", None)).collect();
        let at = |revision| Some(GetOptions::new().with_revision(revision));
        let table: [(&str, Option<Refused>, Failure, &str); 8] = [
            ("a read before the compaction", kv.get("k", at(1)).await.err(), Failure::Compacted, "read again"),
            ("a read of the future", kv.get("k", at(99)).await.err(), Failure::FutureRevision, "read again"),
            ("a put on no lease", kv.put("k", "x", Some(PutOptions::new().with_lease(99))).await.err(),
                Failure::LeaseNotFound, "new one"),
            ("the end of no lease", leases.revoke(99).await.err(), Failure::LeaseNotFound, "new one"),
            ("a lease once more", leases.grant(60, Some(LeaseGrantOptions::new().with_id(7))).await.err(),
                Failure::LeaseExists, "another lease id"),
            ("a large value", kv.put("k", vec![b'x'; 1_900_000], None).await.err(), Failure::TooLarge, "split"),
            ("many operations", kv.txn(Txn::new().and_then(many)).await.err(), Failure::TooLarge, "split"),
            ("a key twice", kv.txn(twice).await.err(), Failure::Other, "message of etcd"),
        ];
        for (what, refused, failure, remedy) in table {
            let refused = refused.unwrap_or_else(|| panic!("{what} is refused"));
            assert_eq!(classify(&refused), failure, "{what}: {refused}");
            let error = ours.error(what, refused);
            let text = error.to_string();
            assert!(text.contains(what) && text.contains(remedy) && text.contains(&etcd.address()), "{text}");
            assert_eq!(error.is_compacted(), failure == Failure::Compacted, "{text}");
            assert_eq!(error.is_lease_gone(), failure == Failure::LeaseNotFound, "{text}");
            assert_eq!(error.is_too_large(), failure == Failure::TooLarge, "{text}");
        }
    }

    /// Two endpoints: at one is an etcd, at the other nobody listens.
    async fn an_error_names_the_member_that_answered_or_was_asked_and_no_other(etcd: TestEtcd) {
        let nobody = format!("127.0.0.1:{}", svc_tests::ports::free_port());
        let config = EtcdConfig::new([etcd.address(), nobody.clone()]).expect("addresses");
        let config = config.with_command_timeout(Duration::from_secs(2)).expect("in bounds");
        let ours = Etcd::new(config).expect("inside a runtime");
        ours.ready(LONG).await.expect("one is up");
        let names = |error: &svc_registry::Error, address: &str| error.to_string().contains(address);
        let refused = ours.error("revoking", ours.leases().revoke(99).await.expect_err("there is none"));
        assert!(names(&refused, &etcd.address()) && !names(&refused, &nobody), "{refused}");
        // It listens and is silent: it was asked, and nobody answered.
        etcd.freeze();
        let late = ours.error("putting", ours.kv().put("k", "v", None).await.expect_err("it is frozen"));
        assert!(late.is_timeout(), "{late}");
        assert!(names(&late, &etcd.address()) && !names(&late, &nobody), "{late}");
        etcd.thaw();
        etcd.kill().await;
        // What was under way is lost with it; what comes then has nobody to ask.
        let begin = std::time::Instant::now();
        loop {
            let lost = ours.kv().put("k", "v", None).await.err().map(|lost| ours.error("putting", lost));
            if lost.as_ref().is_some_and(|lost| names(lost, &etcd.address()) && names(lost, &nobody)) {
                break;
            }
            assert!(begin.elapsed() < LONG, "all endpoints are named: {lost:?}");
        }
    }
}

async fn a_full_etcd_says_so(etcd: TestEtcd) {
    let ours = connect(&etcd.url());
    let refused = async {
        for n in 0.. {
            if let Err(refused) = ours.kv().put(format!("k{n}"), vec![b'x'; 1_000_000], None).await {
                return refused;
            }
        }
        unreachable!("a quota of 8 MiB is full some time")
    };
    let error = ours.error("filling it", refused.await);
    assert!(error.is_no_space() && error.to_string().contains("disarm"), "{error}");
    ours.kv().get("k0", None).await.expect("reads go on");
}

async fn a_denied_request_names_its_keys(etcd: TestEtcd) {
    let mut root = etcd.client().await;
    for user in ["root", "me"] {
        root.user_add(user, "pw", None).await.expect("no users yet");
    }
    root.role_add("root").await.expect("no roles yet");
    root.user_grant_role("root", "root").await.expect("both are there");
    root.auth_enable().await.expect("there is a root");
    let config = EtcdConfig::new([etcd.url()]).expect("an address");
    let me = Etcd::new(config.clone().with_user("me", "pw").expect("good")).expect("inside a runtime");
    let denied =
        me.kv().get("/services/greeter/", Some(GetOptions::new().with_prefix())).await.expect_err("denied");
    let error = me.error("listing", denied);
    assert!(error.is_denied() && !error.is_auth_failed(), "{error}");
    assert!(error.to_string().contains("read /services/greeter/*"), "{error}");
    let denied = me.kv().put("/services/greeter/i-1", "x", None).await.expect_err("denied");
    let error = me.error("registering", denied);
    assert!(error.to_string().contains("write /services/greeter/i-1"), "{error}");
    // Without a user where one is wanted.
    let nobody = Etcd::new(config).expect("inside a runtime");
    let refused = nobody.kv().get("k", None).await.expect_err("refused");
    let error = nobody.error("reading", refused);
    assert!(error.is_denied() && error.is_auth_failed() && error.to_string().contains("--user"), "{error}");
}

fn small() -> Options {
    Options { arguments: vec!["--quota-backend-bytes=8388608".into()], ..Options::default() }
}

#[test]
fn a_full_etcd_says_so_etcd_3_4() {
    run(Kind::Etcd34, &small(), a_full_etcd_says_so);
}

#[test]
fn a_full_etcd_says_so_etcd_3_5() {
    run(Kind::Etcd35, &small(), a_full_etcd_says_so);
}

#[test]
fn a_denied_request_names_its_keys_etcd_3_4() {
    run(Kind::Etcd34, &Options::default(), a_denied_request_names_its_keys);
}

#[test]
fn a_denied_request_names_its_keys_etcd_3_5() {
    run(Kind::Etcd35, &Options::default(), a_denied_request_names_its_keys);
}
