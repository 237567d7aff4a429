//! The task of one connection: dials (`dial.rs`) until the peer's SETTINGS arrive (only then is it Ready: h2 itself says so too
//! early), then drives it until it ends. `slots.rs` counts its streams; `pings.rs` asks whether the peer lives.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Scheme;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at};

use super::connection::{Command, Connection, Happening, Reached};
use super::dial::{Dial, Established, H2};
use super::pings::{KeepAlive, Pings, Sign, too_many_pings};
use super::slots::Slots;
use super::state::Cause;
use super::wire::WireRecord;
use crate::metrics::subchannel::Disconnect;

/// Dials, reports, and drives the connection to its end. Run by a task of the owner's, one for each dial; it ends when
/// the dial fails, when the connection ends, or when it is closed and idle, and tells the owner which.
pub(crate) async fn run(dial: Dial, mut commands: mpsc::Receiver<Command>) {
    let id = dial.id;
    let happenings = dial.happenings.clone();
    // A closed channel means that the owner is gone: nobody is left to be told.
    let tell = async |what| happenings.send((id, what)).await.is_ok();
    let established = tokio::select! {
        biased; // an owner that no longer wants it goes first
        () = unwanted(&mut commands) => return,
        established = dial.transport.dial(&dial.endpoint) => established,
    };
    let (connection, driver) = match established {
        Ok(Established { send, h2, wire, reached }) => (Arc::new(connection(&dial, send, wire, reached)), h2),
        Err(reason) => {
            dial.metrics.failed();
            tell(Happening::DialFailed(reason.into())).await;
            return;
        }
    };
    let mut open = dial.metrics.opened();
    let mut driver = Driver::new(connection.clone(), driver, commands, dial.keepalive, dial.idle);
    if !tell(Happening::Ready(connection.clone())).await {
        driver.close();
    }
    loop {
        let step = poll_fn(|cx| driver.poll_step(cx)).await;
        if std::mem::take(&mut driver.too_many_pings) {
            tell(Happening::TooManyPings).await;
        }
        let happening = match step {
            Step::GoAway(why) => {
                open.ends_for(why);
                Happening::GoAway { served: connection.served.load(Relaxed) }
            }
            Step::Pong => Happening::Pong,
            Step::Silent => Happening::Suspect(Cause::BlackHole),
            Step::Ended(why, reason) => {
                open.ends_for(if driver.abandoned { Disconnect::Shutdown } else { why });
                drop(open);
                connection.slots.close();
                let served = connection.served.load(Relaxed);
                tell(Happening::Lost { reason: reason.into(), served }).await;
                return;
            }
        };
        tell(happening).await;
    }
}

fn connection(dial: &Dial, send: SendRequest<Bytes>, wire: Arc<WireRecord>, reached: Reached) -> Connection {
    Connection {
        id: dial.id,
        endpoint: dial.endpoint.clone(),
        reached,
        load: dial.load.clone(),
        scheme: if dial.transport.is_secure() { Scheme::HTTPS } else { Scheme::HTTP },
        slots: Slots::new(send.current_max_send_streams()),
        send,
        wire,
        served: AtomicBool::new(false),
        slot_freed: dial.slot_freed.clone(),
        happenings: dial.happenings.clone(),
    }
}

/// Waits until the owner no longer wants a dial.
async fn unwanted(commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        if command != Command::Ping {
            return;
        }
    }
}

enum Step {
    GoAway(Disconnect),
    Pong,
    /// Calls wait, and the peer gives no sign of life.
    Silent,
    Ended(Disconnect, String),
}

/// The driver's side: polls h2, keeps the slot count true, sends and awaits PINGs.
struct Driver {
    connection: Arc<Connection>,
    h2: H2,
    /// Tells GOAWAY (through `poll_ready`) and the peer's limit.
    probe: SendRequest<Bytes>,
    commands: mpsc::Receiver<Command>,
    abandoned: bool,
    going_away: bool,
    /// The peer has just said so.
    too_many_pings: bool,
    pings: Pings,
    idle: Option<Idle>,
}

/// Closes a connection that was not used from one tick to the next.
struct Idle {
    tick: Interval,
    written: u64,
}

impl Driver {
    fn new(
        connection: Arc<Connection>,
        mut h2: H2,
        commands: mpsc::Receiver<Command>,
        keepalive: Option<KeepAlive>,
        idle: Option<Duration>,
    ) -> Self {
        let probe = connection.send.clone();
        let pings = Pings::new(h2.ping_pong(), keepalive);
        let idle = idle.map(|time| Idle { tick: interval_at(Instant::now() + time, time), written: 0 });
        Self {
            connection,
            h2,
            probe,
            commands,
            abandoned: false,
            going_away: false,
            too_many_pings: false,
            pings,
            idle,
        }
    }

    fn close(&self) {
        self.connection.slots.close();
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let slots = &self.connection.slots;
        slots.driver.register(cx.waker());
        while !self.abandoned {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(Command::Ping)) => self.pings.wanted = true,
                Poll::Ready(Some(Command::Kill)) => {
                    let reason = "closed: the peer did not answer a PING".into();
                    return Poll::Ready(Step::Ended(Disconnect::TimedOut, reason));
                }
                Poll::Ready(None) => {
                    self.abandoned = true;
                    slots.close();
                }
                Poll::Pending => break,
            }
        }
        // Taken before h2 is polled: the RST_STREAMs of these are in its queue by now, and it writes before it rests.
        let late = slots.late.swap(0, AcqRel);
        if let Poll::Ready(end) = Pin::new(&mut self.h2).poll(cx) {
            // h2 ends with Ok where a GOAWAY without an error left it nothing to do.
            let why = match self.probe.poll_ready(cx) {
                Poll::Ready(Err(e)) if e.is_go_away() => Disconnect::of(Err(&e)),
                _ => Disconnect::of(end.as_ref().copied()),
            };
            let reason = match end {
                Ok(()) => "the peer closed the connection".into(),
                Err(e) => {
                    self.too_many_pings = !self.going_away && too_many_pings(&e);
                    self.connection.wire.explain(&e)
                }
            };
            return Poll::Ready(Step::Ended(why, reason));
        }
        if late > 0 {
            slots.release(late, &self.connection.slot_freed);
        }
        if slots.set_limit(self.probe.current_max_send_streams()) {
            self.connection.slot_freed.notify.notify_waiters();
        }
        if !self.going_away
            && let Poll::Ready(Err(e)) = self.probe.poll_ready(cx)
        {
            self.too_many_pings = too_many_pings(&e);
            self.going_away = true;
            slots.close();
            return Poll::Ready(Step::GoAway(Disconnect::of(Err(&e))));
        }
        while let Some(idle) = &mut self.idle
            && idle.tick.poll_tick(cx).is_ready()
        {
            // Whatever is sent is written: a connection that wrote nothing had no new call.
            let written = std::mem::replace(&mut idle.written, self.connection.wire.written());
            if slots.used() == 0 && written == idle.written {
                slots.close();
            }
        }
        if slots.idle_and_closed() {
            return Poll::Ready(Step::Ended(Disconnect::Shutdown, "closed after its last call".into()));
        }
        self.pings.poll(cx, slots.used() > 0, self.connection.bytes_read()).map(|sign| match sign {
            Sign::Pong => Step::Pong,
            Sign::Silent => Step::Silent,
            Sign::Dead(reason) => Step::Ended(Disconnect::TimedOut, reason),
        })
    }
}
