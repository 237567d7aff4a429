//! `svcctl` and services that live: what an operator asks for is what happens.

use std::time::Duration;

use demo_services::greeter::Greeter;
use svc_proto::greeter::v1::LotsOfRepliesRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_registry::{Etcd, EtcdConfig, InstanceId, Serve};
use svc_tests::etcd::TestEtcd;
use svcctl::Exit;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::bench::{Captured, svcctl, svcctl_into};

/// A greeter that registers itself, in this process.
struct Living {
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), svc_registry::Error>>,
}

impl Living {
    fn start(etcd: &TestEtcd, id: &'static str) -> Living {
        let etcd = Etcd::new(EtcdConfig::new([etcd.address()]).expect("valid")).expect("a runtime");
        let greeter = Greeter::new(Duration::ZERO, 0);
        greeter.sign_as(id);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Serve::new(&etcd, "greeter")
            .listen("127.0.0.1:0")
            .add_service(GreeterServer::new(greeter))
            .instance(move |instance| instance.with_id(InstanceId::new(id).expect("a valid id")))
            // A sender that is dropped stops it too.
            .shutdown(async move { drop(stopped.await) });
        Living { stop, served: tokio::spawn(server.run()) }
    }

    async fn stop(self) {
        drop(self.stop);
        self.served.await.expect("it does not panic").expect("an orderly stop");
    }
}

/// Waits until `svcctl get` shows the instance in this state; gives the instance.
async fn until_state(etcd: &TestEtcd, id: &str, state: &str) -> serde_json::Value {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let got = svcctl(&etcd.url(), &["get", "greeter", "-o", "json"]).await.json();
        let instances = got["instances"].as_array().expect("a list");
        if let Some(found) = instances.iter().find(|i| i["id"] == id && i["state"] == state) {
            return found.clone();
        }
        assert!(Instant::now() < limit, "{id} is not {state}: {got}");
        sleep(Duration::from_millis(20)).await;
    }
}

svc_tests::etcd_tests! {
    async fn a_drain_that_waits_ends_with_the_last_call(etcd: TestEtcd) {
        let (one, two) = (Living::start(&etcd, "g-1"), Living::start(&etcd, "g-2"));
        let address = until_state(&etcd, "g-1", "serving").await["address"].as_str().expect("text").to_owned();
        until_state(&etcd, "g-2", "serving").await;
        let endless = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 10 };
        let mut client = GreeterClient::new(
            tonic::transport::Channel::from_shared(format!("http://{address}")).expect("a URI").connect_lazy(),
        );
        let mut stream = client.lots_of_replies(endless).await.expect("it serves").into_inner();
        stream.message().await.expect("a reply");

        let (out, err) = (Captured::default(), Captured::default());
        let url = etcd.url();
        let waiting = svcctl_into(&url, &["drain", "greeter", "g-1", "--wait"], &out, &err, std::future::pending());
        let caller = async {
            err.shows("1 call in flight").await;
            stream.message().await.expect("a drain cuts no stream").expect("nor ends it");
            assert_eq!(out.text(), "", "a call is in flight");
            drop(stream);
        };
        let (exit, ()) = tokio::join!(waiting, caller);
        assert_eq!((exit, out.text().as_str()), (Exit::Ok, "greeter/g-1 drained\n"), "{}", err.text());

        assert_eq!(svcctl(&url, &["undrain", "greeter", "g-1"]).await.exit, Exit::Ok);
        until_state(&etcd, "g-1", "serving").await;
        tokio::join!(one.stop(), two.stop());
        let got = svcctl(&url, &["get", "greeter", "-o", "json"]).await;
        assert_eq!(got.exit, Exit::NotFound, "both said goodbye: {got:?}");
    }

    async fn cli_4_a_drained_instance_that_restarts_is_still_drained(etcd: TestEtcd) {
        let (one, two) = (Living::start(&etcd, "g-1"), Living::start(&etcd, "g-2"));
        until_state(&etcd, "g-1", "serving").await;
        until_state(&etcd, "g-2", "serving").await;
        let drained = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--wait"]).await;
        assert_eq!(drained.exit, Exit::Ok, "{drained:?}");
        one.stop().await;
        let one = Living::start(&etcd, "g-1");
        let shown = until_state(&etcd, "g-1", "drained").await;
        assert_eq!(shown["drain"]["then"], "stay", "{shown}");
        assert_eq!(svcctl(&etcd.url(), &["undrain", "greeter", "g-1"]).await.exit, Exit::Ok);
        until_state(&etcd, "g-1", "serving").await;
        tokio::join!(one.stop(), two.stop());
    }

    async fn cli_5_a_drain_with_a_ttl_ends_by_itself(etcd: TestEtcd) {
        let (one, two) = (Living::start(&etcd, "g-1"), Living::start(&etcd, "g-2"));
        until_state(&etcd, "g-1", "serving").await;
        until_state(&etcd, "g-2", "serving").await;
        let ran = svcctl(&etcd.url(), &["drain", "greeter", "g-1", "--ttl", "3s", "--wait"]).await;
        assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
        until_state(&etcd, "g-1", "serving").await;
        tokio::join!(one.stop(), two.stop());
    }

    async fn a_deregistered_instance_stays_away_until_it_is_undrained(etcd: TestEtcd) {
        let (one, two) = (Living::start(&etcd, "g-1"), Living::start(&etcd, "g-2"));
        until_state(&etcd, "g-1", "serving").await;
        until_state(&etcd, "g-2", "serving").await;
        assert_eq!(svcctl(&etcd.url(), &["deregister", "greeter", "g-1"]).await.exit, Exit::Ok);
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let got = svcctl(&etcd.url(), &["get", "greeter", "-o", "json"]).await.json();
            if got["instances"].as_array().is_some_and(|all| all.iter().all(|i| i["id"] != "g-1")) {
                break;
            }
            assert!(Instant::now() < limit, "it was asked to leave: {got}");
            sleep(Duration::from_millis(20)).await;
        }
        let again = svcctl(&etcd.url(), &["deregister", "greeter", "g-1"]).await;
        assert_eq!(again.exit, Exit::Ok, "once more is no error: {again:?}");
        assert_eq!(svcctl(&etcd.url(), &["undrain", "greeter", "g-1"]).await.exit, Exit::Ok);
        until_state(&etcd, "g-1", "serving").await;
        tokio::join!(one.stop(), two.stop());
    }
}
