//! All four kinds of call, small and large, through a generated client.

use svc_channel::Channel;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use svc_proto::helloworld;
use svc_proto::helloworld::greeter_client::GreeterClient as Helloworld;
use svc_tests::backends::{Backend, Fleet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt, iter};

use crate::support::{endpoint, endpoints, greeter, hello, patiently, until_idle};

fn names(count: usize) -> impl Iterator<Item = HelloRequest> {
    (0..count).map(|number| HelloRequest { name: format!("n{number}") })
}

async fn one() -> (Backend, Channel) {
    let backend = Backend::start("b0").await;
    let channel = Channel::fixed([endpoint("b0", &backend.address())]);
    (backend, channel)
}

#[tokio::test]
async fn a_unary_call_is_answered() {
    let (_backend, channel) = one().await;
    let reply = hello(&channel).await.expect("it serves");
    assert_eq!((reply.instance.as_str(), reply.message.as_str()), ("b0", "Hello ada!"));
    until_idle(&channel).await;
}

#[tokio::test]
async fn the_stock_client_works_too() {
    let (_backend, channel) = one().await;
    let request = helloworld::HelloRequest { name: "ada".into() };
    let reply = patiently("a call", Helloworld::new(channel).say_hello(request)).await.expect("it serves");
    assert_eq!(reply.get_ref().message, "Hello ada!");
}

#[tokio::test]
async fn a_server_stream_arrives_whole_and_in_order() {
    let (_backend, channel) = one().await;
    let request = LotsOfRepliesRequest { name: "ada".into(), count: 1_000, interval_ms: 0 };
    let mut replies = patiently("the head", greeter(&channel).lots_of_replies(request))
        .await
        .expect("it serves")
        .into_inner();
    let mut count = 0;
    while let Some(reply) = patiently("a reply", replies.message()).await.expect("the stream is whole") {
        assert_eq!(reply.instance, "b0");
        count += 1;
    }
    assert_eq!(count, 1_000);
    until_idle(&channel).await;
}

#[tokio::test]
async fn a_client_stream_arrives_whole() {
    let (backend, channel) = one().await;
    let reply =
        patiently("the reply", greeter(&channel).lots_of_greetings(iter(names(1_000).collect::<Vec<_>>())))
            .await
            .expect("it serves");
    assert_eq!(reply.get_ref().count, 1_000);
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
}

#[tokio::test]
async fn both_ways_each_side_hears_the_other_as_it_speaks() {
    let (backend, channel) = one().await;
    let (say, said) = mpsc::channel(1);
    let mut replies = patiently("the head", greeter(&channel).bidi_hello(ReceiverStream::new(said)))
        .await
        .expect("it serves")
        .into_inner();
    for request in names(100) {
        let wanted = format!("Hello {}!", request.name);
        say.send(request).await.expect("the stream is open");
        let reply = patiently("a reply", replies.message()).await.expect("no error").expect("not the end");
        assert_eq!(reply.message, wanted);
    }
    drop(say);
    assert!(patiently("the end", replies.message()).await.expect("no error").is_none());
    backend.until(|counts| counts.open == 0).await;
    until_idle(&channel).await;
}

#[tokio::test]
async fn megabyte_messages_go_both_ways_in_every_kind() {
    const MEGABYTE: usize = 1024 * 1024;
    let (_backend, channel) = one().await;
    let large = HelloRequest { name: "x".repeat(MEGABYTE) };
    let mut client = greeter(&channel);
    for _ in 0..5 {
        let reply = patiently("a large call", client.say_hello(large.clone())).await.expect("it serves");
        assert_eq!(reply.get_ref().message.len(), MEGABYTE + "Hello !".len());
    }
    let many = iter(vec![large.clone(); 5]);
    let mut replies = patiently("the head", client.bidi_hello(many)).await.expect("it serves").into_inner();
    let mut count = 0;
    while let Some(reply) = patiently("a large reply", replies.next()).await {
        assert!(reply.expect("the stream is whole").message.len() > MEGABYTE);
        count += 1;
    }
    assert_eq!(count, 5);
    until_idle(&channel).await;
}

#[tokio::test]
async fn one_connection_to_each_endpoint_is_enough_for_all_calls() {
    let fleet = Fleet::start(3).await;
    let channel = Channel::fixed(endpoints(&fleet.addresses()));
    crate::support::until_ready(&channel, 3).await;
    let calls = (0..100).map(|_| hello(&channel));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("it serves");
    }
    assert_eq!(fleet.accepted(), 3);
    assert_eq!(fleet.calls().iter().sum::<u64>(), 100);
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_connections_and_an_open_stream_is_finished_first() {
    let (backend, channel) = one().await;
    let (say, said) = mpsc::channel(1);
    let mut replies = patiently("the head", greeter(&channel).bidi_hello(ReceiverStream::new(said)))
        .await
        .expect("it serves")
        .into_inner();
    drop(channel);
    for request in names(3) {
        say.send(request).await.expect("the stream is open");
        patiently("a reply", replies.message()).await.expect("no error").expect("not the end");
    }
    assert_eq!(backend.counts().connections, 1);
    drop(say);
    assert!(patiently("the end", replies.message()).await.expect("no error").is_none());
    drop(replies);
    backend.until(|counts| counts.connections == 0).await;
}
