//! One connection through the proxy: two pumps, each a reader and a writer with a short queue in between.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Counters;

/// The state of the link at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Passes everything after so long.
    Open(Duration),
    /// Passes nothing and says nothing.
    Silent,
    /// Every connection is reset.
    Broken,
}

/// How much is read at a time, and how many such chunks may be under way in one direction: enough for 100 ms
/// of latency at 40 MB/s.
const CHUNK: usize = 64 * 1024;
const UNDER_WAY: usize = 64;

type Links = watch::Receiver<Link>;
/// A chunk and when it arrives; an empty one is the end of the stream.
type Queue = (Instant, Bytes);

/// Carries a connection until both ends have closed, one is lost, or the link breaks.
pub(super) async fn run(mut client: TcpStream, target: &str, links: Links, counters: &Counters) {
    let mut broken = links.clone();
    let mut server = None;
    let carry = async {
        opened(&mut links.clone()).await;
        let server = server.insert(TcpStream::connect(target).await?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::try_join!(
            pump(client_read, server_write, links.clone(), &counters.up),
            pump(server_read, client_write, links.clone(), &counters.down),
        )
    };
    let orderly = tokio::select! {
        carried = carry => carried.is_ok(),
        // Fails only when the proxy is gone, and then this task ends as well.
        _ = broken.wait_for(|link| *link == Link::Broken) => false,
    };
    if !orderly {
        // Closing with this set sends RST; a socket that is dead already does not take it, and needs none.
        let _ = client.set_zero_linger();
        if let Some(server) = server {
            let _ = server.set_zero_linger();
        }
    }
}

async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, links: Links, count: &AtomicU64) -> io::Result<()> {
    let (queue, arriving) = mpsc::channel(UNDER_WAY);
    let (read, written) = tokio::join!(read(from, queue, links.clone()), write(to, arriving, links, count));
    written.and(read)
}

async fn read(mut from: ReadHalf<'_>, queue: mpsc::Sender<Queue>, mut links: Links) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        opened(&mut links).await;
        buffer.reserve(CHUNK);
        let count = match from.read_buf(&mut buffer).await {
            Ok(count) => count,
            Err(error) => {
                // A reset, too, does not get through a silent link.
                opened(&mut links).await;
                return Err(error);
            }
        };
        let latency = match *links.borrow() {
            Link::Open(latency) => latency,
            Link::Silent | Link::Broken => Duration::ZERO,
        };
        // The writer has gone only if it failed, and its error is the one that counts.
        if queue.send((Instant::now() + latency, buffer.split().freeze())).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut arriving: mpsc::Receiver<Queue>,
    mut links: Links,
    count: &AtomicU64,
) -> io::Result<()> {
    while let Some((due, chunk)) = arriving.recv().await {
        tokio::time::sleep_until(due).await;
        opened(&mut links).await;
        if chunk.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&chunk).await?;
        count.fetch_add(chunk.len() as u64, Ordering::AcqRel);
    }
    Ok(())
}

/// Waits while the link is silent.
async fn opened(links: &mut Links) {
    // Fails only when the proxy is gone, and then this task ends as well.
    let _ = links.wait_for(|link| *link != Link::Silent).await;
}
