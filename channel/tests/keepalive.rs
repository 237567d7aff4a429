//! HTTP/2 keepalive (gRFC A8) under a paused clock: a peer of raw frames over an in-memory transport notes when it is
//! asked.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use svc_channel::{BoxIo, Channel, ConnectivityState, Endpoint, EndpointState, KeepAlive, connector_fn};
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tonic::Code;

const PREFACE: usize = 24;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// What every connection does, and what they saw.
#[derive(Clone, Default)]
struct Peer {
    /// Whether PINGs are answered.
    answers: bool,
    /// The first connection ends with `too_many_pings` at its first PING.
    scolds: bool,
    connections: Arc<AtomicUsize>,
    /// When each PING came, with its connection's number and its age.
    pings: Arc<Mutex<Vec<(usize, u64)>>>,
}

impl Peer {
    async fn serve(self, mut io: DuplexStream) -> io::Result<()> {
        let (number, born) = (self.connections.fetch_add(1, Relaxed), Instant::now());
        io.read_exact(&mut [0; PREFACE]).await?;
        io.write_all(&frame(SETTINGS, 0, &[])).await?;
        loop {
            let mut head = [0; 9];
            io.read_exact(&mut head).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            io.read_exact(&mut payload).await?;
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => io.write_all(&frame(SETTINGS, ACK, &[])).await?,
                (PING, 0) => {
                    self.pings.lock().expect("a list").push((number, born.elapsed().as_secs()));
                    if self.scolds && number == 0 {
                        // Last stream 0, ENHANCE_YOUR_CALM.
                        let why = [&[0, 0, 0, 0, 0, 0, 0, 11], &b"too_many_pings"[..]].concat();
                        return io.write_all(&frame(GOAWAY, 0, &why)).await;
                    }
                    if self.answers {
                        io.write_all(&frame(PING, ACK, &payload)).await?;
                    }
                }
                _ => {}
            }
        }
    }

    fn channel(&self, keepalive: KeepAlive) -> Channel {
        self.channel_to(keepalive, &["peer:1"])
    }

    /// Over several addresses, all of which are this one.
    fn channel_to(&self, keepalive: KeepAlive, addresses: &[&str]) -> Channel {
        let peer = self.clone();
        let connector = connector_fn(move |_| {
            let (client, server) = tokio::io::duplex(64 * 1024);
            // Ends with its connection, by an I/O error.
            tokio::spawn(peer.clone().serve(server));
            async { Ok(Box::new(client) as BoxIo) }
        });
        let builder = Channel::builder().name("greeter").keepalive(keepalive).connector(connector);
        builder.fixed(addresses.iter().map(|address| Endpoint::new(address).expect("an address")))
    }

    fn pings(&self) -> Vec<(usize, u64)> {
        self.pings.lock().expect("a list").clone()
    }
}

/// A frame on no stream.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0], payload].concat()
}

fn while_idle() -> KeepAlive {
    KeepAlive { while_idle: true, ..KeepAlive::default() }
}

#[tokio::test(start_paused = true)]
async fn pings_are_at_least_ten_seconds_apart_whatever_was_set() {
    let peer = Peer { answers: true, ..Peer::default() };
    let channel = peer.channel(KeepAlive { interval: Duration::from_millis(1), ..while_idle() });
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert_eq!(peer.pings(), [(0, 10), (0, 20), (0, 30)]);
    assert_eq!(*channel.watch_state().borrow(), ConnectivityState::Ready);
}

#[tokio::test(start_paused = true)]
async fn without_calls_nobody_is_asked_unless_told_so() {
    let peer = Peer { answers: true, ..Peer::default() };
    let _channel = peer.channel(KeepAlive::default());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(peer.pings(), []);
}

#[tokio::test(start_paused = true)]
async fn after_too_many_pings_new_connections_ask_half_as_often() {
    let peer = Peer { answers: true, scolds: true, ..Peer::default() };
    let channel = peer.channel(while_idle());
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!(peer.pings(), [(0, 10), (1, 20), (1, 40)]);
    assert_eq!(*channel.watch_state().borrow(), ConnectivityState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_stopped_is_found_and_its_calls_are_told() {
    let peer = Peer::default();
    let channel = peer.channel(KeepAlive::default());
    let begun = Instant::now();
    let call = GreeterClient::new(channel.clone()).say_hello(HelloRequest { name: "ada".into() }).await;
    let status = call.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    // The call is sent at once; the PING goes out at 10 s and is given 10 s.
    assert_eq!(begun.elapsed().as_secs(), 20);
    assert_eq!(channel.dump().endpoints[0].in_flight, 0);
}

const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_while_calls_wait_is_asked_at_once_and_then_passed_over() {
    let peer = Peer::default();
    let keepalive = KeepAlive { silence: Some(SILENCE), ..KeepAlive::default() };
    // Another that is as silent: the last one that takes calls is never ejected.
    let channel = peer.channel_to(keepalive, &["peer:1", "peer:2"]);
    let mut state = channel.watch_state();
    state.wait_for(|state| *state == ConnectivityState::Ready).await.expect("the channel lives");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(peer.pings(), [], "nobody waits");
    let begun = Instant::now();
    let call = GreeterClient::new(channel.clone());
    let call = tokio::spawn(async move { call.clone().say_hello(HelloRequest { name: "ada".into() }).await });
    while channel.dump().endpoints.iter().all(|endpoint| endpoint.state != EndpointState::Ejected) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begun.elapsed();
    assert!((2 * SILENCE..3 * SILENCE).contains(&took), "asked, and waited for as long again: {took:?}");
    assert_eq!(peer.pings().len(), 1);
    assert!(!call.is_finished(), "what is in flight goes on");
    let status = call.await.expect("no panic").expect_err("keepalive's limit");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(begun.elapsed().as_secs(), 10, "the PING was sent early, and given its time");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_and_answers_pings_is_asked_every_ten_seconds_and_stays() {
    let peer = Peer { answers: true, ..Peer::default() };
    let keepalive =
        KeepAlive { silence: Some(SILENCE), interval: Duration::from_secs(60), ..KeepAlive::default() };
    let channel = peer.channel_to(keepalive, &["peer:1", "peer:2"]);
    let mut request = tonic::Request::new(HelloRequest { name: "ada".into() });
    request.set_timeout(Duration::from_secs(35));
    GreeterClient::new(channel.clone()).say_hello(request).await.expect_err("the deadline");
    assert_eq!(peer.pings().len(), 4, "at once, and then after ten seconds each: {:?}", peer.pings());
    assert!(channel.dump().endpoints.iter().all(|endpoint| endpoint.state == EndpointState::Ready));
}
