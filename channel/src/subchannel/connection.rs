//! One HTTP/2 connection to one endpoint, as requests and the owner see it; `driver.rs` makes it and drives it to its end. What
//! happens to it is told to the owner as [`Happening`]s; what the owner wants of it comes as [`Command`]s.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Scheme;
use tokio::sync::mpsc;

use super::id::ConnectionId;
use super::slots::{SlotFreed, Slots};
use super::state::Cause;
use super::wire::WireRecord;
use crate::endpoint::{Address, Endpoint};
use crate::load::Load;

/// What a connection tells its owner.
#[derive(Debug)]
pub(crate) enum Happening {
    /// SETTINGS arrived: calls may be sent.
    Ready(Arc<Connection>),
    /// It never became ready.
    DialFailed(Arc<str>),
    /// The peer announced that it will close; calls in flight go on.
    GoAway { served: bool },
    /// The peer wants fewer PINGs; it closes, which comes next.
    TooManyPings,
    /// Its task panicked, before or after it was ready.
    Panicked,
    /// It ended.
    Lost { reason: Arc<str>, served: bool },
    /// The PING that the owner asked for was answered.
    Pong,
    /// The health check on it says that the server serves, or why not.
    Health(Option<Arc<str>>),
    /// Calls on it fail, or their deadlines expire, one after the other.
    Suspect(Cause),
    /// Calls wait for a stream.
    Saturated,
}

/// What the owner asks of a connection. Dropping its end asks to take no new calls, and to end with the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// End now: the peer is gone.
    Kill,
    /// Ask whether the peer lives.
    Ping,
}

/// Where a connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// The one of the endpoint's addresses.
    pub(crate) address: Address,
    /// It, and what stood behind it, as errors and dumps show it.
    pub(crate) shown: Arc<str>,
}

/// The handle by which requests use a connection.
pub(crate) struct Connection {
    pub(super) id: ConnectionId,
    pub(crate) endpoint: Arc<Endpoint>,
    /// Where it goes.
    pub(crate) reached: Reached,
    pub(crate) load: Arc<Load>,
    /// The `:scheme` of its requests.
    pub(crate) scheme: Scheme,
    pub(super) send: SendRequest<Bytes>,
    pub(super) slots: Slots,
    pub(super) wire: Arc<WireRecord>,
    /// A server that has answered a call is a server; one that only accepts connections may be anything.
    pub(super) served: AtomicBool,
    pub(super) slot_freed: Arc<SlotFreed>,
    pub(super) happenings: mpsc::Sender<(ConnectionId, Happening)>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("instance", &self.endpoint.instance).finish()
    }
}

/// As errors name it.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {} at {}", self.endpoint.instance, self.reached.shown)
    }
}

impl Connection {
    /// A handle for one request. h2 takes `&mut`; its clone is two reference counts.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }

    /// Tells the owner that calls wait for a stream, once until the owner has done what it can.
    pub(crate) fn ask_to_grow(&self) {
        if self.load.may_grow.swap(false, AcqRel)
            && self.happenings.try_send((self.id, Happening::Saturated)).is_err()
        {
            self.load.may_grow.store(true, Release); // the next call that waits asks again
        }
    }

    /// Streams in use.
    pub(crate) fn used(&self) -> u32 {
        self.slots.used()
    }

    /// How many bytes have left for the peer.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.wire.written()
    }

    /// How many bytes have come from the peer.
    pub(super) fn bytes_read(&self) -> u64 {
        self.wire.read()
    }

    /// The server answered a call.
    pub(crate) fn served(&self) {
        if !self.served.load(Relaxed) {
            self.served.store(true, Relaxed);
        }
    }

    /// Tells the owner what the health check on it says.
    pub(crate) async fn health(&self, trouble: Option<Arc<str>>) {
        // An owner that is gone misses nothing.
        let _ = self.happenings.send((self.id, Happening::Health(trouble))).await;
    }

    /// Whether it takes no new calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// Tells the owner that its calls go wrong. The word may be lost where the owner is busy: the next such call says it
    /// again.
    pub(crate) fn suspect(&self, cause: Cause) {
        let _ = self.happenings.try_send((self.id, Happening::Suspect(cause)));
    }
}
