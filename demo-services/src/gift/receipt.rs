//! How far a sending is for one receiver, as a value: what is to be done next, and what follows from what came of it.
//!
//! Nothing here knows of a database or of the balance service. The courier does what [`Receipt::next`] says, and has
//! written down what [`Receipt::after`] makes of it before it goes on.
//!
//! ```text
//! Freezing -> Delivering -> Confirming -> Received
//!    |            |             |
//!    v            +-> Refunding <-+ (the gift is taken back)
//! Refused                 |
//!                         v
//!                      Refunded
//! ```

/// How far it is; each is written down before its step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Coins are to be frozen.
    Freezing,
    /// They are; the gift is to be delivered.
    Delivering,
    /// It is delivered; the coins are to be paid out.
    Confirming,
    /// It is not delivered, or no longer; the coins are to go back.
    Refunding,
    /// Received and paid.
    Received,
    /// Not received, and not paid.
    Refunded,
    /// Not received; no coins were frozen.
    Refused,
}

impl State {
    /// Every state, in the order in which they are reached.
    pub(super) const ALL: [State; 7] = [
        State::Freezing,
        State::Delivering,
        State::Confirming,
        State::Refunding,
        State::Received,
        State::Refunded,
        State::Refused,
    ];

    /// Nothing follows.
    pub(super) fn is_end(self) -> bool {
        matches!(self, State::Received | State::Refunded | State::Refused)
    }
}

/// One receiver's part of a sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    /// The receiver.
    pub(super) to: i64,
    /// How far it is.
    pub(super) state: State,
    /// Balance's transaction; empty before coins were frozen.
    pub(super) tx_id: String,
    /// From here on it is not delivered any more, in milliseconds since 1970.
    pub(super) deliver_by_ms: i64,
    /// Why it ended, or ends, without the gift.
    pub(super) reason: String,
}

/// The step that is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Freeze coins at balance.
    Freeze,
    /// Put the gift into the inbox.
    Deliver,
    /// Leave it: too little of the time is left for which the coins are frozen.
    GiveUp,
    /// Have balance pay the coins out.
    Confirm,
    /// Have balance give them back.
    Refund,
}

/// What came of a step. Only what is certain is here: a call without an answer is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Coins are frozen.
    Frozen {
        /// The transaction.
        tx_id: String,
        /// Until when the gift may be delivered for it.
        deliver_by_ms: i64,
    },
    /// Balance refuses to freeze any, for this reason.
    NotFrozen(String),
    /// The gift is in the inbox.
    Delivered,
    /// It cannot be put there, for this reason.
    NotDelivered(String),
    /// The coins are paid out.
    Paid,
    /// They cannot be, for this reason: they have gone back, or the receiver cannot hold them.
    NotPaid(String),
    /// The sender has them again.
    Back,
    /// Balance has nothing to give back, for this reason.
    NotBack(String),
}

/// What happens to the inbox together with a change of the receipt, in one database transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inbox {
    /// Nothing.
    Stays,
    /// The gift is put in.
    Put,
    /// The gift is taken out again.
    TakenBack,
}

impl Receipt {
    /// One that begins.
    pub(super) fn new(to: i64) -> Receipt {
        let state = State::Freezing;
        Receipt { to, state, tx_id: String::new(), deliver_by_ms: 0, reason: String::new() }
    }

    /// What is to be done; nothing once it has ended.
    pub(super) fn next(&self, now_ms: i64) -> Option<Next> {
        match self.state {
            State::Freezing => Some(Next::Freeze),
            State::Delivering if now_ms < self.deliver_by_ms => Some(Next::Deliver),
            State::Delivering => Some(Next::GiveUp),
            State::Confirming => Some(Next::Confirm),
            State::Refunding => Some(Next::Refund),
            State::Received | State::Refunded | State::Refused => None,
        }
    }

    /// What it then is, and what happens to the inbox; `None` for an outcome of another step than its own.
    pub(super) fn after(&self, outcome: Outcome) -> Option<(Receipt, Inbox)> {
        let to = |state| Receipt { state, ..self.clone() };
        let because = |state, reason| Receipt { state, reason, ..self.clone() };
        Some(match (self.state, outcome) {
            (State::Freezing, Outcome::Frozen { tx_id, deliver_by_ms }) => {
                (Receipt { tx_id, deliver_by_ms, ..to(State::Delivering) }, Inbox::Stays)
            }
            (State::Freezing, Outcome::NotFrozen(why)) => (because(State::Refused, why), Inbox::Stays),
            (State::Delivering, Outcome::Delivered) => (to(State::Confirming), Inbox::Put),
            (State::Delivering, Outcome::NotDelivered(why)) => (because(State::Refunding, why), Inbox::Stays),
            (State::Confirming, Outcome::Paid) => (to(State::Received), Inbox::Stays),
            (State::Confirming, Outcome::NotPaid(why)) => (because(State::Refunding, why), Inbox::TakenBack),
            (State::Refunding, Outcome::Back) => (to(State::Refunded), Inbox::Stays),
            // The ledger has nothing of this sender's any more: there is nothing left to do, and no use in asking again.
            (State::Refunding, Outcome::NotBack(why)) => {
                (because(State::Refunded, format!("{}; {why}", self.reason)), Inbox::Stays)
            }
            _ => return None,
        })
    }
}

/// Until when a gift may be delivered for coins that are frozen until `expires_ms`: half of the time is for delivering
/// it, the other half for paying it.
pub(super) fn deliver_by(now_ms: i64, expires_ms: i64) -> i64 {
    now_ms.saturating_add(expires_ms.saturating_sub(now_ms) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(state: State) -> Receipt {
        Receipt { state, tx_id: "t".into(), deliver_by_ms: 100, ..Receipt::new(2) }
    }

    fn outcomes() -> [Outcome; 8] {
        [
            Outcome::Frozen { tx_id: "t".into(), deliver_by_ms: 100 },
            Outcome::NotFrozen("why".into()),
            Outcome::Delivered,
            Outcome::NotDelivered("why".into()),
            Outcome::Paid,
            Outcome::NotPaid("why".into()),
            Outcome::Back,
            Outcome::NotBack("why".into()),
        ]
    }

    #[test]
    fn a_receipt_goes_on_as_the_table_says() {
        let mut table = String::new();
        for state in State::ALL {
            for outcome in outcomes() {
                if let Some((after, inbox)) = receipt(state).after(outcome.clone()) {
                    let outcome = format!("{outcome:?}");
                    let outcome = outcome.split([' ', '(']).next().unwrap();
                    table.push_str(&format!("{state:?} {outcome}: {:?}, inbox {inbox:?}\n", after.state));
                }
            }
        }
        let expected = "\
            Freezing Frozen: Delivering, inbox Stays\n\
            Freezing NotFrozen: Refused, inbox Stays\n\
            Delivering Delivered: Confirming, inbox Put\n\
            Delivering NotDelivered: Refunding, inbox Stays\n\
            Confirming Paid: Received, inbox Stays\n\
            Confirming NotPaid: Refunding, inbox TakenBack\n\
            Refunding Back: Refunded, inbox Stays\n\
            Refunding NotBack: Refunded, inbox Stays\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn whatever_comes_of_its_steps_it_ends_and_a_gift_stays_only_where_it_was_paid() {
        // All ways through, by depth: none is longer than the states.
        let mut ways = vec![(Receipt::new(2), 0)];
        let mut ends = 0;
        for _ in 0..State::ALL.len() {
            let mut next = Vec::new();
            for (receipt, delivered) in ways {
                if receipt.state.is_end() {
                    assert_eq!(receipt.next(0), None);
                    assert_eq!(delivered, i32::from(receipt.state == State::Received), "{receipt:?}");
                    assert_eq!(receipt.reason.is_empty(), receipt.state == State::Received, "{receipt:?}");
                    ends += 1;
                    continue;
                }
                for (after, inbox) in outcomes().into_iter().filter_map(|outcome| receipt.after(outcome)) {
                    let delivered = match inbox {
                        Inbox::Stays => delivered,
                        Inbox::Put => delivered + 1,
                        Inbox::TakenBack => delivered - 1,
                    };
                    next.push((after, delivered));
                }
            }
            ways = next;
        }
        assert!(ways.is_empty() && ends > 4, "{ways:?}");
    }

    #[test]
    fn what_cannot_be_paid_in_time_is_not_delivered() {
        let delivering = receipt(State::Delivering);
        assert_eq!(delivering.next(99), Some(Next::Deliver));
        assert_eq!(delivering.next(100), Some(Next::GiveUp));
        assert_eq!(receipt(State::Confirming).next(1_000), Some(Next::Confirm), "it may still be in time");
        assert_eq!(
            (deliver_by(100, 300), deliver_by(300, 100), deliver_by(0, i64::MAX)),
            (200, 200, i64::MAX / 2)
        );
    }
}
