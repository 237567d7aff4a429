//! Peers that misbehave on purpose. The h2 crate's server keeps the protocol's rules, so these write frames by
//! hand: a [`RawServer`] accepts connections and runs a script on each, an async closure over a [`Peer`] that reads
//! the client's frames and answers as it likes. [`silent`], [`http1`] and [`tls`] do not speak HTTP/2 at all.
//! Next: `raw_h2/frame.rs` (the frames), `raw_h2/peer.rs` (what a script can do).

mod frame;
mod peer;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use frame::{Frame, Kind, Setting, error};
pub use peer::Peer;

use crate::backends::PATIENCE;

/// A listener that runs a script on each connection. Dropping it ends all of them, and panics if a script did.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    accepted: watch::Receiver<usize>,
    panics: Arc<Mutex<Vec<String>>>,
    /// Owns the connections' tasks; ended by the drop.
    task: JoinHandle<()>,
}

impl RawServer {
    /// Starts one that speaks HTTP/2 as `script` says. A script that returns closes its connection; an I/O error in
    /// it means that the client has gone, which ends it too.
    pub async fn start<F, Fut>(script: F) -> RawServer
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::accept(move |stream, number| script(Peer::new(stream, number))).await
    }

    async fn accept<F, Fut>(script: F) -> RawServer
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("a listener has an address");
        let (count, accepted) = watch::channel(0);
        let panics = Arc::new(Mutex::new(Vec::new()));
        let seen = panics.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                count.send_modify(|count| *count += 1);
                let script = AssertUnwindSafe(script(stream, *count.borrow())).catch_unwind();
                let seen = seen.clone();
                connections.spawn(async move {
                    if let Err(panic) = script.await {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        seen.push(text.unwrap_or_else(|| "a panic without text".to_owned()));
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        RawServer { address, accepted, panics, task }
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until it has accepted that many.
    ///
    /// # Panics
    /// If it has not after half a minute.
    pub async fn until_accepted(&self, count: usize) {
        let mut accepted = self.accepted.clone();
        let waited = tokio::time::timeout(PATIENCE, accepted.wait_for(|accepted| *accepted >= count)).await;
        assert!(matches!(waited, Ok(Ok(_))), "{} connections, {count} were awaited", self.accepted());
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
        let panics = self.panics.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !std::thread::panicking() {
            assert!(panics.is_empty(), "scripts panicked: {panics:?}");
        }
    }
}

/// A listener that accepts, reads and never says a word.
pub async fn silent() -> RawServer {
    RawServer::accept(|mut stream, _| async move {
        while stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    })
    .await
}

/// A server that knows HTTP/1.1 only and answers whatever it reads as such servers do.
pub async fn http1() -> RawServer {
    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 11\r\n\r\nbad request";
    RawServer::accept(move |stream, _| after_a_read(stream, answer.as_bytes())).await
}

/// A server that speaks TLS: to what is no ClientHello it answers with a fatal alert, `unexpected_message`.
pub async fn tls() -> RawServer {
    RawServer::accept(|stream, _| after_a_read(stream, &[21, 3, 3, 0, 2, 2, 10])).await
}

async fn after_a_read(mut stream: TcpStream, answer: &'static [u8]) -> io::Result<()> {
    let _ = stream.read(&mut [0; 1024]).await?;
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would send RST, which may overtake the answer.
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}
