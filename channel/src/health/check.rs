//! Client health checking (gRFC A17): on a connection that is ready a `grpc.health.v1.Health/Watch` stream runs, and
//! the endpoint takes calls only while it says SERVING. In comes a connection, out go words to the owner, for the table
//! in `subchannel/state.rs`.
//!
//! * SERVING: it takes calls. Anything else that it says: it does not; the connection stays, and calls in flight go on.
//! * UNIMPLEMENTED: there is no health service, which counts as SERVING for the connection's life.
//! * Any other end, or no first word within the connect timeout (A17 sets no limit; a server that never answers would
//!   hold calls up for ever): it does not serve until a new stream says so, which is begun with the connection backoff.
//!
//! The stream takes a slot like a call's, and is no call: it counts neither in load nor in flight.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};

use crate::status;
use crate::subchannel::connection::Connection;
use crate::subchannel::slot::Slot;
use crate::subchannel::state::backoff;
use crate::subchannel::stream;
use crate::subchannel::stream::AGENT;

const PATH: &str = "/grpc.health.v1.Health/Watch";
/// A word has a few bytes; a server that sends more than this does not speak of its health.
const LARGEST_WORD: usize = 4 * 1024;
/// A stream that said something and lived for so long may be begun anew at once, as A17 has it; without this limit a
/// server that ends each stream after a word would be asked in a loop.
const PROVEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// What is to be watched.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) connection: Arc<Connection>,
    /// Whose health; the empty name is the server's as a whole.
    pub(crate) service: Arc<str>,
    /// How long the first word may take.
    pub(crate) patience: Duration,
    pub(crate) max_backoff: Duration,
}

/// How a stream ended.
enum End {
    /// The server has no health service.
    Unimplemented,
    /// The connection is over, or takes no new streams: its driver tells the owner.
    Connection,
    Broken(String),
}

/// Watches until the connection ends or its server turns out to have no health service. Run by a task of the owner's,
/// one for each link, which the link's drop aborts.
///
/// # Cancel safety
/// Dropped at any point it resets its stream and gives its slot back.
pub(crate) async fn run(check: Check) {
    let mut rng = fastrand::Rng::new();
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let mut heard = false;
        match check.watch(&mut heard).await {
            End::Connection => return,
            End::Unimplemented => {
                let instance = &check.connection.endpoint.instance;
                tracing::warn!(%instance, "it has no health service, and counts as serving");
                check.connection.health(None).await;
                return;
            }
            End::Broken(why) => check.tell(&why).await,
        }
        if heard {
            failures = 0;
            if begun.elapsed() >= PROVEN_AFTER {
                continue;
            }
        }
        sleep(backoff(failures, check.max_backoff, &mut rng)).await;
        failures += 1;
    }
}

impl Check {
    async fn tell(&self, trouble: &str) {
        let service = &*self.service;
        self.connection.health(Some(format!("health check of {service:?}: {trouble}").into())).await;
    }

    /// One stream, to its end.
    async fn watch(&self, heard: &mut bool) -> End {
        let first_by = Instant::now() + self.patience;
        let mut words = match timeout_at(first_by, self.open()).await {
            Ok(Ok(words)) => words,
            Ok(Err(end)) => return end,
            Err(_) => return self.silence(),
        };
        let mut next = match timeout_at(first_by, words.next()).await {
            Ok(next) => next,
            Err(_) => return self.silence(),
        };
        loop {
            let word = match next {
                Ok(word) => word,
                Err(end) => return end,
            };
            *heard = true;
            self.connection.served();
            match word {
                ServingStatus::Serving => self.connection.health(None).await,
                ServingStatus::NotServing => self.tell("NOT_SERVING").await,
                ServingStatus::ServiceUnknown => self.tell("SERVICE_UNKNOWN").await,
                ServingStatus::Unknown => self.tell("UNKNOWN").await,
            }
            next = words.next().await;
        }
    }

    fn silence(&self) -> End {
        End::Broken(format!("no answer within {:?}", self.patience))
    }

    async fn open(&self) -> Result<Words, End> {
        let Some(slot) = Slot::take(&self.connection) else {
            let full = || End::Broken("the connection has no stream left for it".into());
            return Err(if self.connection.is_closed() { End::Connection } else { full() });
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, AGENT);
        let head = stream::head(&self.connection, &Uri::from_static(PATH), headers);
        // An error means that nothing was sent and nothing will be: the connection is over.
        let sent = self.connection.sender().send_request(head, false);
        let (response, mut sending) = sent.map_err(|_| End::Connection)?;
        // An error means that the stream is over already, which the response tells.
        let _ = sending.send_data(framed(&self.service), true);
        let response = response.await.map_err(|error| ended(&error))?;
        if response.body().is_end_stream() || !response.status().is_success() {
            return Err(answered(&status::of_head(&response)));
        }
        Ok(Words { recv: response.into_body(), read: BytesMut::new(), slot })
    }
}

/// The request, as gRPC frames a message: not compressed, its length, itself.
fn framed(service: &str) -> Bytes {
    let request = HealthCheckRequest { service: service.to_owned() };
    let message = request.encode_to_vec();
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// An error of the stream's own breaks the stream; any other is the connection's, of which its driver tells the owner.
fn ended(error: &h2::Error) -> End {
    if error.is_reset() { End::Broken(error.to_string()) } else { End::Connection }
}

fn answered(status: &Status) -> End {
    match status.code() {
        Code::Unimplemented => End::Unimplemented,
        Code::Ok => End::Broken("the server ended the stream".into()),
        code => End::Broken(format!("{code:?}: {}", status.message())),
    }
}

/// What the server says, word by word. Field order is drop order: the stream goes before its slot.
struct Words {
    recv: RecvStream,
    read: BytesMut,
    slot: Slot,
}

impl Words {
    async fn next(&mut self) -> Result<ServingStatus, End> {
        loop {
            if let Some(word) = self.take()? {
                return Ok(word);
            }
            match self.recv.data().await {
                Some(Ok(data)) => {
                    // An error means that the stream is closed, and its window with it.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    self.read.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(ended(&error)),
                None => break,
            }
        }
        let trailers = self.recv.trailers().await.map_err(|error| ended(&error))?;
        self.slot.ended();
        let status = trailers.as_ref().and_then(Status::from_header_map);
        Err(answered(&status.unwrap_or_else(|| Status::unknown("the stream ended without a status"))))
    }

    /// The next whole message of what was read.
    fn take(&mut self) -> Result<Option<ServingStatus>, End> {
        let broken = |why: &str| End::Broken(why.to_owned());
        let Some((&[compressed, a, b, c, d], rest)) = self.read.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if compressed != 0 {
            return Err(broken("the answer is compressed, which was not asked for"));
        }
        if length > LARGEST_WORD {
            return Err(broken("the answer is too long to be one"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.read.advance(5);
        let message = self.read.split_to(length);
        let answer = HealthCheckResponse::decode(message).map_err(|_| broken("the answer cannot be read"))?;
        Ok(Some(ServingStatus::try_from(answer.status).unwrap_or(ServingStatus::Unknown)))
    }
}
