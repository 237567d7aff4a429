//! The watch survives whatever happens to the link and to etcd.

use std::collections::BTreeMap;

use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::{Client, Txn, TxnOp};
use svc_tests::etcd::TestEtcd;

use crate::view::{View, catalog, key, record};

async fn put(client: &mut Client, n: usize, version: &str) {
    client.put(key("greeter", n), record(n, version, 0), None).await.expect("etcd takes it");
}

/// What etcd holds of greeter, by id, read past our code.
async fn truth(client: &mut Client) -> BTreeMap<String, String> {
    let options = etcd_client::GetOptions::new().with_prefix();
    let answer = client.get("/services/greeter/", Some(options)).await.expect("etcd answers");
    let pairs = answer.kvs().iter().map(|kv| {
        let id = kv.key_str().expect("UTF-8").rsplit('/').next().expect("an id").to_owned();
        let value: serde_json::Value = serde_json::from_slice(kv.value()).expect("JSON");
        (id, value["version"].as_str().expect("a version").to_owned())
    });
    pairs.collect()
}

svc_tests::etcd_tests! {
    async fn watch_1_link_cut_a_thousand_changes_compaction_link_back(etcd: TestEtcd) {
        let proxy = Proxy::start(etcd.address()).await.unwrap();
        let mut client = etcd.client().await;
        for n in 0..20 {
            put(&mut client, n, "a").await;
        }
        let catalog = catalog(&proxy.url());
        let mut view = View::following(&catalog, "greeter").await;
        assert_eq!(view.present.len(), 20);

        proxy.set(Mode::Reset);
        view.until("the outage is seen", |view| !view.fresh).await;
        for change in 0..990 {
            // Most of them are changed again and again; what counts is what they hold in the end.
            put(&mut client, change % 12, &format!("b{change}")).await;
        }
        for n in 15..19 {
            client.delete(key("greeter", n), None).await.unwrap();
        }
        for n in 20..26 {
            put(&mut client, n, "new").await;
        }
        let revision = client.get("/", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
        proxy.set(Mode::Pass);

        let expected = truth(&mut client).await;
        view.until("the exact set is there", |view| view.versions() == expected).await;
        assert_eq!(view.differences(), 12 + 4 + 6, "only differences are emitted");
        put(&mut client, 19, "after").await;
        view.until("the watch goes on", |view| view.versions()["i-0019"] == "after").await;
        assert_eq!(view.differences(), 12 + 4 + 6 + 1);
    }

    async fn watch_2_a_quiet_service_lives_through_compaction_and_restart(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, 0, "a").await;
        let catalog = catalog(&etcd.url());
        let mut view = View::following(&catalog, "greeter").await;
        for round in 0..3 {
            for n in 0..200 {
                client.put(key("busy", n % 7), record(n, "b", 0), None).await.unwrap();
            }
            let revision = client.get("/", None).await.unwrap().header().unwrap().revision();
            client.compact(revision, None).await.unwrap();
            etcd.kill().await;
            etcd.start().await;
            client = etcd.client().await;
            put(&mut client, 0, &format!("b{round}")).await;
            let expected = truth(&mut client).await;
            view.until("the quiet service is followed", |view| view.versions() == expected).await;
        }
        assert_eq!(view.differences(), 3);
    }

    async fn watch_3_etcd_killed_and_restarted_resumes_where_it_was(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        put(&mut client, 0, "a").await;
        let catalog = catalog(&etcd.url());
        let mut view = View::following(&catalog, "greeter").await;
        put(&mut client, 1, "a").await;
        view.until("the watch runs", |view| view.present.len() == 2).await;
        for round in 0..3 {
            etcd.kill().await;
            view.until("the outage is seen", |view| !view.fresh).await;
            assert_eq!(view.present.len(), 2 + round, "the last known set stays");
            etcd.start().await;
            let mut client = etcd.client().await;
            put(&mut client, 10 + round, "a").await;
            put(&mut client, 0, &format!("b{round}")).await;
            let expected = truth(&mut client).await;
            view.until("it goes on", |view| view.fresh && view.versions() == expected).await;
        }
        // `View` asserts with each change that it is one; here that none was told twice.
        assert_eq!(view.differences(), 1 + 3 * 2, "nothing lost, nothing doubled");
    }

    async fn watch_11_a_wiped_store_is_found_also_when_it_grew_past_our_revision(etcd: TestEtcd) {
        let proxy = Proxy::start(etcd.address()).await.unwrap();
        let mut client = etcd.client().await;
        for n in 0..4 {
            put(&mut client, n, "a").await;
        }
        let catalog = catalog(&proxy.url());
        let mut view = View::following(&catalog, "greeter").await;
        // None, a few and many more revisions than before, and once in another cluster.
        for (round, revisions) in [0, 3, 500, 40].into_iter().enumerate() {
            proxy.set(Mode::Reset);
            view.until("the outage is seen", |view| !view.fresh).await;
            if round == 3 {
                etcd.wipe_to_another_cluster().await;
            } else {
                etcd.wipe().await;
            }
            etcd.start().await;
            client = etcd.client().await;
            for n in 0..revisions {
                put(&mut client, 2 + n % 8, &format!("r{round}")).await;
            }
            let expected = truth(&mut client).await;
            proxy.set(Mode::Pass);
            view.until("the new store is seen", |view| view.fresh && view.versions() == expected).await;
            put(&mut client, 0, &format!("after {round}")).await;
            let expected = truth(&mut client).await;
            view.until("its watch runs", |view| view.versions() == expected).await;
        }
    }

    async fn watch_13_a_resume_over_16_mb_and_a_transaction_of_100_keys(etcd: TestEtcd) {
        let proxy = Proxy::start(etcd.address()).await.unwrap();
        let mut client = etcd.client().await;
        put(&mut client, 0, "a").await;
        let catalog = catalog(&proxy.url());
        let mut view = View::following(&catalog, "greeter").await;
        proxy.set(Mode::Reset);
        view.until("the outage is seen", |view| !view.fresh).await;
        for n in 0..320 {
            let value = record(n % 160, &format!("v{n}"), 52 * 1024);
            client.put(key("greeter", n % 160), value, None).await.unwrap();
        }
        proxy.set(Mode::Pass);
        let expected = truth_of(&mut client, 160).await;
        view.until("all of it was taken", |view| view.versions() == expected).await;

        let steps = view.steps.len();
        let puts: Vec<_> = (0..100).map(|n| TxnOp::put(key("greeter", n), record(n, "txn", 0), None)).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
        let done = |view: &View| view.versions().values().filter(|v| *v == "txn").count();
        view.until("the transaction is seen", |view| done(view) > 0).await;
        assert_eq!((done(&view), view.steps.len()), (100, steps + 1), "all of one revision apply together");
    }
}

/// As [`truth`], in pages, since etcd-client takes no answer above 4 MB.
async fn truth_of(client: &mut Client, count: usize) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for n in 0..count {
        let answer = client.get(key("greeter", n), None).await.unwrap();
        let value: serde_json::Value = serde_json::from_slice(answer.kvs()[0].value()).unwrap();
        all.insert(format!("i-{n:04}"), value["version"].as_str().unwrap().to_owned());
    }
    all
}
