//! The proxy between plain sockets. Lower bounds on time are exact; upper ones only keep a hang from being one.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Mode, Proxy};

/// Long enough to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(10);

/// A server that sends everything back, and its address.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    address
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn receive(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut bytes)).await.expect("an answer in time").unwrap();
    bytes
}

async fn echoed(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(receive(stream, 4).await, b"ping");
}

async fn is_silent(stream: &mut TcpStream) {
    tokio::time::timeout(SILENCE, stream.read_u8()).await.expect_err("bytes, an end or an error");
}

async fn is_reset(stream: &mut TcpStream) {
    let error = tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("an end in time").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn pass_carries_bytes_and_closes_both_ways_and_counts() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = connect(&proxy).await;
    echoed(&mut stream).await;
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.open, counts.bytes_up, counts.bytes_down), (1, 1, 4, 4));

    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the close went there and came back");
    tokio::time::timeout(LIMIT, async {
        while proxy.counts().open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a closed connection is not counted as open");
}

#[tokio::test]
async fn a_blackhole_holds_bytes_until_it_ends_and_resets_nobody() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    echoed(&mut old).await;

    proxy.set(Mode::Blackhole);
    old.write_all(b"held").await.unwrap();
    is_silent(&mut old).await;
    let mut new = connect(&proxy).await;
    new.write_all(b"too").await.unwrap();
    is_silent(&mut new).await;

    proxy.set(Mode::Pass);
    assert_eq!(receive(&mut old, 4).await, b"held");
    assert_eq!(receive(&mut new, 3).await, b"too");
}

#[tokio::test]
async fn a_close_does_not_get_through_a_blackhole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().to_string()).await.unwrap();
    let client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.set(Mode::Blackhole);
    drop(client);
    is_silent(&mut server).await;
    proxy.set(Mode::Pass);
    let end = tokio::time::timeout(LIMIT, server.read(&mut [0])).await.expect("the close arrives");
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn reset_ends_open_and_new_connections_until_it_ends() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    echoed(&mut old).await;
    proxy.set(Mode::Reset);
    is_reset(&mut old).await;
    is_reset(&mut connect(&proxy).await).await;
    proxy.set(Mode::Pass);
    echoed(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn latency_delays_each_direction_but_not_one_message_after_the_other() {
    let latency = Duration::from_millis(100);
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = connect(&proxy).await;
    echoed(&mut stream).await;
    proxy.set(Mode::Latency(latency));
    let begun = Instant::now();
    echoed(&mut stream).await;
    assert!(begun.elapsed() >= 2 * latency, "there and back took {:?}", begun.elapsed());

    let begun = Instant::now();
    for _ in 0..100 {
        stream.write_all(b"ping").await.unwrap();
        tokio::task::yield_now().await;
    }
    receive(&mut stream, 400).await;
    assert!(begun.elapsed() < 50 * latency, "100 messages at once took {:?}", begun.elapsed());
}

#[tokio::test]
async fn flapping_is_silent_in_turns_and_loses_nothing() {
    let down = Duration::from_millis(100);
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Flap { up: Duration::from_millis(50), down });
    let (mut silences, begun) = (0, Instant::now());
    while silences < 3 {
        let asked = Instant::now();
        echoed(&mut stream).await;
        // A ping may be caught by the silence at any point; half of it is far more than a round trip.
        silences += u32::from(asked.elapsed() > down / 2);
        assert!(begun.elapsed() < LIMIT, "the link does not flap");
    }
    proxy.set(Mode::Pass);
    echoed(&mut stream).await;
}

#[tokio::test]
async fn a_target_that_is_down_resets_and_serves_when_it_is_up() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(free.to_string()).await.unwrap();
    is_reset(&mut connect(&proxy).await).await;
    let listener = TcpListener::bind(free).await.unwrap();
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"up").await.unwrap();
    assert_eq!(receive(&mut client, 2).await, b"up");
}

#[tokio::test]
async fn dropping_the_proxy_closes_its_port_and_its_connections() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = connect(&proxy).await;
    echoed(&mut stream).await;
    let address = proxy.address();
    drop(proxy);
    let end = tokio::time::timeout(LIMIT, stream.read(&mut [0])).await.expect("an end in time");
    assert!(matches!(end, Ok(0) | Err(_)), "the connection ended");
    tokio::time::timeout(LIMIT, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the port is closed");
}
