//! Where a test lets the process die: between any two steps of a sending.

use std::fmt;
use std::sync::Arc;

use super::receipt::{Outcome, State};

/// A moment in the life of a receipt. Those that a call of balance comes back at are before anything of it is written
/// down; the others are behind the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Point {
    /// The sending is written down, and nothing of it is done.
    Begun,
    /// Balance has frozen the coins.
    Frozen,
    /// That is written down.
    Delivering,
    /// The gift is in the inbox, which is written down with it.
    Delivered,
    /// Balance has paid the coins out.
    Paid,
    /// That is written down: an end.
    Received,
    /// Balance has refused to freeze.
    NotFrozen,
    /// That is written down: an end.
    Refused,
    /// Balance has refused to pay out.
    NotPaid,
    /// It is written down that coins are to go back.
    Refunding,
    /// Balance has given them back.
    Back,
    /// That is written down: an end.
    Refunded,
}

impl Point {
    /// The moment at which balance's answer is known.
    pub(super) fn answered(outcome: &Outcome) -> Option<Point> {
        match outcome {
            Outcome::Frozen { .. } => Some(Point::Frozen),
            Outcome::NotFrozen(_) => Some(Point::NotFrozen),
            Outcome::Paid => Some(Point::Paid),
            Outcome::NotPaid(_) => Some(Point::NotPaid),
            Outcome::Back | Outcome::NotBack(_) => Some(Point::Back),
            Outcome::Delivered | Outcome::NotDelivered(_) => None,
        }
    }

    /// The moment at which this state is written down.
    pub(super) fn written(state: State) -> Point {
        match state {
            State::Freezing => Point::Begun,
            State::Delivering => Point::Delivering,
            State::Confirming => Point::Delivered,
            State::Refunding => Point::Refunding,
            State::Received => Point::Received,
            State::Refunded => Point::Refunded,
            State::Refused => Point::Refused,
        }
    }
}

/// Is told of every [`Point`] as it is reached, before anything else is done. The default does nothing.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<dyn Fn(Point) + Send + Sync>>);

impl Probe {
    /// Calls this at every point.
    pub fn new(told: impl Fn(Point) + Send + Sync + 'static) -> Probe {
        Probe(Some(Arc::new(told)))
    }

    /// Ends the process as a crash does, at this point.
    pub(super) fn abort_at(point: Point) -> Probe {
        Probe::new(move |reached| {
            if reached == point {
                std::process::abort();
            }
        })
    }

    pub(super) fn reached(&self, point: Point) {
        if let Some(told) = &self.0 {
            told(point);
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe({})", if self.0.is_some() { "told" } else { "none" })
    }
}
