//! Lists: a range at one revision, in pages, whole or not at all.

use std::collections::HashSet;

use tokio::time::Instant;

use super::message::{Action, Page, Refusal};
use super::watch::{Listing, Phase, stored};
use super::{Due, History, Session};
use crate::catalog::event::Freshness;
use crate::catalog::range::Range;
use crate::etcd::Failure;

impl Session {
    /// Lists a range from its first page; what was known of it stays until the list is whole.
    pub(super) fn list(&mut self, range: &Range) {
        let ticket = self.draw();
        let asked_under = self.history;
        self.detach(range);
        let Some(watch) = self.watches.get_mut(range) else { return };
        let drained = watch.applied.is_some() && range.is_guarded();
        let listing = Listing { ticket, asked_under, at: None, found: Vec::new(), drained: Vec::new() };
        watch.phase = Phase::Listing(listing);
        let (range, limit) = (range.clone(), watch.limit);
        self.actions.push(Action::List { range, ticket, at: None, after: None, limit, drained });
    }

    pub(super) fn listed(&mut self, range: Range, ticket: u64, page: Result<Page, Refusal>, now: Instant) {
        let watch = self.watches.get_mut(&range);
        let Some(Phase::Listing(listing)) = watch.map(|w| &mut w.phase) else { return };
        if listing.ticket != ticket {
            return;
        }
        match page {
            Err(refusal) => self.list_refused(&range, &refusal, now),
            Ok(page) => {
                if listing.at.is_none() && !listing.asked_under.is_continued_by(page.header) {
                    self.wiped(Some(&range), now);
                }
                self.page(range, page, now);
            }
        }
    }

    fn page(&mut self, range: Range, page: Page, now: Instant) {
        let ticket = self.draw();
        let Some(watch) = self.watches.get_mut(&range) else { return };
        let Phase::Listing(listing) = &mut watch.phase else { return };
        let at = *listing.at.get_or_insert(page.header.revision);
        let after = page.kvs.last().map(|kv| kv.key.clone());
        listing.found.extend(page.kvs.iter().map(|kv| stored(&range, &self.prefix, kv)));
        listing.drained.extend(page.drained);
        if page.more && after.is_some() {
            listing.ticket = ticket;
            let limit = watch.limit;
            self.actions.push(Action::List { range, ticket, at: Some(at), after, limit, drained: false });
            return;
        }
        let found = std::mem::take(&mut listing.found);
        let drained: HashSet<_> = listing.drained.drain(..).collect();
        let first = watch.applied.is_none();
        let wiped = std::mem::take(&mut watch.wiped);
        let deltas = watch.set.replace(found, &drained, wiped, now);
        watch.applied = Some(at);
        watch.phase = Phase::Ready;
        self.history.note(page.header);
        self.wake_for_held(&range, &deltas);
        if first || !deltas.is_empty() {
            self.actions.push(Action::Publish { range: range.clone(), revision: at, deltas });
        }
        self.tell(&range, Freshness::Live);
        self.want_watch(&range, now);
    }

    fn list_refused(&mut self, range: &Range, refusal: &Refusal, now: Instant) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        match refusal.failure {
            Failure::Compacted => watch.list_at_once(),
            Failure::TooLarge => watch.shrink_page(),
            failure => {
                let news = self.tell_stale(range, refusal, now);
                if failure.is_transient() {
                    self.away(refusal);
                } else if news {
                    self.actions.push(Action::Log(Some(refusal.reason.clone())));
                }
            }
        }
        self.retry_later(range, true, now);
    }

    /// Lists a range again after a pause, since what it watches cannot be trusted any more. `wiped`: the store has
    /// another history, so that what vanished is held.
    pub(super) fn list_again(&mut self, range: &Range, wiped: bool, now: Instant) {
        self.detach(range);
        if let Some(watch) = self.watches.get_mut(range) {
            watch.wiped |= wiped;
        }
        self.retry_later(range, true, now);
    }

    /// Ends a range's watch, if it has one.
    fn detach(&mut self, range: &Range) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        if let Some(id) = watch.id() {
            self.ids.remove(&id);
            self.actions.push(Action::Cancel { id });
        }
        watch.check = None;
        watch.fragments.clear();
    }

    /// Goes on with a range after a pause.
    pub(super) fn retry_later(&mut self, range: &Range, list: bool, now: Instant) {
        let Some(watch) = self.watches.get_mut(range) else { return };
        let until = now + watch.backoff.next(&mut self.random);
        watch.phase = Phase::Waiting { until, list };
        self.wake(until, Due::Range(range.clone()));
    }

    /// `true`: it was not known to be so.
    pub(super) fn tell_stale(&mut self, range: &Range, refusal: &Refusal, now: Instant) -> bool {
        let denied = matches!(refusal.failure, Failure::Denied | Failure::AuthFailed);
        self.tell(range, Freshness::Stale { since: now, reason: refusal.reason.clone(), denied })
    }

    /// Another history: every range is listed again, its watch opened on a new stream, and what vanished is held.
    /// The range whose list found it goes on with that list.
    pub(super) fn wiped(&mut self, found_by: Option<&Range>, now: Instant) {
        self.history = History::default();
        self.close();
        let ranges: Vec<Range> = self.watches.keys().cloned().collect();
        for range in ranges {
            if Some(&range) == found_by {
                self.watches.entry(range).and_modify(|w| w.wiped = true);
            } else {
                self.list_again(&range, true, now);
            }
        }
    }
}
