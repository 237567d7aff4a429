//! An empty set: believed when it is meant, not when etcd lost its data.

use std::time::{Duration, Instant};

use embedded_etcd::proxy::{Mode, Proxy};
use svc_registry::{Instance, Registrar, RegistrarConfig};
use svc_resolver::EndpointState;
use svc_tests::backends::{Backend, Fleet};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::client::{Load, etcd_at, hello, hello_when_ready, resolver, until, until_seen};

/// How many records of greeter etcd holds.
async fn records(etcd: &TestEtcd) -> usize {
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    let answer = etcd.client().await.get("/services/greeter/", Some(options)).await.expect("etcd answers");
    usize::try_from(answer.count()).expect("not negative")
}

fn ready(dump: &svc_resolver::ChannelDump) -> usize {
    dump.endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready).count()
}

/// A record of greeter at an address.
async fn put(etcd: &TestEtcd, id: &str, address: &str, state: &str) {
    let value = format!(r#"{{"state":"{state}","address":"{address}","incarnation":"00000000000000ff"}}"#);
    etcd.client().await.put(format!("/services/greeter/{id}"), value, None).await.expect("etcd takes it");
}

svc_tests::etcd_tests! {
    async fn empty_1_etcd_wiped_and_restarted_while_three_backends_serve(etcd: TestEtcd) {
        let fleet = Fleet::start(3).await;
        let link = Proxy::start(etcd.address()).await.unwrap();
        // Three processes, as far as etcd can tell, on a link of their own.
        let config = RegistrarConfig { ttl: Duration::from_secs(2), ..RegistrarConfig::default() };
        let registrars: Vec<_> =
            fleet.iter().map(|_| Registrar::with_config(&etcd_at(&link.url()), config).expect("a valid configuration")).collect();
        let register = |(backend, registrar): (&Backend, &Registrar)| {
            registrar.register(Instance::new("greeter", backend.name(), &backend.address()).expect("good names"))
        };
        let registrations: Vec<_> = fleet.iter().zip(&registrars).map(register).collect();
        let channel = resolver(&etcd.url()).channel("greeter").unwrap();
        until_seen("all three", &channel, |dump| ready(dump) == 3).await;

        let load = Load::start(&channel, 8);
        load.more(200).await;
        for late in [true, false] {
            etcd.wipe().await;
            load.more(200).await;
            if late {
                // The client is back before the backends, and finds nobody.
                link.set(Mode::Reset);
                etcd.start().await;
                until_seen("all three held", &channel, |dump| dump.endpoints.iter().filter(|e| e.held).count() == 3).await;
                load.more(200).await;
                link.set(Mode::Pass);
            } else {
                etcd.start().await;
            }
            until("all have registered again", async || records(&etcd).await == 3).await;
            until_seen("none held any more", &channel, |d| ready(d) == 3 && d.endpoints.iter().all(|e| !e.held)).await;
            load.more(200).await;
        }
        let (calls, failures) = load.finish().await;
        assert!(failures.is_empty(), "{} of {calls} calls failed: {:?}", failures.len(), failures[0]);
        assert!(registrations.iter().all(|r| r.status().borrow().is_registered()));
    }

    async fn empty_1_etcd_frozen_past_the_leases_takes_nobody_away(etcd: TestEtcd) {
        let fleet = Fleet::start(3).await;
        let config = RegistrarConfig { ttl: Duration::from_secs(2), ..RegistrarConfig::default() };
        let registrars: Vec<_> =
            fleet.iter().map(|_| Registrar::with_config(&etcd_at(&etcd.url()), config).expect("a valid configuration")).collect();
        for (backend, registrar) in fleet.iter().zip(&registrars) {
            registrar.register(Instance::new("greeter", backend.name(), &backend.address()).expect("good names"));
        }
        let channel = resolver(&etcd.url()).channel("greeter").unwrap();
        until_seen("all three", &channel, |dump| ready(dump) == 3).await;
        let load = Load::start(&channel, 8);
        etcd.freeze();
        // Longer than the leases live; etcd deletes the records when it wakes, or takes late keepalives first.
        tokio::time::sleep(Duration::from_secs(4)).await;
        etcd.thaw();
        until("all are registered", async || records(&etcd).await == 3).await;
        load.more(2_000).await;
        until("all are registered again", async || records(&etcd).await == 3).await;
        until_seen("all three again", &channel, |d| ready(d) == 3 && d.endpoints.iter().all(|e| !e.held)).await;
        let (calls, failures) = load.finish().await;
        assert!(failures.is_empty(), "{} of {calls} calls failed: {:?}", failures.len(), failures[0]);
    }

    async fn empty_2_the_last_instance_drains_and_leaves(etcd: TestEtcd) {
        let backend = Backend::start("last").await;
        let registrar = Registrar::new(&etcd_at(&etcd.url()));
        let instance = Instance::new("greeter", "last", &backend.address()).unwrap();
        let registration = registrar.register(instance);
        let channel = resolver(&etcd.url()).channel("greeter").unwrap();
        until_seen("the instance", &channel, |dump| ready(dump) == 1).await;

        let intent = "/services-control/drain/greeter/last";
        etcd.client().await.put(intent, r#"{"reason":"a test"}"#, None).await.unwrap();
        let drained = Instant::now();
        until_seen("nobody", &channel, |dump| dump.endpoints.is_empty()).await;
        let noticed = drained.elapsed();
        println!("noticed after {noticed:?}; the bound is 100 ms");
        assert!(noticed < Duration::from_secs(5), "{noticed:?}");
        let error = hello(&channel).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");

        // Back to serving, and away without a drain: the last one of all is believed, as nothing vanished with it.
        etcd.client().await.delete(intent, None).await.unwrap();
        until_seen("it again", &channel, |dump| ready(dump) == 1).await;
        registration.deregister(Duration::from_secs(5)).await.unwrap();
        until_seen("nobody again", &channel, |dump| dump.endpoints.is_empty()).await;
    }

    async fn empty_3_a_call_to_a_service_without_instances_fails_at_once_and_says_why(etcd: TestEtcd) {
        let resolver = resolver(&etcd.url());
        let channel = resolver.channel("nobody").unwrap();
        let begun = Instant::now();
        let error = hello(&channel).await.unwrap_err();
        println!("told after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not hang");
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert!(error.message().contains("nobody") && error.message().contains("none is known"), "{error:?}");

        // With etcd away from the beginning the reason is another one, and names it.
        etcd.kill().await;
        let channel = resolver.channel("elsewhere").unwrap();
        let error = hello(&channel).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        let said = error.message();
        assert!(said.contains("elsewhere") && said.contains(&etcd.address()), "{error:?}");
    }

    async fn empty_4_a_client_that_starts_before_any_server_waits_for_one(etcd: TestEtcd) {
        let channel = resolver(&etcd.url()).channel("greeter").unwrap();
        let waiting = tokio::spawn({
            let channel = channel.clone();
            async move { hello_when_ready(&channel).await }
        });
        until_seen("that there is nobody", &channel, |dump| dump.discovery.contains("live")).await;
        assert!(!waiting.is_finished());
        let backend = Backend::start("first").await;
        put(&etcd, "first", &backend.address(), "serving").await;
        assert_eq!(waiting.await.unwrap().unwrap(), "first");
    }

    async fn a_stock_tonic_channel_follows_the_same_discovery(etcd: TestEtcd) {
        use svc_proto::greeter::v1::HelloRequest;
        use svc_proto::greeter::v1::greeter_client::GreeterClient;

        let fleet = Fleet::start(2).await;
        put(&etcd, "b0", &fleet[0].address(), "serving").await;
        let mut greeter = GreeterClient::new(resolver(&etcd.url()).tonic_channel("greeter").unwrap());
        let mut answered_by = async |name: &str| {
            until(&format!("{name} answers"), async || {
                let reply = greeter.say_hello(HelloRequest { name: "ada".into() }).await;
                reply.is_ok_and(|reply| reply.into_inner().instance == name)
            }).await;
        };
        answered_by("b0").await;
        put(&etcd, "b1", &fleet[1].address(), "serving").await;
        answered_by("b1").await;
    }
}
