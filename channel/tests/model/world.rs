//! The servers of the model: real HTTP/2 over in-memory transports, each with its moods, and the books in which they
//! write what reached them. What the books forbid is noted in [`World::broken`], which the test looks at.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use svc_channel::{Address, BoxIo, Connect, connector_fn};
use tokio::io::DuplexStream;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::calls::{BEGUN, CALL, MOST_ATTEMPTS};

/// One message as it goes over the wire.
pub(crate) const MESSAGE: &[u8] = &[0, 0, 0, 0, 3, b'a', b'd', b'a'];

/// What a server does with the calls that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Slow,
    TurnsDown,
    Refuses,
    Resets,
    Silent,
    /// Each call another one of these.
    Moody,
}

const MOODS: [Mood; 7] =
    [Mood::Well, Mood::Slow, Mood::TurnsDown, Mood::Refuses, Mood::Resets, Mood::Silent, Mood::Moody];

/// What becomes of those who dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    Refuses,
    /// Neither opens nor refuses.
    Hangs,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    GoAway,
    /// Cuts every connection.
    Die,
    /// Reads and writes nothing for so long.
    Freeze(Duration),
}

struct Server {
    mood: Mood,
    door: Door,
    orders: broadcast::Sender<Order>,
}

/// Everything outside of the channel.
pub(crate) struct World {
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    servers: HashMap<String, Server>,
    /// Since which step an address is no longer the channel's business.
    removed: HashMap<String, u64>,
    /// How often a call was processed, by its number.
    processed: HashMap<u64, u32>,
    arrivals: u64,
    broken: Vec<String>,
}

impl World {
    pub(crate) fn new(rng: fastrand::Rng) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                rng,
                servers: HashMap::new(),
                removed: HashMap::new(),
                processed: HashMap::new(),
                arrivals: 0,
                broken: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server at `address`; it serves until the world ends.
    pub(crate) fn serve(&self, address: &str) {
        let mut state = self.state();
        state.removed.remove(address);
        let server = || Server { mood: Mood::Well, door: Door::Open, orders: broadcast::channel(8).0 };
        state.servers.entry(address.to_owned()).or_insert_with(server);
    }

    /// From here on calls that begin must not reach it.
    pub(crate) fn removed(&self, address: &str, step: u64) {
        self.state().removed.insert(address.to_owned(), step);
    }

    /// Something happens to the server at `address`.
    pub(crate) fn stir(&self, address: &str) {
        let mut state = self.state();
        let (what, mood) = (state.rng.u32(..10), state.rng.usize(..MOODS.len()));
        let freeze = Duration::from_millis(state.rng.u64(1..3_000));
        let Some(server) = state.servers.get_mut(address) else { return };
        // Without connections nobody hears the order.
        match what {
            0..=3 => server.mood = MOODS[mood],
            4..=5 => server.mood = Mood::Well,
            6 => drop(server.orders.send(Order::GoAway)),
            7 => drop(server.orders.send(Order::Die)),
            8 => drop(server.orders.send(Order::Freeze(freeze))),
            _ => {
                server.door = match server.door {
                    Door::Open if mood % 2 == 0 => Door::Refuses,
                    Door::Open => Door::Hangs,
                    Door::Refuses | Door::Hangs => Door::Open,
                }
            }
        }
    }

    /// Laws that were broken, in words.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    pub(crate) fn arrivals(&self) -> u64 {
        self.state().arrivals
    }

    /// Transports to the servers.
    pub(crate) fn connector(self: &Arc<Self>) -> impl Connect {
        let world = self.clone();
        connector_fn(move |address: Address| {
            let (world, address) = (world.clone(), address.to_string());
            async move {
                let found = world.state().servers.get(&address).map(|s| (s.door, s.orders.subscribe()));
                let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                let orders = match found.ok_or_else(refused)? {
                    (Door::Open, orders) => orders,
                    (Door::Refuses, _) => return Err(refused()),
                    (Door::Hangs, _) => std::future::pending().await,
                };
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                // Ends with its transport, or when it is told to die.
                tokio::spawn(connection(world, address, theirs, orders));
                Ok(Box::new(ours) as BoxIo)
            }
        })
    }

    fn arrived(&self, address: &str, headers: &HeaderMap) -> Option<u64> {
        let number = |name| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let mut state = self.state();
        state.arrivals += 1;
        let (Some(call), Some(begun)) = (number(CALL), number(BEGUN)) else {
            state.broken.push(format!("a call without its number: {headers:?}"));
            return None;
        };
        if let Some(&removed) = state.removed.get(address).filter(|removed| **removed <= begun) {
            let text = format!("call {call} of step {begun} reached {address}, removed in step {removed}");
            state.broken.push(text);
        }
        Some(call)
    }

    fn processed(&self, call: u64, path: &str) {
        let mut state = self.state();
        let times = state.processed.entry(call).or_default();
        *times += 1;
        let (times, most) = (*times, if path.starts_with("/m.Plain/") { 1 } else { MOST_ATTEMPTS });
        if times > most {
            state.broken.push(format!("call {call} of {path} was processed {times} times"));
        }
    }

    fn act(&self, address: &str) -> Act {
        let mut state = self.state();
        let mood = state.servers.get(address).map_or(Mood::Well, |server| server.mood);
        let mood = if mood == Mood::Moody { MOODS[state.rng.usize(..MOODS.len() - 1)] } else { mood };
        Act {
            mood,
            delay: Duration::from_millis(state.rng.u64(1..150)),
            reads_all: state.rng.u32(..4) > 0,
            messages: state.rng.u32(..4),
            end: state.rng.u32(..20),
            code: state.rng.choice(["14", "14", "5", "13"]).unwrap_or("14"),
            pushback: state.rng.choice(["", "", "", "-1", "20"]).unwrap_or(""),
        }
    }

    fn streams(&self) -> u32 {
        self.state().rng.choice([1, 3, 20, 100, 100]).unwrap_or(100)
    }
}

/// What is done with one call.
struct Act {
    mood: Mood,
    delay: Duration,
    reads_all: bool,
    messages: u32,
    end: u32,
    code: &'static str,
    pushback: &'static str,
}

async fn connection(
    world: Arc<World>,
    address: String,
    io: DuplexStream,
    mut orders: broadcast::Receiver<Order>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(world.streams());
    let Ok(mut h2) = builder.handshake::<_, Bytes>(io).await else { return };
    // Its drop ends those that are left.
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = h2.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    calls.spawn(answer(world.clone(), address.clone(), request, respond));
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = calls.join_next() => {}
            order = orders.recv() => match order {
                Ok(Order::GoAway) => h2.graceful_shutdown(),
                Ok(Order::Freeze(time)) => sleep(time).await,
                Ok(Order::Die) | Err(_) => return,
            },
        }
    }
}

/// Errors mean that the client has gone or reset the call.
async fn answer(
    world: Arc<World>,
    address: String,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let call = world.arrived(&address, &head.headers)?;
    let act = world.act(&address);
    if act.mood == Mood::Refuses {
        respond.send_reset(Reason::REFUSED_STREAM);
        return None;
    }
    world.processed(call, head.uri.path());
    match act.mood {
        Mood::Slow => sleep(act.delay).await,
        Mood::Silent => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
            return None;
        }
        Mood::Resets => {
            respond.send_reset(if act.reads_all { Reason::INTERNAL_ERROR } else { Reason::CANCEL });
            return None;
        }
        Mood::TurnsDown => {
            let mut head = Response::builder().header("grpc-status", act.code);
            if !act.pushback.is_empty() {
                head = head.header("grpc-retry-pushback-ms", act.pushback);
            }
            respond.send_response(head.body(()).ok()?, true).ok()?;
            return None;
        }
        Mood::Well | Mood::Refuses | Mood::Moody => {}
    }
    if act.reads_all {
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.ok()?.len()).ok()?;
        }
    }
    let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    let mut sender = respond.send_response(head, false).ok()?;
    for _ in 0..act.messages {
        sender.send_data(Bytes::from_static(MESSAGE), false).ok()?;
        tokio::task::yield_now().await;
    }
    match act.end {
        0 => sender.send_reset(Reason::INTERNAL_ERROR),
        1 => drop(poll_fn(|cx| sender.poll_reset(cx)).await),
        end => {
            let code = if end == 2 { "14" } else { "0" };
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static(code),
            )]);
            sender.send_trailers(trailers).ok()?;
        }
    }
    Some(())
}
