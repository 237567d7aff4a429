//! Accepts connections, each wrapped so that the last stage of a stop can cut it: tonic's own connections are tasks
//! that outlive the server's future, and hyper's graceful shutdown has no limit.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::error::{Error, Kind};

/// How long accepting pauses after an error such as "too many open files", which would come back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`, which may have port 0 and a host name.
///
/// # Errors
/// The address cannot be resolved or bound; the message says what to do.
pub(super) async fn bind(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "stop whoever listens there, or listen on port 0 for a free one",
            io::ErrorKind::PermissionDenied => "listen on a port from 1024 up",
            io::ErrorKind::AddrNotAvailable => {
                "this host has no such address; 0.0.0.0 listens on all that it has"
            }
            _ => "write host:port, such as 0.0.0.0:50051",
        };
        Error::new(Kind::Serve, format!("cannot listen on {address:?}: {error}; {remedy}")).with_source(error)
    })
}

/// The connections of a listener, as a stream that never ends; tonic drops it, and so the listener, when it stops
/// accepting.
pub(super) fn incoming(
    listener: TcpListener,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    futures_util::stream::unfold((listener, cut), |(listener, cut)| async move {
        let connection = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        // A small write that waits for an answer is what a call is; an error here is the connection's own.
        let _ = connection.set_nodelay(true);
        let connection =
            Connection { stream: connection, cut: Box::pin(cut.clone().cancelled_owned()), is_cut: false };
        Some((Ok(connection), (listener, cut)))
    })
}

/// An accepted connection that ends with an error once it is cut.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
}

impl Connection {
    /// Fails once the connection is cut, and sees to it that whoever waits is woken then.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_cut || self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

/// Where a listener listens; port 0 has become the bound one.
pub(super) fn local_address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|error| {
        Error::new(Kind::Serve, "the listener has no address; is it a TCP socket?").with_source(error)
    })
}
