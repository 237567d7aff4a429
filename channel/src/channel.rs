//! [`Channel`], the service that generated clients call. Its clones share a [`Front`] with the owner. It is made in
//! `builder.rs`; a call's own way is in `call.rs`.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::call::CallFuture;
use crate::dump::ChannelDump;
use crate::front::{ConnectivityState, Front, Handle};
use crate::subchannel::ResponseBody;

/// A balanced gRPC channel: hand it to any client that tonic generates.
///
/// A clone is a reference count. The channel's tasks end when the last clone is dropped; calls in flight are finished.
///
/// `poll_ready` is always ready; what can go wrong is told by `call`, as a [`Status`].
///
/// ```no_run
/// use svc_channel::{Channel, Endpoint};
/// # use svc_proto::greeter::v1::{greeter_client::GreeterClient, HelloRequest};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = Channel::fixed([Endpoint::new("10.0.0.1:50051")?, Endpoint::new("10.0.0.2:50051")?]);
/// let mut greeter = GreeterClient::new(channel);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Channel {
    handle: Arc<Handle>,
}

// What users build on: clients are cloned into tasks, calls are spawned, and states derive `Debug`.
const _: () = {
    const fn is_shared<T: Clone + Send + Sync + fmt::Debug + 'static>() {}
    const fn is_spawned<T: Future + Send + fmt::Debug + 'static>() {}
    const fn is_sent<T: Send + fmt::Debug + 'static>() {}
    is_shared::<Channel>();
    is_shared::<WeakChannel>();
    is_spawned::<CallFuture>();
    is_sent::<ResponseBody>();
};

impl Channel {
    pub(crate) fn new(front: Arc<Front>, end: DropGuard) -> Self {
        Self { handle: Arc::new(Handle::new(front, end)) }
    }

    /// The channel's state as it changes: for readiness probes.
    ///
    /// ```no_run
    /// # async fn example(channel: svc_channel::Channel) {
    /// use svc_channel::ConnectivityState;
    /// let mut state = channel.watch_state();
    /// // An error means that the channel is gone.
    /// let _ = state.wait_for(|s| *s == ConnectivityState::Ready).await;
    /// # }
    /// ```
    pub fn watch_state(&self) -> watch::Receiver<ConnectivityState> {
        self.handle.state.subscribe()
    }

    /// Connects now, if the channel is idle ([`ChannelBuilder::idle_timeout`](crate::ChannelBuilder::idle_timeout)), rather than with the next call: for those
    /// who wait for [`ConnectivityState::Ready`]. It counts as a call does.
    pub fn connect(&self) {
        if let Some(mark) = &self.handle.mark {
            mark.touch();
            mark.wake();
        }
    }

    /// A look at the channel for whoever only observes it.
    pub fn downgrade(&self) -> WeakChannel {
        WeakChannel(Arc::downgrade(&self.handle))
    }

    /// What the channel sees: every endpoint with its state, load and last error.
    pub fn dump(&self) -> ChannelDump {
        ChannelDump::of(&self.handle.name, &self.handle.snapshot.load())
    }
}

/// A look at a [`Channel`] that does not keep it alive.
#[derive(Clone)]
pub struct WeakChannel(Weak<Handle>);

impl WeakChannel {
    /// Whether somebody still has the channel.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// What the channel sees; `None` once it is gone.
    pub fn dump(&self) -> Option<ChannelDump> {
        let handle = self.0.upgrade()?;
        Some(ChannelDump::of(&handle.name, &handle.snapshot.load()))
    }
}

impl fmt::Debug for WeakChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakChannel").field("alive", &self.is_alive()).finish()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.handle.snapshot.load();
        f.debug_struct("Channel")
            .field("name", &self.handle.name)
            .field("state", &*self.handle.state.borrow())
            .field("endpoints", &snapshot.endpoints.len())
            .field("ready", &snapshot.ready.len())
            .finish()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = CallFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        CallFuture::new(&self.handle, request)
    }
}
