//! Endpoints with several addresses, and names that stand for several: tried in order, each with its part of the
//! connect timeout, and not left without need.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use svc_channel::{Address, Channel, Connect, Connecting, Resolving, SocketConnector};
use svc_tests::backends::Backend;
use svc_tests::raw_h2;
use tonic::Code;

use crate::support::{changing, endpoint, hello, seen, until, until_ready};

#[tokio::test]
async fn the_next_address_is_tried_where_one_refuses_and_the_dump_says_which_is_in_use() {
    let (refusing, backend) = (Backend::refusing("b0"), Backend::start("b0").await);
    let both = endpoint("b0", &refusing.address()).or_at(backend.address()).expect("an address");
    let channel = Channel::fixed([both]);
    assert_eq!(hello(&channel).await.expect("the second serves").instance, "b0");
    let dump = channel.dump();
    let b0 = seen(&dump, "b0").expect("it is known");
    assert_eq!(
        (b0.address.as_str(), b0.connected_to.as_deref()),
        (&*refusing.address(), Some(&*backend.address()))
    );
}

#[tokio::test]
async fn an_address_that_swallows_everything_takes_its_part_of_the_connect_timeout_only() {
    const LIMIT: Duration = Duration::from_secs(3);
    let (silent, backend) = (raw_h2::silent().await, Backend::start("b0").await);
    let mut both = endpoint("b0", &silent.address());
    both = both.or_at(backend.address()).expect("an address");
    let begun = Instant::now();
    let channel = Channel::builder().connect_timeout(LIMIT).fixed([both]);
    hello(&channel).await.expect("the second serves, within the same attempt");
    assert!(begun.elapsed() >= LIMIT / 2, "the first had its half: {:?}", begun.elapsed());
    assert_eq!(silent.accepted(), 1, "no second attempt was needed");
}

#[tokio::test]
async fn where_all_addresses_fail_the_error_names_each() {
    let (refusing, http1) = (Backend::refusing("b0"), raw_h2::http1().await);
    let both = endpoint("b0", &refusing.address()).or_at(http1.address()).expect("an address");
    let status = hello(&Channel::fixed([both])).await.expect_err("nobody serves");
    assert_eq!(status.code(), Code::Unavailable);
    for part in [&*refusing.address(), "refused", &*http1.address(), "HTTP/1.1"] {
        assert!(status.message().contains(part), "{part:?} is missing in {status}");
    }
}

#[tokio::test]
async fn addresses_that_come_or_move_within_the_list_change_no_connection_while_the_one_in_use_stays() {
    let (first, second) = (Backend::start("first").await, Backend::start("second").await);
    let at = |addresses: &[String]| {
        let mut it = endpoint("b0", &addresses[0]);
        for address in &addresses[1..] {
            it = it.or_at(address).expect("an address");
        }
        it
    };
    let (a, b) = (first.address(), second.address());
    let (changes, discover) = changing();
    changes.insert(at(std::slice::from_ref(&a))).await;
    let channel = Channel::builder().build(discover);
    until_ready(&channel, 1).await;
    for (weight, addresses) in [&[a.clone(), b.clone()][..], &[b.clone(), a.clone()]].into_iter().enumerate()
    {
        changes.insert(at(addresses).weight(weight as u32 + 1)).await;
        until(&channel, |dump| seen(dump, "b0").is_some_and(|b0| b0.weight == weight as u32 + 1)).await;
        assert_eq!(hello(&channel).await.expect("a reply").instance, "first");
    }
    assert_eq!((first.counts().accepted, second.counts().accepted), (1, 0));
    changes.insert(at(std::slice::from_ref(&b))).await;
    until(&channel, |dump| seen(dump, "b0").is_some_and(|it| it.connected_to.as_deref() == Some(&*b))).await;
    assert_eq!(hello(&channel).await.expect("a reply").instance, "second");
    first.until(|counts| counts.connections == 0).await;
}

/// A resolver of names in the test's hand; sockets below.
struct Names(HashMap<String, Vec<Address>>);

impl Connect for Names {
    fn connect(&self, address: &Address) -> Connecting {
        SocketConnector::default().connect(address)
    }

    fn resolve(&self, address: &Address) -> Resolving {
        let found = self.0.get(&address.to_string()).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

#[tokio::test]
async fn a_name_that_stands_for_several_addresses_is_tried_at_each() {
    let (refusing, backend) = (Backend::refusing("b0"), Backend::start("b0").await);
    let behind = [refusing.address(), backend.address()].map(|address| address.parse().expect("an address"));
    let names = || Names(HashMap::from([("greeter.test:1".to_owned(), behind.to_vec())]));
    let channel = Channel::builder().connector(names()).fixed([endpoint("b0", "greeter.test:1")]);
    hello(&channel).await.expect("the second serves");
    let dump = channel.dump();
    let shown = format!("greeter.test:1 ({})", backend.address());
    assert_eq!(seen(&dump, "b0").and_then(|b0| b0.connected_to.as_deref()), Some(&*shown));

    let channel = Channel::builder().connector(names()).fixed([endpoint("b0", "elsewhere.test:1")]);
    let status = hello(&channel).await.expect_err("nobody has that name");
    assert!(status.message().contains("elsewhere.test:1: looking the name up: no such name"), "{status}");
}
