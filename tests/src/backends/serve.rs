//! The accept loop of one backend. Connections are handed to a tonic server; at GOAWAY that server is told to shut
//! down while a successor takes the connections that come after, on the same listener.

use std::io;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use svc_channel::BoxIo;
use svc_proto::greeter::v1::greeter_server::GreeterServer;
use svc_proto::helloworld::greeter_server::GreeterServer as HelloworldServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Acceptor, Greeter};

/// Connections that may wait for the tonic server to take them.
const BACKLOG: usize = 64;

/// The largest message that the greeter takes or gives, in bytes.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

pub(super) enum Control {
    /// GOAWAY on all connections; go on with new ones.
    Goaway,
    /// GOAWAY on all connections, no new ones, and wait for their ends.
    Drain,
}

/// Serves until told to drain, or until `cut`, which also ends every connection.
pub(super) async fn serve(
    listener: TcpListener,
    greeter: Greeter,
    mut commands: mpsc::Receiver<Control>,
    cut: CancellationToken,
    tls: Acceptor,
    server: impl Fn() -> Server,
) {
    // The connections themselves are tonic's tasks: they end by GOAWAY, or because `Tracked` fails after `cut`.
    let mut generations = JoinSet::new();
    // Handshakes: a client that is slow at it keeps nobody else waiting.
    let mut greeting = JoinSet::new();
    'generation: loop {
        let shutdown = CancellationToken::new();
        let (connections, incoming) = mpsc::channel::<io::Result<Tracked>>(BACKLOG);
        let v1 = GreeterServer::new(greeter.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let router = server().add_service(v1).add_service(HelloworldServer::new(greeter.clone()));
        let signal = shutdown.clone().cancelled_owned();
        generations.spawn(router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), signal));
        loop {
            tokio::select! {
                biased; // a command concerns the connections that came before it
                () = cut.cancelled() => return,
                command = commands.recv() => {
                    shutdown.cancel();
                    match command {
                        Some(Control::Goaway) => continue 'generation,
                        Some(Control::Drain) | None => break 'generation,
                    }
                }
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    let config = tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let (greeter, cut, connections) = (greeter.clone(), cut.clone(), connections.clone());
                    let greet = async move {
                        let io: BoxIo = match config {
                            None => Box::new(stream),
                            Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                                Ok(stream) => Box::new(stream),
                                Err(_told) => return,
                            },
                        };
                        // A server that is gone drops it.
                        let _ = connections.send(Ok(Tracked::new(io, &greeter, &cut))).await;
                    };
                    greeting.spawn(greet);
                    while greeting.try_join_next().is_some() {}
                }
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = cut.cancelled() => {}
        () = async { while generations.join_next().await.is_some() {} } => {}
    }
}

/// A connection that is counted, and that breaks when its backend is cut.
struct Tracked {
    stream: BoxIo,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    greeter: Greeter,
}

impl Tracked {
    fn new(stream: BoxIo, greeter: &Greeter, cut: &CancellationToken) -> Self {
        greeter.count(|counts| {
            counts.accepted += 1;
            counts.connections += 1;
        });
        Tracked { stream, cut: Box::pin(cut.clone().cancelled_owned()), greeter: greeter.clone() }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.greeter.count(|counts| counts.connections -= 1);
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Tracked {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
