//! What users do with a channel beside calling it: interceptors, unix sockets, names, extreme deadlines, many channels;
//! and what it owes them then.

use std::net::Ipv4Addr;
use std::time::Duration;

use svc_channel::{Channel, LeastRequest, RoundRobin};
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_tests::backends::{Backend, Fleet, Greeter};
use svc_tests::raw_h2;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Status};

use crate::support::{
    changing, endpoint, endpoints, greeter, hello, hello_within, patiently, seen, until, until_idle,
    until_ready,
};

#[tokio::test]
async fn interceptors_and_layers_work_on_it() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    let refuse = |request: tonic::Request<()>| match request.metadata().get("pass") {
        Some(_) => Ok(request),
        None => Err(Status::permission_denied("no pass")),
    };
    let mut client = GreeterClient::with_interceptor(channel.clone(), refuse);
    let status = patiently("a call", client.say_hello(HelloRequest::default())).await.expect_err("no pass");
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut request = tonic::Request::new(HelloRequest::default());
    request.metadata_mut().insert("pass", "yes".parse().expect("ascii"));
    patiently("a call", client.say_hello(request)).await.expect("it passes");

    let layered = tower::ServiceBuilder::new().concurrency_limit(1).service(channel);
    patiently("a call", GreeterClient::new(layered).say_hello(HelloRequest::default()))
        .await
        .expect("it serves");
}

#[tokio::test]
async fn unix_sockets_and_host_names_are_dialled() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("greeter.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let serving = tonic::transport::Server::builder()
        .add_service(GreeterServer::new(Greeter::named("unix")))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let server = tokio::spawn(serving);
    let channel = Channel::fixed([endpoint("unix", &format!("unix:{}", path.display()))]);
    assert_eq!(hello(&channel).await.expect("it serves").instance, "unix");
    server.abort();

    let backend = Backend::start("named").await;
    let port = backend.address().rsplit(':').next().expect("a port").to_owned();
    assert!(backend.address().starts_with(&Ipv4Addr::LOCALHOST.to_string()));
    let channel = Channel::fixed([endpoint("named", &format!("localhost:{port}"))]);
    assert_eq!(hello(&channel).await.expect("it serves").instance, "named");
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing_and_one_beyond_the_clock_is_none() {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    until_ready(&channel, 1).await;
    let status = hello_within(&channel, Some(Duration::ZERO)).await.expect_err("it has passed");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut request = tonic::Request::new(HelloRequest::default());
    request.metadata_mut().insert("grpc-timeout", "99999999H".parse().expect("ascii"));
    patiently("a call", greeter(&channel).say_hello(request)).await.expect("in time");
    assert_eq!(backend.counts().calls, 1, "the first was not sent");
}

#[tokio::test]
async fn a_turn_to_dial_that_somebody_silent_has_is_waited_for() {
    let silent = raw_h2::silent().await;
    let backend = Backend::start("b0").await;
    let channel = Channel::builder()
        .max_dials(1)
        .connect_timeout(Duration::from_millis(300))
        .fixed([endpoint("mute", &silent.address()), endpoint("b0", &backend.address())]);
    assert_eq!(hello(&channel).await.expect("waiting for a turn counts as hope").instance, "b0");
}

#[tokio::test]
async fn load_is_kept_by_instance_while_its_address_changes() {
    let fleet = Fleet::start(2).await;
    let (changes, discover) = changing();
    let channel = Channel::builder().policy(LeastRequest::new()).build(discover);
    changes.insert(endpoint("moving", &fleet[0].address())).await;
    until_ready(&channel, 1).await;
    fleet[0].hold();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { hello(&channel).await }
    });
    fleet[0].until(|counts| counts.open == 1).await;
    changes.insert(endpoint("moving", &fleet[1].address())).await;
    fleet[1].until(|counts| counts.connections == 1).await;
    let dump =
        until(&channel, |dump| seen(dump, "moving").is_some_and(|m| m.address == fleet[1].address())).await;
    assert_eq!(dump.endpoints[0].in_flight, 1, "what is under way at the old address counts");
    // Gone and back again, as after a relist.
    changes.remove("moving").await;
    changes.insert(endpoint("moving", &fleet[1].address())).await;
    until_ready(&channel, 1).await;
    assert_eq!(channel.dump().endpoints[0].in_flight, 1);
    fleet[0].release();
    call.await.expect("no panic").expect("it was let finish");
    until_idle(&channel).await;
}

#[tokio::test]
async fn the_last_ready_endpoint_is_never_ejected() {
    let fleet = Fleet::start(2).await;
    for backend in fleet.iter() {
        backend.hold();
    }
    let channel = Channel::builder().policy(RoundRobin::new()).fixed(endpoints(&fleet.addresses()));
    until_ready(&channel, 2).await;
    for _ in 0..8 {
        let calls = (0..4).map(|_| hello_within(&channel, Some(Duration::from_millis(60))));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.expect_err("held").code(), Code::DeadlineExceeded);
        }
    }
    // One is out; the other takes what comes, since some hope is better than none.
    for backend in fleet.iter() {
        backend.release();
    }
    hello(&channel).await.expect("one is always there");
}

#[tokio::test]
async fn channels_that_come_and_go_leave_no_task_behind() {
    const CHANNELS: usize = 60;
    let fleet = Fleet::start(2).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    // The servers' own tasks have begun by then.
    for backend in fleet.iter() {
        hello(&Channel::fixed([endpoint("b", &backend.address())])).await.expect("it serves");
    }
    let before = metrics.num_alive_tasks();
    for _ in 0..CHANNELS {
        let refusing = Backend::refusing("r");
        let mut all = endpoints(&fleet.addresses());
        all.push(endpoint("r", &refusing.address()));
        let channel = Channel::fixed(all);
        hello(&channel).await.expect("two of three serve");
        let mut client = greeter(&channel);
        let held = client.lots_of_greetings(tokio_stream::pending());
        assert!(
            tokio::time::timeout(Duration::from_millis(1), held).await.is_err(),
            "it never ends by itself"
        );
    }
    for backend in fleet.iter() {
        backend.until(|counts| counts.connections == 0 && counts.open == 0).await;
    }
    // One task left by each channel would be too many by far; some of the servers' may still be on their way out.
    patiently("the tasks' end", async {
        while metrics.num_alive_tasks() >= before + CHANNELS / 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
