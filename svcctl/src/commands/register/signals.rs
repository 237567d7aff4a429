//! The signals that a wrapped command is owed, as svcctl hears them.

use crate::exit::{Exit, Failure};

/// A signal, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
    Hangup,
    Quit,
    User1,
    User2,
}

impl Signal {
    /// Asks to end, in order; what others mean is the command's affair.
    pub(super) fn stops(self) -> bool {
        matches!(self, Signal::Terminate | Signal::Interrupt)
    }
}

/// All of them; each `recv` is one.
#[derive(Debug)]
pub(super) struct Signals {
    #[cfg(unix)]
    streams: Vec<(Signal, tokio::signal::unix::Signal)>,
}

impl Signals {
    /// Listens from now on; their defaults no longer hold.
    pub(super) fn listen() -> Result<Signals, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let streams = [
                (Signal::Terminate, SignalKind::terminate()),
                (Signal::Interrupt, SignalKind::interrupt()),
                (Signal::Hangup, SignalKind::hangup()),
                (Signal::Quit, SignalKind::quit()),
                (Signal::User1, SignalKind::user_defined1()),
                (Signal::User2, SignalKind::user_defined2()),
            ];
            let streams = streams.into_iter().map(|(name, kind)| Ok((name, signal(kind)?)));
            let streams = streams
                .collect::<std::io::Result<_>>()
                .map_err(|error| Failure::new(Exit::Other, format!("cannot listen for signals: {error}")))?;
            Ok(Signals { streams })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    /// The next one. Cancel safe.
    pub(super) async fn recv(&mut self) -> Signal {
        #[cfg(unix)]
        return std::future::poll_fn(|cx| {
            for (name, stream) in &mut self.streams {
                if let std::task::Poll::Ready(Some(())) = stream.poll_recv(cx) {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await;
        #[cfg(not(unix))]
        {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            Signal::Interrupt
        }
    }
}
