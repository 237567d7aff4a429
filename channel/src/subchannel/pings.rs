//! PINGs on one connection: those by which the owner asks whether the peer lives, and those of HTTP/2 keepalive.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// HTTP/2 keepalive.
///
/// # Defaults
/// Off; switched on, a PING goes out after 10 s (servers commonly refuse more frequent ones) and must be answered
/// within 10 s, with calls in flight only (gRFC A8). Where a server says `too_many_pings` all the same, the channel's
/// new connections wait for twice as long, and it is logged. Silence alone asks nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long after the last PING the next one is sent; what is below 10 s counts as that.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Whether a connection without calls is asked too.
    pub while_idle: bool,
    /// Where calls wait and the peer has said nothing for so long, it is asked sooner, once; where that PING has no answer
    /// for as long again, the endpoint is ejected as a black hole, and comes back through an answered PING. Calls in flight
    /// on it go on, others go elsewhere. Between two such PINGs the peer has said something, or 10 s have passed. For
    /// short calls: a stream that rests looks silent too.
    pub silence: Option<Duration>,
}

/// gRFC A8's least time between PINGs.
const LEAST_INTERVAL: Duration = Duration::from_secs(10);

impl KeepAlive {
    /// As it may be used.
    pub(crate) fn checked(self) -> Self {
        Self { interval: self.interval.max(LEAST_INTERVAL), ..self }
    }

    /// After a server's `too_many_pings` (gRFC A8).
    pub(crate) fn doubled(self) -> Self {
        Self { interval: self.interval.saturating_mul(2), ..self }
    }
}

/// Whether the peer ended the connection because it was asked too often: A8's reason and debug data, of which h2 shows
/// the latter in its text only.
pub(super) fn too_many_pings(error: &h2::Error) -> bool {
    error.is_go_away()
        && error.is_remote()
        && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        && error.to_string().contains("too_many_pings")
}

impl Default for KeepAlive {
    fn default() -> Self {
        let limit = Duration::from_secs(10);
        Self { interval: limit, timeout: limit, while_idle: false, silence: None }
    }
}

/// What the PINGs of a connection have told.
pub(super) enum Sign {
    /// The owner's PING was answered.
    Pong,
    /// Calls wait, the peer says nothing, and a PING has no answer so far.
    Silent,
    /// Keepalive went unanswered: the reason.
    Dead(String),
}

/// PINGs: the owner's, those of keepalive, and those that silence asks for. HTTP/2 as h2 offers it has one under way at a
/// time, so one answer serves all.
pub(super) struct Pings {
    port: Option<h2::PingPong>,
    /// The owner waits for an answer.
    pub(super) wanted: bool,
    under_way: bool,
    keepalive: Option<KeepAlive>,
    /// Until the next keepalive PING, or until the answer is overdue.
    timer: Option<Pin<Box<Sleep>>>,
    /// When the last one was sent, and how many bytes had come by its end.
    last: Option<(Instant, u64)>,
    silence: Option<Silence>,
}

/// How long nothing was heard while calls wait.
struct Silence {
    after: Duration,
    /// How many bytes had come when there was last something to hear, or nobody listened; and when that was.
    heard: u64,
    since: Instant,
    busy: bool,
    /// The owner knows.
    told: bool,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(after: Duration) -> Self {
        let timer = Box::pin(sleep(after));
        Self { after, heard: 0, since: Instant::now(), busy: false, told: false, timer }
    }
}

impl Pings {
    pub(super) fn new(port: Option<h2::PingPong>, keepalive: Option<KeepAlive>) -> Self {
        let timer = keepalive.map(|k| Box::pin(sleep(k.interval)));
        let silence = keepalive.and_then(|k| k.silence).map(Silence::new);
        Self { port, wanted: false, under_way: false, keepalive, timer, last: None, silence }
    }

    /// `busy`: calls are in flight. `heard`: how many bytes have come from the peer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, busy: bool, heard: u64) -> Poll<Sign> {
        if self.poll_silence(cx, busy, heard).is_ready() {
            return Poll::Ready(Sign::Silent);
        }
        loop {
            if self.under_way && self.port.as_mut().is_some_and(|port| port.poll_pong(cx).is_ready()) {
                self.under_way = false;
                // The answer itself is nothing that was heard.
                self.last = self.last.map(|(at, _)| (at, heard));
                self.restart(|k| k.interval);
                if std::mem::take(&mut self.wanted) {
                    return Poll::Ready(Sign::Pong);
                }
            }
            if self.wanted && !self.under_way && self.send(heard) {
                continue; // registers for the answer
            }
            let (Some(timer), Some(k)) = (&mut self.timer, self.keepalive) else { return Poll::Pending };
            if pin!(timer.as_mut()).poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.under_way {
                let reason = format!("keepalive: no answer to a PING within {:?}", k.timeout);
                return Poll::Ready(Sign::Dead(reason));
            }
            if !((busy || k.while_idle) && self.send(heard)) {
                self.restart(|k| k.interval);
            }
        }
    }

    /// Ready once for each silence, when its PING has waited as long as the silence that it was sent for.
    fn poll_silence(&mut self, cx: &mut Context<'_>, busy: bool, heard: u64) -> Poll<()> {
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        if heard != silence.heard || !busy || !silence.busy {
            (silence.heard, silence.since, silence.told) = (heard, Instant::now(), false);
        }
        silence.busy = busy;
        if !busy || silence.told {
            return Poll::Pending;
        }
        loop {
            let Some(silence) = &mut self.silence else { return Poll::Pending };
            let due = match self.last {
                Some((sent, _)) if self.under_way => sent.max(silence.since) + silence.after,
                // A server takes one PING after each thing that it has said, and else counts them.
                Some((sent, said)) if said == heard => {
                    (silence.since + silence.after).max(sent + LEAST_INTERVAL)
                }
                _ => silence.since + silence.after,
            };
            silence.timer.as_mut().reset(due);
            ready!(silence.timer.as_mut().poll(cx));
            if self.under_way {
                silence.told = true;
                return Poll::Ready(());
            }
            if !self.send(heard) {
                return Poll::Pending;
            }
        }
    }

    /// Sends one; false where h2 takes none.
    fn send(&mut self, heard: u64) -> bool {
        self.under_way = self.port.as_mut().is_some_and(|port| port.send_ping(h2::Ping::opaque()).is_ok());
        if self.under_way {
            self.last = Some((Instant::now(), heard));
            self.restart(|k| k.timeout);
        }
        self.under_way
    }

    fn restart(&mut self, after: impl FnOnce(KeepAlive) -> Duration) {
        if let (Some(timer), Some(k)) = (&mut self.timer, self.keepalive) {
            timer.as_mut().reset(Instant::now() + after(k));
        }
    }
}
