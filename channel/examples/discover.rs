//! A `Discover` of one's own: endpoints from a file that is read again each second. A stream of tower's `Change`s is
//! one; the channel follows it without a request, and an insert of a key that it has is an update in place.
//!
//! `cargo run -p svc-channel --example discover`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use svc_channel::{Channel, ConnectivityState, Endpoint, RoundRobin};
use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tower::discover::Change;

type Found = Result<Change<String, Endpoint>, std::io::Error>;

/// Each line of the file is an address and a weight: `10.0.0.1:50051 100`.
fn read(path: &PathBuf) -> std::io::Result<BTreeMap<String, Endpoint>> {
    let text = std::fs::read_to_string(path)?;
    let parse = |line: &str| {
        let (address, weight) = line.split_once(' ')?;
        Some((address.to_owned(), Endpoint::new(address).ok()?.weight(weight.parse().ok()?)))
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// What differs from the last look. An error is passed on: the channel logs it and goes on with what it has.
fn follow(path: PathBuf) -> impl Stream<Item = Found> {
    let (sender, changes) = tokio::sync::mpsc::channel(64);
    // Ends with the channel, which drops the receiver.
    tokio::spawn(async move {
        let mut known = BTreeMap::new();
        while !sender.is_closed() {
            let found: Vec<Found> = match read(&path) {
                Ok(now) => {
                    let gone: Vec<_> = known.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
                    let new: Vec<_> = now.iter().filter(|(key, e)| known.get(*key) != Some(*e)).collect();
                    let new = new.into_iter().map(|(key, e)| Ok(Change::Insert(key.clone(), e.clone())));
                    let changes = new.chain(gone.into_iter().map(|key| Ok(Change::Remove(key)))).collect();
                    known = now;
                    changes
                }
                Err(error) => vec![Err(error)],
            };
            for change in found {
                let _ = sender.send(change).await; // closed: the loop ends
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    ReceiverStream::new(changes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (a, b) = (support::Named::new("a").serve().await?, support::Named::new("b").serve().await?);
    let path = std::env::temp_dir().join(format!("endpoints-{}", std::process::id()));
    std::fs::write(&path, format!("{a} 100\n"))?;

    let channel = Channel::builder().name("greeter").policy(RoundRobin::new()).build(follow(path.clone()));
    channel.watch_state().wait_for(|state| *state == ConnectivityState::Ready).await?;
    std::fs::write(&path, format!("{a} 100\n{b} 100\n"))?;
    let mut greeter = GreeterClient::new(channel.clone());
    for _ in 0..6 {
        println!("{}", greeter.say_hello(HelloRequest { name: "ada".into() }).await?.into_inner().message);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    std::fs::remove_file(path)?;
    Ok(())
}
