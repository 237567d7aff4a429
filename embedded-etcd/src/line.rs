//! A connection that faults can hold or cut, over TCP or in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::transport::server::Connected;

use crate::member::Faults;

/// The two kinds of connections.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream),
    Memory(DuplexStream),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing is read or written; the peer sees silence.
    Frozen,
    Cut,
}

/// The server's end of a connection.
#[derive(Debug)]
pub(crate) struct Line {
    io: Io,
    /// The run it belongs to: with its end the line is cut.
    run: u64,
    state: State,
    faults: WatchStream<Faults>,
    /// Whoever stops the server waits until all of these are gone.
    _open: TaskTrackerToken,
}

impl Line {
    pub(crate) fn new(io: Io, run: u64, faults: WatchStream<Faults>, open: TaskTrackerToken) -> Self {
        Self { io, run, state: State::Open, faults, _open: open }
    }

    /// Also makes sure that a change of the faults wakes the connection's task.
    fn state(&mut self, cx: &mut Context<'_>) -> State {
        while let Poll::Ready(Some(faults)) = Pin::new(&mut self.faults).poll_next(cx) {
            self.state = if faults.run != self.run {
                State::Cut
            } else if faults.frozen {
                State::Frozen
            } else {
                State::Open
            };
        }
        self.state
    }

    /// Lets an operation pass, or wait, or fail.
    fn pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state(cx) {
            State::Open => Poll::Ready(Ok(())),
            State::Frozen => Poll::Pending,
            State::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(cx))?;
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Memory(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.pass(cx))?;
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Memory(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(cx))?;
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Memory(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(cx))?;
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Memory(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
