//! One dial: from an endpoint, address after address, to an HTTP/2 connection whose peer's SETTINGS have arrived. The transport comes from
//! `connect.rs`, TLS from `tls/handshake.rs`; what fails is told in words that say at which step and what to do. Next
//! is `connection.rs`, which drives what comes out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::connect::{BoxIo, Connect};
use super::connection::{Happening, Reached};
use super::id::ConnectionId;
use super::pings::KeepAlive;
use super::slots::SlotFreed;
use super::wire::{Wire, WireRecord};
use crate::endpoint::{Address, Endpoint};
use crate::load::Load;
use crate::metrics::subchannel::Subchannels;

/// As in tonic's client: enough for 1 MB messages at loopback and data-centre round trips.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// The largest that HTTP/2 knows. A smaller one lets callers that do not read their streams stall everybody else on
/// the connection; what may lie unread is bounded by the stream windows.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Larger frames, fewer of them: a 1 MB message is 16 frames of 64 KiB instead of 64.
const MAX_FRAME: u32 = 64 * 1024;
/// Late answers to calls that were cancelled are expected; 10,000 of them must not end a shared connection.
const REMEMBERED_RESETS: usize = 16 * 1024;
/// For how long an answer to a cancelled call may be late.
const REMEMBER_RESETS_FOR: Duration = Duration::from_secs(30);
/// Stands for "the peer's SETTINGS have not arrived": no peer announces this limit.
const NO_SETTINGS_YET: usize = usize::MAX - 1;

/// Everything that one dial needs.
pub(crate) struct Dial {
    pub(crate) id: ConnectionId,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) load: Arc<Load>,
    pub(crate) transport: Transport,
    pub(crate) keepalive: Option<KeepAlive>,
    /// It closes when it was not used for so long.
    pub(crate) idle: Option<Duration>,
    pub(crate) slot_freed: Arc<SlotFreed>,
    pub(crate) happenings: mpsc::Sender<(ConnectionId, Happening)>,
    pub(crate) metrics: Arc<Subchannels>,
}

/// How a channel reaches its endpoints.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) connector: Arc<dyn Connect>,
    pub(crate) connect_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsConfig>,
}

pub(super) type H2 = h2::client::Connection<Wire<BoxIo>, Bytes>;

/// What a dial that succeeded has made.
pub(super) struct Established {
    pub(super) send: SendRequest<Bytes>,
    pub(super) h2: H2,
    pub(super) wire: Arc<WireRecord>,
    pub(super) reached: Reached,
}

/// The part of the time until `over` that falls to each of `left` attempts, rounded to what can be read.
fn fair_part(over: Instant, left: usize) -> Duration {
    let rest = over.saturating_duration_since(Instant::now());
    let part = rest / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    Duration::from_micros(((part.as_micros() as u64 + 500) / 1000).max(1) * 1000)
}

fn note<T>(failed: &mut Vec<String>, reason: String) -> Option<T> {
    failed.push(reason);
    None
}

/// How far a dial has come.
#[derive(Clone, Copy)]
enum Step {
    Transport,
    Tls,
    Http2,
}

impl Step {
    /// What has not happened in time.
    fn overdue(self) -> &'static str {
        match self {
            Self::Transport => "no connection (a firewall that drops packets, or a host that is down?)",
            Self::Tls => "no answer to the TLS handshake (stopped, or not a server of TLS?)",
            Self::Http2 => {
                "accepted no HTTP/2: it accepts and does not speak (stopped, or not a gRPC server?)"
            }
        }
    }
}

impl Transport {
    /// Whether it speaks TLS.
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Connects to an endpoint, all within the connect timeout. The text of an error says what to do.
    pub(super) async fn dial(&self, endpoint: &Endpoint) -> Result<Established, String> {
        if endpoint.secure && !self.is_secure() {
            return Err(format!(
                "{} wants TLS (so its record says) and this channel has none; set ChannelBuilder::tls",
                endpoint.address
            ));
        }
        let over = Instant::now() + self.connect_timeout;
        let (mut left, mut failed) = (1 + endpoint.further.len(), Vec::new());
        for address in endpoint.addresses() {
            match self.dial_address(endpoint, address, fair_part(over, left), &mut failed).await {
                Some(established) => return Ok(established),
                None => left -= 1,
            }
        }
        Err(failed.join("; "))
    }

    /// Tries what stands behind one address, one after the other; what fails is noted.
    async fn dial_address(
        &self,
        endpoint: &Endpoint,
        address: &Address,
        limit: Duration,
        failed: &mut Vec<String>,
    ) -> Option<Established> {
        let over = Instant::now() + limit;
        let found = match timeout(limit, self.connector.resolve(address)).await {
            Ok(Ok(found)) if !found.is_empty() => found,
            Ok(Ok(_)) => return note(failed, format!("{address}: the name has no address")),
            Ok(Err(e)) => return note(failed, format!("{address}: looking the name up: {e}")),
            Err(_) => {
                return note(failed, format!("{address}: looking the name up took longer than {limit:?}"));
            }
        };
        for (tried, peer) in found.iter().enumerate() {
            let shown: Arc<str> =
                if peer == address { address.to_string() } else { format!("{address} ({peer})") }.into();
            let (mut step, limit) = (Step::Transport, fair_part(over, found.len() - tried));
            let established = timeout(limit, self.establish(endpoint, peer, &shown, &mut step)).await;
            match established.unwrap_or_else(|_| Err(format!("{shown}: {} within {limit:?}", step.overdue())))
            {
                Ok((send, h2, wire)) => {
                    let reached = Reached { address: address.clone(), shown };
                    return Some(Established { send, h2, wire, reached });
                }
                Err(reason) => failed.push(reason),
            }
        }
        None
    }

    async fn establish(
        &self,
        endpoint: &Endpoint,
        peer: &Address,
        shown: &str,
        step: &mut Step,
    ) -> Result<(SendRequest<Bytes>, H2, Arc<WireRecord>), String> {
        let io = self.connector.connect(peer).await.map_err(|e| format!("connecting to {shown}: {e}"))?;
        *step = Step::Tls;
        let io = self.secured(io, endpoint).await.map_err(|e| format!("connecting to {shown}: {e}"))?;
        *step = Step::Http2;
        let wire = Arc::new(WireRecord::default());
        let spoken = |e: h2::Error| format!("HTTP/2 with {shown}: {}", wire.explain(&e));
        let (send, mut h2) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESETS_FOR)
            .max_local_error_reset_streams(None)
            .initial_max_send_streams(NO_SETTINGS_YET)
            .enable_push(false)
            .handshake::<_, Bytes>(Wire::new(io, wire.clone()))
            .await
            .map_err(spoken)?;
        poll_fn(|cx| match Pin::new(&mut h2).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(format!("{shown} closed before its SETTINGS arrived"))),
            Poll::Ready(Err(e)) => Poll::Ready(Err(spoken(e))),
            Poll::Pending if send.current_max_send_streams() == NO_SETTINGS_YET => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        Ok((send, h2, wire))
    }

    /// The transport with TLS over it, where the channel has that.
    #[cfg(feature = "tls")]
    async fn secured(&self, io: BoxIo, endpoint: &Endpoint) -> Result<BoxIo, String> {
        match &self.tls {
            Some(tls) => tls.handshake(io, &endpoint.authority).await,
            None => Ok(io),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn secured(&self, io: BoxIo, _: &Endpoint) -> Result<BoxIo, String> {
        Ok(io)
    }
}
