//! The links between the members of a cluster. A member has one address for all its peers, so that a proxy before it must
//! find out who calls: etcd's peers say so in the header `X-Server-From` of a connection's first request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The head of a request of etcd's peers is well below.
const HEAD: usize = 8192;

/// Who is who, and who is cut off.
#[derive(Debug)]
pub(super) struct Links {
    numbers: Mutex<HashMap<u64, usize>>,
    isolated: watch::Sender<Option<usize>>,
}

impl Default for Links {
    fn default() -> Self {
        Self { numbers: Mutex::default(), isolated: watch::Sender::new(None) }
    }
}

impl Links {
    pub(super) fn knows(&self, id: u64, number: usize) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, number);
    }

    pub(super) fn number(&self, id: u64) -> Option<usize> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    pub(super) fn id(&self, number: usize) -> Option<u64> {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().find(|(_, n)| **n == number).map(|(id, _)| *id)
    }

    pub(super) fn isolate(&self, member: Option<usize>) {
        self.isolated.send_replace(member);
    }
}

/// What one member's peers connect to.
#[derive(Debug)]
pub(super) struct PeerProxy {
    address: SocketAddr,
    stop: CancellationToken,
}

impl PeerProxy {
    /// In front of the member of this number, which listens to peers on `port`.
    pub(super) async fn start(to: usize, port: u16, links: Arc<Links>) -> PeerProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = PeerProxy {
            address: listener.local_addr().expect("it is bound"),
            stop: CancellationToken::new(),
        };
        // Ends with the proxy, by its token; so does each connection.
        tokio::spawn(proxy.stop.clone().run_until_cancelled_owned(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(relay(peer, to, port, links.clone()));
            }
        }));
        proxy
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PeerProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Carries one connection until an end closes it, or one of its members is cut off: then it is closed to both.
async fn relay(mut peer: TcpStream, to: usize, port: u16, links: Arc<Links>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD {
        if peer.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let from = caller(&head);
    let mut isolated = links.isolated.subscribe();
    let cut = |isolated: &Option<usize>| {
        isolated.is_some_and(|member| member == to || from.and_then(|id| links.number(id)) == Some(member))
    };
    let carry = async {
        let mut member = TcpStream::connect(("127.0.0.1", port)).await?;
        member.write_all(&head).await?;
        tokio::io::copy_bidirectional(&mut peer, &mut member).await
    };
    tokio::select! {
        biased; // a connection of somebody who is cut off carries nothing
        _ = isolated.wait_for(cut) => Ok(()),
        carried = carry => carried.map(drop),
    }
}

fn caller(head: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-server-from:"))?;
    u64::from_str_radix(line.split_once(':')?.1.trim(), 16).ok()
}
