//! The transport under h2, with a record of what passed: how many bytes left (proof that a call was not sent), how many
//! came (proof that the peer lives), and the first of them (so that an error can say that the peer speaks something else
//! than HTTP/2).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What passed over one connection. Written by its driver, read by requests.
#[derive(Debug, Default)]
pub(crate) struct WireRecord {
    written: AtomicU64,
    read: AtomicU64,
    /// The first eight bytes received, in order, zeros where there were fewer.
    opening: AtomicU64,
}

impl WireRecord {
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// The error of a connection, in words that name the remedy where the peer speaks another protocol.
    pub(crate) fn explain(&self, error: &h2::Error) -> String {
        match self.opening.load(Acquire).to_be_bytes() {
            [b'H', b'T', b'T', b'P', b'/', ..] => {
                "the peer speaks HTTP/1.1, not HTTP/2; is this the port of a gRPC server?".into()
            }
            // A TLS record: alert (21) or handshake (22), version 3.x.
            [21 | 22, 3, ..] => {
                "the peer speaks TLS and this channel does not; set ChannelBuilder::tls, or name a plaintext port".into()
            }
            _ => error.to_string(),
        }
    }

    /// What the peer speaks instead of TLS, where its first bytes tell.
    #[cfg(feature = "tls")]
    pub(crate) fn plaintext(&self) -> Option<&'static str> {
        match self.opening.load(Acquire).to_be_bytes() {
            [b'H', b'T', b'T', b'P', b'/', ..] => Some("it answered with plaintext HTTP/1.1"),
            // A frame of SETTINGS (4), which opens a connection, or of GOAWAY (7), on no stream (RFC 9113, section 4.1).
            [0, 0, _, 4 | 7, _, 0, 0, 0] => Some("it answered with plaintext HTTP/2"),
            _ => None,
        }
    }
}

/// A transport with a record.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    io: T,
    record: Arc<WireRecord>,
    received: usize,
}

impl<T> Wire<T> {
    pub(crate) fn new(io: T, record: Arc<WireRecord>) -> Self {
        Self { io, record, received: 0 }
    }

    fn note_opening(&mut self, bytes: &[u8]) {
        let mut opening = self.record.opening.load(Relaxed).to_be_bytes();
        for (place, byte) in opening[self.received..].iter_mut().zip(bytes) {
            *place = *byte;
        }
        self.received = (self.received + bytes.len()).min(opening.len());
        self.record.opening.store(u64::from_be_bytes(opening), Release);
    }

    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = written {
            self.record.written.fetch_add(*n as u64, AcqRel);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.record.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        if this.received < 8 && buf.filled().len() > before {
            this.note_opening(&buf.filled()[before..]);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.count(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
