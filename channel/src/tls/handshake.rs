//! The handshake, within a dial: a transport and a server name go in, a transport on which HTTP/2 is agreed comes out,
//! or a text that says what happened and what to do. Next is HTTP/2 itself, in `subchannel/dial.rs`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::TlsConfig;
use super::material::H2;
use crate::subchannel::connect::BoxIo;
use crate::subchannel::wire::{Wire, WireRecord};

impl TlsConfig {
    /// Speaks TLS over `io`. The name that the certificate must be for is the configured one, or else the authority's
    /// host.
    pub(crate) async fn handshake(&self, io: BoxIo, authority: &Authority) -> Result<BoxIo, String> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name_of(authority)?,
        };
        let shows_identity = self.files.material.identity.is_some();
        let config = self.files.fresh().await;
        let record = Arc::new(WireRecord::default());
        let io = Wire::new(io, record.clone());
        let stream = match TlsConnector::from(config).connect(name, io).await {
            Ok(stream) => stream,
            Err(error) => return Err(explain_handshake(&error, &record, shows_identity)),
        };
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(NO_H2.into());
        }
        Ok(Box::new(Explained { stream, shows_identity, heard: false }))
    }
}

const NO_H2: &str = "the peer speaks TLS but does not agree on HTTP/2 (ALPN \"h2\"); is it the port of a gRPC server? a \
                     proxy or server in front must have h2 switched on";

fn name_of(authority: &Authority) -> Result<ServerName<'static>, String> {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        format!("{bare:?} is no name that a certificate can be for; set TlsConfig::server_name or Endpoint::authority")
    })
}

fn explain_handshake(error: &io::Error, record: &WireRecord, shows_identity: bool) -> String {
    if let Some(text) = explain(error, shows_identity) {
        let spoken = record.plaintext().map(|what| format!(" ({what})")).unwrap_or_default();
        return format!("TLS: {text}{spoken}");
    }
    if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset {
        return "TLS: the peer closed the connection during the handshake; a plaintext server does that (then leave \
                ChannelBuilder::tls out), and one that refuses this client without saying why"
            .into();
    }
    format!("TLS: {error}")
}

/// What rustls says, in words that name the remedy; `None` for errors of the transport itself.
fn explain(error: &io::Error, shows_identity: bool) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let text = match error {
        Error::InvalidMessage(_) => {
            "the peer does not speak TLS: this is not the port of a TLS server, or it serves in plaintext (then leave \
             ChannelBuilder::tls out)"
                .into()
        }
        Error::InvalidCertificate(problem) => explain_certificate(problem),
        Error::AlertReceived(alert) => explain_alert(*alert, shows_identity),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the peer speaks neither TLS 1.2 nor 1.3; it must be brought up to date".into()
        }
        Error::NoApplicationProtocol => NO_H2.into(),
        other => other.to_string(),
    };
    Some(text)
}

fn explain_certificate(problem: &CertificateError) -> String {
    let remedy = match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate must be renewed, or this machine's clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or this machine's clock is wrong"
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by no authority that this channel trusts; add its CA with \
             TlsConfig::ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name; set TlsConfig::server_name or Endpoint::authority to one that \
             it holds"
        }
        CertificateError::BadSignature => {
            "the server's certificate is not signed by the authority that it names; was the CA replaced under the same \
             name? then add the new one with TlsConfig::ca_file"
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server shows the certificate of a CA as its own; it needs one of its own, signed by that CA"
        }
        _ => "the server's certificate is refused",
    };
    format!("{remedy} ({problem})")
}

fn explain_alert(alert: AlertDescription, shows_identity: bool) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::BadCertificate | A::HandshakeFailure if !shows_identity => format!(
            "the server wants a client certificate and this channel has none; set TlsConfig::identity_files (alert: \
             {alert:?})"
        ),
        A::CertificateRequired
        | A::BadCertificate
        | A::CertificateExpired
        | A::CertificateRevoked
        | A::CertificateUnknown
        | A::UnsupportedCertificate
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError
            if shows_identity =>
        {
            format!(
                "the server refuses this channel's client certificate; check that it is valid and signed by a CA that \
                 the server trusts (alert: {alert:?})"
            )
        }
        A::NoApplicationProtocol => NO_H2.into(),
        A::UnrecognisedName => {
            "the server knows no such name; set TlsConfig::server_name or Endpoint::authority to one that it serves".into()
        }
        A::ProtocolVersion => "the server speaks neither TLS 1.2 nor 1.3; it must be brought up to date".into(),
        _ => format!("the server ended the handshake (alert: {alert:?})"),
    }
}

/// A TLS transport whose errors name the remedy: in TLS 1.3 a server refuses a client's certificate only after the
/// client's side of the handshake is over, so that its word comes with the first read.
struct Explained<T> {
    stream: TlsStream<T>,
    shows_identity: bool,
    /// The peer has sent something: its certificate check is behind us.
    heard: bool,
}

impl<T> Explained<T> {
    #[cold]
    fn explained(&self, error: io::Error) -> io::Error {
        match explain(&error, self.shows_identity) {
            Some(text) => io::Error::new(error.kind(), format!("TLS: {text}")),
            None => error,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Explained<T> {
    /// A server that refuses a certificate says why and closes; a write may meet the close before a read has the word.
    /// Then the write waits for it: on a connection that is lost a read ends soon.
    fn after_write<R>(&mut self, written: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        let Poll::Ready(Err(error)) = written else { return written };
        let lost = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if lost && !self.heard {
            let mut byte = [0];
            match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
                Poll::Ready(Err(said)) => return Poll::Ready(Err(self.explained(said))),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Err(self.explained(error)))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Explained<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard |= matches!(read, Poll::Ready(Ok(())));
        read.map_err(|error| self.explained(error))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Explained<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.after_write(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
