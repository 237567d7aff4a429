//! Picks an endpoint and hands the call to it: what the fast path does inside `call`, and the slow way as often as it
//! takes. Nothing here waits; `slow.rs` does, where the answer is [`Start::Wait`].

use http::{HeaderMap, HeaderName, header};
use tokio::time::Instant;
use tonic::Status;

use super::Call;
use crate::deadline;
use crate::owner::snapshot::{Snapshot, Verdict};
use crate::policy;
use crate::status;
use crate::subchannel::face::Open;
use crate::subchannel::stream::{self, Attempt};

/// So often the picker is asked for one that can take the call, before all are tried in turn.
const PICKS: usize = 3;

/// What came of trying to send.
pub(super) enum Start {
    Sent(Attempt),
    /// Not yet: a slot or an endpoint may come.
    Wait(Waiting),
    Failed(Status),
}

/// What a call waits for.
#[derive(Clone, Copy)]
pub(super) enum Waiting {
    Endpoint,
    Slot,
}

impl Call {
    /// Picks an endpoint by what is published now, and sends.
    pub(super) fn start(&mut self) -> Start {
        let front = self.front.clone();
        self.start_on(&front.snapshot.load())
    }

    /// Picks an endpoint and sends. Where what was picked cannot take the call by now, another one is asked; a
    /// connection that ended since the snapshot was made counts as one that cannot.
    pub(super) fn start_on(&mut self, snapshot: &Snapshot) -> Start {
        let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Start::Failed(status::deadline_exceeded(
                &self.front.name,
                "before the call could be sent",
            ));
        }
        if let Some(mark) = &self.front.mark {
            mark.touch();
        }
        let call = policy::Call::new(&self.path, &self.headers);
        let picked = match &mut self.hedges {
            None => snapshot.picker.pick(&call),
            Some(hedges) => hedges.pick(snapshot, &call),
        };
        let Some(first) = picked else {
            return match &snapshot.verdict {
                Verdict::Idle(_) => {
                    self.front.wake();
                    Start::Wait(Waiting::Endpoint)
                }
                Verdict::Over(reason) => Start::Failed(status::unavailable(reason)),
                _ if self.wait_for_ready => Start::Wait(Waiting::Endpoint),
                Verdict::Wait(_) => Start::Wait(Waiting::Endpoint),
                Verdict::Fail(reason) => Start::Failed(status::unavailable(reason)),
            };
        };
        // The pick and a few more, which keep to the policy and its parts; then all in turn. Both are the exception, for
        // connections that are full or just ended.
        let count = snapshot.ready.len();
        let mut tried = 0;
        while tried < PICKS + count {
            let index = match tried {
                0 => first,
                1..PICKS => {
                    let call = policy::Call::new(&self.path, &self.headers);
                    snapshot.picker.pick(&call).unwrap_or(first)
                }
                _ => first + tried - PICKS,
            };
            let Some(subchannel) = index.checked_rem(count).and_then(|i| snapshot.ready.get(i)) else {
                break;
            };
            tried += 1;
            if self.hedges.as_ref().is_some_and(|hedges| hedges.avoids(subchannel.load())) {
                continue;
            }
            let Some((connection, slot)) = subchannel.face().open.as_ref().and_then(Open::slot) else {
                continue;
            };
            let mut headers = self.headers.clone();
            if let Some(remaining) = remaining {
                deadline::write_remaining(&mut headers, remaining);
            }
            if let Some(retries) = &self.retries {
                retries.write_header(&mut headers);
            }
            if let Some(hedges) = &self.hedges {
                hedges.write_header(&mut headers);
            }
            let method = self.attempts.method();
            match stream::start(connection, slot, &self.path, headers, &mut self.body, method) {
                Ok(attempt) => {
                    self.attempts.began(&attempt.connection().endpoint, self.hedges.is_some());
                    return Start::Sent(attempt);
                }
                // h2 refuses heads with fields that HTTP/2 forbids: without them the same connection takes it. Looked
                // for only now, since nobody should have to pay for it.
                Err(_never_sent) if strip_forbidden(&mut self.headers) => tried -= 1,
                Err(_never_sent) => {}
            }
        }
        let picked = first.checked_rem(count).and_then(|i| snapshot.ready.get(i));
        if let Some(open) = picked.and_then(|picked| picked.face().open.as_ref()) {
            open.link.ask_to_grow();
        }
        Start::Wait(Waiting::Slot)
    }
}

/// Removes the fields that HTTP/2 forbids (RFC 9113, section 8.2.2); false where there were none.
fn strip_forbidden(headers: &mut HeaderMap) -> bool {
    const FORBIDDEN: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let before = headers.len();
    for name in FORBIDDEN {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
    headers.len() < before
}
