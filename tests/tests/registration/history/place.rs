//! Where a history is played: on the embedded etcd without sockets, so that the clock can be paused, or on a real one; and the
//! link between a process and it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::Client;
use futures_util::Stream;
use svc_channel::{BoxIo, connector_fn};
use svc_registry::{Etcd, EtcdConfig};
use svc_tests::etcd::TestEtcd;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

#[derive(Debug)]
pub(super) enum Place {
    Memory(EmbeddedEtcd),
    Real(TestEtcd),
}

impl Place {
    pub(super) async fn client(&self) -> Client {
        match self {
            Place::Memory(etcd) => etcd.client().await.expect("it is up"),
            Place::Real(etcd) => etcd.client().await,
        }
    }

    pub(super) async fn link(&self) -> Link {
        match self {
            Place::Memory(etcd) => Link::Memory(watch::Sender::new(State::Well), etcd.dialer()),
            Place::Real(etcd) => Link::Real(Proxy::start(etcd.address()).await.expect("a free port")),
        }
    }

    pub(super) async fn kill(&self) {
        match self {
            Place::Memory(etcd) => etcd.stop().await,
            Place::Real(etcd) => etcd.kill().await,
        }
    }

    pub(super) async fn start(&self) {
        match self {
            Place::Memory(etcd) => etcd.restart().await.expect("it has no sockets"),
            Place::Real(etcd) => etcd.start().await,
        }
    }

    pub(super) async fn wipe(&self) {
        match self {
            Place::Memory(etcd) => etcd.wipe().await,
            Place::Real(etcd) => etcd.wipe().await,
        }
    }
}

/// What lies between a process and etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Well,
    /// What is sent arrives when the link is well again.
    Silent,
    /// Connections are reset, new ones refused.
    Cut,
}

#[derive(Debug)]
pub(super) enum Link {
    Memory(watch::Sender<State>, embedded_etcd::Dialer),
    Real(Proxy),
}

impl Link {
    pub(super) fn set(&self, state: State) {
        match self {
            Link::Memory(link, _) => drop(link.send_replace(state)),
            Link::Real(proxy) => proxy.set(match state {
                State::Well => Mode::Pass,
                State::Silent => Mode::Blackhole,
                State::Cut => Mode::Reset,
            }),
        }
    }

    /// A handle on etcd, over this link.
    pub(super) fn etcd(&self) -> Etcd {
        let config = match self {
            Link::Real(proxy) => EtcdConfig::new([proxy.url()]).expect("a URL"),
            Link::Memory(link, dialer) => {
                let (link, dialer) = (link.subscribe(), dialer.clone());
                EtcdConfig::default().with_connector(connector_fn(move |_| {
                    let (mut link, dialer) = (link.clone(), dialer.clone());
                    async move {
                        // With its process gone the link stays as it was.
                        let state = link.wait_for(|state| *state != State::Silent).await.map(|state| *state);
                        match state {
                            Ok(State::Well) => Ok(Box::new(Gate::new(dialer.dial().await?, link)) as BoxIo),
                            _ => Err(io::ErrorKind::ConnectionRefused.into()),
                        }
                    }
                }))
            }
        };
        // A silent link is found out by this: the shorter, the more there is to be told of in a history.
        let config = config.with_command_timeout(Duration::from_secs(2)).expect("a time in bounds");
        Etcd::new(config).expect("inside a runtime")
    }
}

/// A process's end of a connection in memory.
#[derive(Debug)]
struct Gate {
    io: DuplexStream,
    states: WatchStream<State>,
    state: State,
}

impl Gate {
    fn new(io: DuplexStream, link: watch::Receiver<State>) -> Gate {
        Gate { io, states: WatchStream::new(link), state: State::Well }
    }

    /// Also makes sure that a change of the link wakes the connection's task.
    fn pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(Some(state)) = Pin::new(&mut self.states).poll_next(cx)
            && self.state != State::Cut
        {
            self.state = state;
        }
        match self.state {
            State::Well => Poll::Ready(Ok(())),
            State::Silent => Poll::Pending,
            State::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
