//! A TCP proxy that makes the network fail: in front of an etcd, or of any other server.
//!
//! ```text
//! client -> Proxy (accepts; one mode for all connections, changed at will) -> relay (two pumps) -> target
//! ```
//!
//! It works on bytes, so that what it shows is what a link does: silence, a reset, slowness. Next: `relay`
//! carries one connection.

mod relay;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use relay::Link;

/// How long the listener rests after an accept failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the link between the clients and the target is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything is passed on.
    Pass,
    /// Nothing is passed on, in either direction, and nobody is told: no reset, no close. What was sent
    /// meanwhile arrives when the mode changes, as TCP's retransmissions would see to; so does a close. New
    /// connections are accepted by the operating system and reach the target only then. (An unanswered SYN
    /// cannot be had without privileges; to a client that waits for the server's first bytes both look alike.)
    Blackhole,
    /// Open connections are reset (RST), new ones at once after they are accepted.
    Reset,
    /// Everything arrives so much later, in each direction. The throughput is not limited.
    Latency(Duration),
    /// In turns [`Pass`](Mode::Pass) for `up` and [`Blackhole`](Mode::Blackhole) for `down`, beginning with up.
    Flap {
        /// How long the link works at a time.
        up: Duration,
        /// How long it is silent at a time.
        down: Duration,
    },
}

/// What went through a [`Proxy`] so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Connections that clients made.
    pub accepted: u64,
    /// Of these, the ones that still exist.
    pub open: u64,
    /// Bytes that reached the target.
    pub bytes_up: u64,
    /// Bytes that reached clients.
    pub bytes_down: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    ended: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// A running proxy. Dropping it closes its port and ends its connections.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use embedded_etcd::proxy::{Mode, Proxy};
///
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let target = server.local_addr()?.to_string();
/// let proxy = Proxy::start(target).await?;
/// let url = format!("http://{}", proxy.address());   // for the client
/// proxy.set(Mode::Blackhole);                        // ... and the link is silent
/// # drop(url);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

impl Proxy {
    /// Starts on a free port of 127.0.0.1, in front of `target` (`host:port`), in [`Mode::Pass`]. The target
    /// need not be up yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(target: impl Into<String>) -> io::Result<Self> {
        Self::bind(([127, 0, 0, 1], 0).into(), target).await
    }

    /// The same on a given address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, target: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let link = watch::Sender::new(Link::Open(Duration::ZERO));
        let proxy = Self { address, mode, counters: Arc::default(), stop: CancellationToken::new() };
        let door = Door {
            listener,
            target: target.into(),
            counters: proxy.counters.clone(),
            stop: proxy.stop.clone(),
        };
        // Both tasks are the proxy's own and end when it is dropped, by its token.
        let links = link.subscribe();
        tokio::spawn(proxy.stop.clone().run_until_cancelled_owned(steer(modes, link)));
        tokio::spawn(proxy.stop.clone().run_until_cancelled_owned(door.accept(links)));
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect, as `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the mode of all connections, open and to come.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// The present mode.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        // Ended first: a connection that is accepted in between counts as open rather than as less than none.
        let ended = read(&self.counters.ended);
        let accepted = read(&self.counters.accepted);
        Counts {
            accepted,
            open: accepted - ended,
            bytes_up: read(&self.counters.up),
            bytes_down: read(&self.counters.down),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Turns the mode, which may be a schedule, into the state of the link at each moment.
async fn steer(mut modes: watch::Receiver<Mode>, link: watch::Sender<Link>) {
    loop {
        let mode = *modes.borrow_and_update();
        let scheduled = async {
            match mode {
                Mode::Pass => link.send_replace(Link::Open(Duration::ZERO)),
                Mode::Latency(latency) => link.send_replace(Link::Open(latency)),
                Mode::Blackhole => link.send_replace(Link::Silent),
                Mode::Reset => link.send_replace(Link::Broken),
                Mode::Flap { up, down } => loop {
                    link.send_replace(Link::Open(Duration::ZERO));
                    tokio::time::sleep(up).await;
                    link.send_replace(Link::Silent);
                    tokio::time::sleep(down).await;
                },
            };
            std::future::pending::<()>().await;
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            () = scheduled => {}
        }
    }
}

/// What accepts connections.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    target: String,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

impl Door {
    async fn accept(self, links: watch::Receiver<Link>) {
        let target: Arc<str> = self.target.into();
        loop {
            let client: TcpStream = match self.listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "the proxy cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.counters.accepted.fetch_add(1, Ordering::AcqRel);
            let (links, target, counters) = (links.clone(), target.clone(), self.counters.clone());
            // One task a connection; it ends with the connection or with the proxy. Its errors are the two
            // ends': each sees what became of the other.
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
                let _ended = Ended(counters.clone());
                relay::run(client, &target, links, &counters).await;
            }));
        }
    }
}

/// Counts the end of a connection, however it comes.
struct Ended(Arc<Counters>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}
