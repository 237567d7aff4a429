//! One call, one of its attempts, and what was sent again. Each is held by what it measures, and records itself when that
//! is dropped: with the code that it was given, or as cancelled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use tracing::Span;
use tracing::span::Entered;

use super::{MessageBytes, Method, Methods};
use crate::endpoint::Endpoint;
use crate::peer::Peer;
use crate::subchannel::pump::Orders;
use crate::trace;

/// A call, from `call` to its last byte (gRFC A66): measured, traced, or both.
#[derive(Debug)]
#[must_use]
pub(crate) struct CallRecord {
    method: Option<Arc<Method>>,
    span: Span,
    since: Instant,
    code: Code,
}

impl CallRecord {
    /// `None` where nobody wants to know.
    pub(crate) fn begin(methods: Option<&Methods>, path: &str) -> Option<Self> {
        let (method, span) = (methods.map(|methods| methods.of(path)), trace::span(path));
        let wanted = method.is_some() || !span.is_none();
        wanted.then(|| Self { method, span, since: Instant::now(), code: Code::Cancelled })
    }

    /// Within the call's span, until what this returns is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.span.enter()
    }

    /// Says how the call ended, and ends it.
    pub(crate) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if let Some(method) = &self.method {
            method.by_code(self.code).call_duration.record(self.since.elapsed());
        }
        trace::ended(&self.span, self.code);
    }
}

/// What an attempt sent.
#[derive(Debug)]
pub(crate) enum Sent {
    /// All at once.
    Whole(u64),
    /// A pump counts.
    Pumped(Arc<Orders>),
}

/// An attempt, from its sending to its last byte (gRFC A66).
#[derive(Debug)]
pub(crate) struct AttemptRecord {
    method: Arc<Method>,
    sent: Sent,
    received: MessageBytes,
}

impl AttemptRecord {
    pub(crate) fn begin(method: &Arc<Method>, sent: Sent) -> Self {
        method.started.increment(1);
        Self { method: method.clone(), sent, received: MessageBytes::default() }
    }

    /// A piece of the response has come.
    pub(crate) fn received(&mut self, piece: &[u8]) {
        self.received.add(piece);
    }

    pub(crate) fn end(self, code: Code, took: Duration) {
        let sent = match &self.sent {
            Sent::Whole(bytes) => *bytes,
            Sent::Pumped(orders) => orders.sent(),
        };
        let handles = self.method.by_code(code);
        handles.attempt_duration.record(took);
        handles.sent.record(sent as f64);
        handles.received.record(self.received.total() as f64);
    }
}

/// Why a call is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The service config says so.
    Retry,
    /// It was provably not processed.
    Transparently,
}

/// How often a call was sent (gRFC A96). Its drop records, where that was more than once.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    method: Option<Arc<Method>>,
    /// The call has a span.
    traced: bool,
    /// The caller wants to know where it goes.
    peer: Option<Peer>,
    count: u32,
    next: Option<Again>,
    /// Since when no attempt was under way.
    idle: Option<Instant>,
    retries: u32,
    transparent: u32,
    hedges: u32,
    delay: Duration,
}

impl Attempts {
    /// Those of a call with this record, and with this request extension.
    pub(crate) fn of(record: Option<&CallRecord>, peer: Option<&Peer>) -> Self {
        let method = record.and_then(|record| record.method.clone());
        let traced = record.is_some_and(|record| !record.span.is_none());
        Self { method, traced, peer: peer.cloned(), ..Self::default() }
    }

    pub(crate) fn method(&self) -> Option<&Arc<Method>> {
        self.method.as_ref()
    }

    /// An attempt has ended, and another one is to follow.
    pub(crate) fn again(&mut self, why: Again) {
        self.next = Some(why);
        if self.method.is_some() {
            self.idle.get_or_insert_with(Instant::now);
        }
    }

    /// An attempt begins, at `endpoint`; `hedged` where others may be under way.
    pub(crate) fn began(&mut self, endpoint: &Arc<Endpoint>, hedged: bool) {
        self.count += 1;
        if let Some(peer) = &self.peer {
            peer.sent(endpoint);
        }
        if self.traced {
            trace::sent(endpoint, self.count);
        }
        let (why, idle) = (self.next.take(), self.idle.take());
        if self.count > 1 {
            self.delay += idle.map(|since| since.elapsed()).unwrap_or_default();
            match why {
                Some(Again::Transparently) => self.transparent += 1,
                Some(Again::Retry) => self.retries += 1,
                None if hedged => self.hedges += 1,
                None => {}
            }
        }
    }

    /// What the attempt at `endpoint` brought, an answer or a failure, is the call's.
    pub(crate) fn settled(&self, endpoint: &Arc<Endpoint>) {
        if let Some(peer) = &self.peer {
            peer.settled(endpoint);
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        let Some(method) = self.method.as_ref().filter(|_| self.count > 1) else { return };
        let handles = method.repeats();
        let counts = [
            (self.retries, &handles.retries),
            (self.transparent, &handles.transparent),
            (self.hedges, &handles.hedges),
        ];
        for (count, histogram) in counts {
            if count > 0 {
                histogram.record(count);
            }
        }
        if self.retries + self.transparent > 0 {
            handles.delay.record(self.delay);
        }
    }
}
