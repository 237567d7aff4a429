//! The mass removal guard: tells an ordinary departure from a loss that nobody meant.
//!
//! In come counts of instances that arrived and that were lost; out comes whether what is being lost now is to be
//! held for a while instead of being taken from the clients. Who is held, and until when, is `set`'s.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Losses within this time count together.
const WINDOW: Duration = Duration::from_secs(5);

/// Counts are kept per slice of the window, so that a storm of changes costs no memory.
const SLICE: Duration = Duration::from_millis(100);

/// How long a vanished instance is held at most: two default leases, in which its owner has registered again.
pub(super) const HOLD: Duration = Duration::from_secs(30);

/// What went, and what came after that, within the last [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// The oldest one has a loss: what came before it was there when the losses began.
    slices: VecDeque<Slice>,
}

#[derive(Debug)]
struct Slice {
    began: Instant,
    arrived: usize,
    lost: usize,
}

impl Guard {
    /// Serving instances were deleted, none of which had been seen draining.
    pub(super) fn lost(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.slice(now).lost += count;
        }
    }

    /// Instances began to serve. Those that come after a loss count as left when losses are weighed.
    pub(super) fn arrived(&mut self, count: usize, now: Instant) {
        self.forget(now);
        if count > 0 && !self.slices.is_empty() {
            self.slice(now).arrived += count;
        }
    }

    /// Whether the losses of the window left fewer than half of those that were serving when they began, two or more.
    pub(super) fn is_mass_loss(&mut self, serving: usize, now: Instant) -> bool {
        self.forget(now);
        let (arrived, lost) = self.slices.iter().fold((0, 0), |(a, l), s| (a + s.arrived, l + s.lost));
        let before = (serving + lost).saturating_sub(arrived);
        lost > 0 && before >= 2 && 2 * serving < before
    }

    fn slice(&mut self, now: Instant) -> &mut Slice {
        if self.slices.back().is_none_or(|s| now.duration_since(s.began) >= SLICE) {
            self.slices.push_back(Slice { began: now, arrived: 0, lost: 0 });
        }
        let last = self.slices.len() - 1;
        &mut self.slices[last]
    }

    fn forget(&mut self, now: Instant) {
        while self.slices.front().is_some_and(|s| s.lost == 0 || now.duration_since(s.began) > WINDOW) {
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lose(serving: usize, lost: usize, arrived: usize) -> bool {
        let (mut guard, now) = (Guard::default(), Instant::now());
        guard.lost(lost, now);
        guard.arrived(arrived, now);
        guard.is_mass_loss(serving, now)
    }

    #[test]
    fn fewer_than_half_left_is_a_mass_loss() {
        assert!(lose(0, 2, 0) && lose(1, 2, 0) && lose(4, 5, 0));
        assert!(!lose(1, 1, 0) && !lose(2, 2, 0) && !lose(5, 0, 0), "half or more are left");
    }

    #[test]
    fn the_last_single_instance_may_leave() {
        assert!(!lose(0, 1, 0));
    }

    #[test]
    fn what_came_meanwhile_counts_as_left() {
        assert!(!lose(4, 4, 4), "a whole set was replaced");
        assert!(lose(1, 4, 1));
    }

    #[test]
    fn what_came_just_before_counts_as_having_been_there() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        guard.arrived(3, now);
        guard.lost(3, now + Duration::from_secs(1));
        assert!(guard.is_mass_loss(0, now + Duration::from_secs(1)));
    }

    #[test]
    fn losses_further_apart_than_the_window_do_not_add_up() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        for (step, serving) in (0..4).zip([3, 2, 1, 0]) {
            let now = start + Duration::from_secs(6) * step;
            guard.lost(1, now);
            assert!(!guard.is_mass_loss(serving, now), "{serving} left");
        }
    }

    #[test]
    fn a_storm_of_changes_costs_no_memory() {
        let (mut guard, start) = (Guard::default(), Instant::now());
        for step in 0..100_000 {
            guard.lost(1, start + Duration::from_micros(500) * step);
            guard.arrived(1, start + Duration::from_micros(500) * step);
        }
        assert!(guard.slices.len() <= 52, "{}", guard.slices.len());
    }
}
