//! [`InFlight`]: one call, counted from its sending to its end, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::Code;

use super::{Outcome, ms_at, now_ms};
use crate::metrics::call::AttemptRecord;
use crate::subchannel::connection::Connection;
use crate::subchannel::state::Cause;

/// One call in flight on one connection. Its drop takes the call off the instance's load.
#[derive(Debug)]
#[must_use]
pub(crate) struct InFlight {
    connection: Arc<Connection>,
    since: Instant,
    outcome: Outcome,
    code: Code,
    /// Where calls are measured.
    record: Option<AttemptRecord>,
}

impl InFlight {
    pub(crate) fn new(connection: Arc<Connection>, record: Option<AttemptRecord>) -> Self {
        connection.load.in_flight.fetch_add(1, Relaxed);
        let (outcome, code) = (Outcome::Neutral, Code::Cancelled);
        Self { connection, since: Instant::now(), outcome, code, record }
    }

    /// A piece of the response's body has come.
    pub(crate) fn received(&mut self, piece: &[u8]) {
        if let Some(record) = &mut self.record {
            record.received(piece);
        }
    }

    /// The response has ended with these.
    pub(crate) fn trailers_arrived(&self, trailers: &HeaderMap) {
        self.connection.load.reported.read(trailers, now_ms);
    }

    /// Response headers are there: the server lives, and this is how long it took. Streams count by their beginning.
    pub(crate) fn head_arrived(&self) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.since);
        self.connection.load.latency.observe(latency.as_secs_f32() * 1e6, ms_at(now) as u32);
        self.connection.load.lives();
        self.connection.served();
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Says how the call ended, for its endpoint's health and in gRPC's words, and ends it.
    pub(crate) fn end(mut self, outcome: Outcome, code: Code) {
        self.outcome = outcome;
        self.code = code;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let load = &self.connection.load;
        load.in_flight.fetch_sub(1, Relaxed);
        match self.outcome {
            Outcome::Answered => load.answered(),
            Outcome::Failed if load.failed() => self.connection.suspect(Cause::Failing),
            Outcome::Expired if load.expired() => self.connection.suspect(Cause::BlackHole),
            Outcome::Failed | Outcome::Expired | Outcome::Neutral => {}
        }
        if let Some(record) = self.record.take() {
            record.end(self.code, self.since.elapsed());
        }
    }
}
