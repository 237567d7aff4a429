//! Is it still the store that was listed (law 4)? Asked on every new stream and of every new watch, while the watch runs.

use std::time::Duration;

use tokio::time::Instant;

use super::history::Header;
use super::message::{Action, Refusal};
use super::{Due, Session};
use crate::catalog::range::Range;
use crate::catalog::set::Anchor;
use crate::etcd::Failure;

/// When a check that could not be read is read again.
const RETRY: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn verify(&mut self) {
        let ticket = self.draw();
        self.verifying = Some((ticket, self.history));
        self.actions.push(Action::Verify { ticket });
    }

    pub(super) fn verify_again(&mut self, ticket: u64) {
        if self.verifying.is_some_and(|(t, _)| t == ticket) {
            self.actions.push(Action::Verify { ticket });
        }
    }

    pub(super) fn verified(&mut self, ticket: u64, header: Option<Header>, now: Instant) {
        let Some((_, known)) = self.verifying.take_if(|(t, _)| *t == ticket) else { return };
        match header {
            Some(header) if known.is_continued_by(header) => {
                self.history.note(header);
                self.backoff.reset();
                if std::mem::replace(&mut self.away, false) {
                    self.actions.push(Action::Log(None));
                }
            }
            Some(_) => self.wiped(None, now),
            // Asked again under what was known then: what has been seen since may come from another history.
            None => {
                self.verifying = Some((ticket, known));
                self.wake(now + RETRY, Due::Verify(ticket));
            }
        }
    }

    pub(super) fn read_anchor(&mut self, range: &Range) {
        let ticket = self.draw();
        let Some(check) = self.watches.get_mut(range).and_then(|w| w.check.as_mut()) else { return };
        (check.ticket, check.retry) = (Some(ticket), None);
        let (range, at, anchor) = (range.clone(), check.at, check.anchor.clone());
        self.actions.push(Action::ReadAnchor { range, ticket, at, anchor });
    }

    pub(super) fn anchored(
        &mut self,
        range: Range,
        ticket: u64,
        found: Result<Anchor, Refusal>,
        now: Instant,
    ) {
        let Some(watch) = self.watches.get_mut(&range) else { return };
        let Some(check) = watch.check.as_mut().filter(|c| c.ticket == Some(ticket)) else { return };
        match found.map_err(|refusal| refusal.failure) {
            Ok(found) if found == check.anchor => {
                watch.check = None;
                watch.backoff.reset();
            }
            // Another history stands where ours was.
            Ok(_) => self.list_again(&range, true, now),
            Err(Failure::FutureRevision) => self.wiped(None, now),
            Err(Failure::Compacted) => self.list_again(&range, false, now),
            Err(_) => {
                let at = now + RETRY;
                (check.ticket, check.retry) = (None, Some(at));
                self.wake(at, Due::Range(range));
            }
        }
    }
}
