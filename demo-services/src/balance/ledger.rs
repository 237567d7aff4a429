//! The ledger as values: accounts, postings whose entries add up to zero, and what may become of a transaction.
//!
//! Nothing here knows of a database. The store reads balances into a [`Book`], posts what a [`Transaction`] says, and
//! writes down what the book then holds; all of that within one database transaction.

use std::collections::BTreeMap;

/// The largest user id and amount, and the most that an account may be brought to: 2^53 - 1, which every JSON reader
/// holds exactly.
pub const MAX: i64 = (1 << 53) - 1;

/// A user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(i64);

impl Uid {
    /// The user with this id, which is from 1 to [`MAX`].
    pub fn new(id: i64) -> Option<Uid> {
        (1..=MAX).contains(&id).then_some(Uid(id))
    }

    /// The id.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// An amount that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coin(i64);

impl Coin {
    /// So many coins, from 1 to [`MAX`].
    pub fn new(coins: i64) -> Option<Coin> {
        (1..=MAX).contains(&coins).then_some(Coin(coins))
    }

    /// How many.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// What the receiver of a gift is paid of it, in percent; the house has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u8);

impl Share {
    /// So many percent, at most 100.
    pub fn percent(percent: u8) -> Option<Share> {
        (percent <= 100).then_some(Share(percent))
    }

    /// Whole coins, rounded down: of one coin at 70 % the receiver has none and the house one.
    pub fn of(self, coin: Coin) -> i64 {
        // MAX * 100 is below 2^60.
        coin.0 * i64::from(self.0) / 100
    }
}

/// Where coins are.
///
/// The order is that in which accounts are locked: whoever locks several does it in this order, and nobody waits in a
/// circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A user's, of one kind.
    User(Uid, Kind),
    /// What the house has been paid.
    House,
    /// Where coins come from: minus what has been issued.
    Issuer,
}

/// What a user can do with coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Spend them.
    Available,
    /// Nothing, until the transaction is completed.
    Frozen,
}

/// What one account gains, or loses when it is negative; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub account: Account,
    /// What it gains.
    pub amount: i64,
}

/// Entries that add up to zero, each of another account: what one step of a transaction moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    entries: Vec<Entry>,
}

impl Posting {
    /// From one account to others; what gains nothing has no entry.
    fn moved(from: Account, to: &[(Account, i64)]) -> Posting {
        let total = to.iter().map(|(_, amount)| amount).sum::<i64>();
        let mut entries = vec![Entry { account: from, amount: -total }];
        entries.extend(to.iter().map(|&(account, amount)| Entry { account, amount }));
        entries.retain(|entry| entry.amount != 0);
        Posting { entries }
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// What a caller asked for: the same order under the same `biz_id` is the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who pays; the issuer, where nobody does.
    pub from: Option<Uid>,
    /// Who is paid.
    pub to: Uid,
    /// How much leaves the payer.
    pub coin: Coin,
    /// The caller's own numbering.
    pub biz_type: i32,
    /// What makes the order known again.
    pub biz_id: String,
    /// The caller's own numbering.
    pub scene_id: i64,
}

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The coins are set aside.
    Frozen,
    /// Receiver and house have been paid.
    Confirmed,
    /// The sender has the coins again.
    Refunded,
    /// The same, because nobody completed it.
    Expired,
    /// Coins were issued; this has no second step.
    Added,
}

/// How a frozen transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The caller says that the gift has arrived.
    Confirm,
    /// The caller says that it has not.
    Refund,
    /// Nobody has said anything.
    Expire,
}

/// An order that was carried out, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its place among all, newest last.
    pub seq: i64,
    /// Its name outside.
    pub tx_id: String,
    /// How it stands.
    pub state: State,
    /// What was asked for.
    pub order: Order,
    /// What the receiver is paid once it is confirmed or added. Settled at the start, so that instances that are
    /// configured differently do not differ about it.
    pub receiver_coin: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// From when on it may expire.
    pub expires_ms: Option<i64>,
    /// When it ended.
    pub completed_ms: Option<i64>,
}

/// What ending a transaction comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has ended so already: nothing moves.
    Done,
    /// This moves, and the transaction then stands so.
    Move(Posting, State),
}

impl Transaction {
    /// What moves when it is carried out.
    pub fn beginning(&self) -> Posting {
        let Order { from, to, coin, .. } = self.order;
        match from {
            Some(from) => Posting::moved(
                Account::User(from, Kind::Available),
                &[(Account::User(from, Kind::Frozen), coin.get())],
            ),
            None => Posting::moved(Account::Issuer, &[(Account::User(to, Kind::Available), coin.get())]),
        }
    }

    /// What moves when it is to end so.
    ///
    /// # Errors
    /// It has ended otherwise, or was never frozen.
    pub fn end(&self, end: End) -> Result<Step, Refusal> {
        let Order { from, to, coin, .. } = self.order;
        match (self.state, end) {
            (State::Frozen, end) => {
                let Some(from) = from else { return Err(Refusal::Ended { state: self.state }) };
                let frozen = Account::User(from, Kind::Frozen);
                let back = [(Account::User(from, Kind::Available), coin.get())];
                Ok(match end {
                    End::Confirm => {
                        let receiver = (Account::User(to, Kind::Available), self.receiver_coin);
                        let house = (Account::House, coin.get() - self.receiver_coin);
                        Step::Move(Posting::moved(frozen, &[receiver, house]), State::Confirmed)
                    }
                    End::Refund => Step::Move(Posting::moved(frozen, &back), State::Refunded),
                    End::Expire => Step::Move(Posting::moved(frozen, &back), State::Expired),
                })
            }
            (State::Confirmed, End::Confirm) | (State::Refunded | State::Expired, End::Refund) => {
                Ok(Step::Done)
            }
            // Somebody else was faster, which is all the same to the sweeper.
            (_, End::Expire) => Ok(Step::Done),
            (state, _) => Err(Refusal::Ended { state }),
        }
    }

    /// What receiver and house have been paid.
    pub fn paid(&self) -> (i64, i64) {
        match self.state {
            State::Confirmed | State::Added => {
                (self.receiver_coin, self.order.coin.get() - self.receiver_coin)
            }
            State::Frozen | State::Refunded | State::Expired => (0, 0),
        }
    }
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender has too few coins.
    #[error("user {} has {has} coins to spend, and {needs} are needed", uid.get())]
    TooFew {
        /// The sender.
        uid: Uid,
        /// What it can spend.
        has: i64,
        /// What it should.
        needs: i64,
    },
    /// The receiver's account would hold more than [`MAX`].
    #[error("user {} has {has} coins, and an account holds at most {MAX}", uid.get())]
    Full {
        /// The receiver.
        uid: Uid,
        /// What it has.
        has: i64,
    },
    /// The transaction has ended otherwise.
    #[error("the transaction cannot end so: it is {state:?} already")]
    Ended {
        /// How it stands.
        state: State,
    },
    /// There is no such transaction.
    #[error("there is no transaction {tx_id:?}")]
    Unknown {
        /// What was asked for.
        tx_id: String,
    },
    /// The `biz_id` stands for another order.
    #[error("biz_id {biz_id:?} is known with another body")]
    OtherBody {
        /// What was asked for.
        biz_id: String,
    },
    /// The accounts contradict the transactions; nothing is moved any further.
    #[error("the ledger is broken: user {} has {has} frozen coins, and a transaction holds {needs} of them", uid.get())]
    Broken {
        /// Whose account it is.
        uid: Uid,
        /// What it holds.
        has: i64,
        /// What it should, at least.
        needs: i64,
    },
}

/// The balances of the users' accounts that postings touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    balances: BTreeMap<(Uid, Kind), i64>,
}

impl Book {
    /// The accounts of users that these postings touch, in the order in which they are locked.
    pub fn accounts<'a>(postings: impl IntoIterator<Item = &'a Posting>) -> Vec<(Uid, Kind)> {
        let mut accounts: Vec<(Uid, Kind)> = postings
            .into_iter()
            .flat_map(Posting::entries)
            .filter_map(|entry| match entry.account {
                Account::User(uid, kind) => Some((uid, kind)),
                Account::House | Account::Issuer => None,
            })
            .collect();
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// Says what an account holds.
    pub fn set(&mut self, account: (Uid, Kind), balance: i64) {
        self.balances.insert(account, balance);
    }

    /// What the accounts hold, in order.
    pub fn balances(&self) -> impl Iterator<Item = ((Uid, Kind), i64)> {
        self.balances.iter().map(|(&account, &balance)| (account, balance))
    }

    /// Moves what a posting says. An account that was not [set](Book::set) holds nothing.
    ///
    /// # Errors
    /// An account has too little or would hold too much. The book is then of no more use.
    pub fn post(&mut self, posting: &Posting) -> Result<(), Refusal> {
        // Coins that only change their kind are never turned away: a refund finds room however full the account has
        // become meanwhile.
        let stays = Book::accounts([posting]).windows(2).any(|pair| pair[0].0 == pair[1].0);
        for entry in posting.entries() {
            let Account::User(uid, kind) = entry.account else { continue };
            let balance = self.balances.entry((uid, kind)).or_default();
            let after = balance.checked_add(entry.amount);
            *balance = match (after, kind) {
                (Some(after), _) if entry.amount < 0 && after >= 0 => after,
                (Some(after), _) if entry.amount > 0 && (stays || after <= MAX) => after,
                (_, Kind::Available) if entry.amount < 0 => {
                    return Err(Refusal::TooFew { uid, has: *balance, needs: -entry.amount });
                }
                (_, Kind::Frozen) if entry.amount < 0 => {
                    return Err(Refusal::Broken { uid, has: *balance, needs: -entry.amount });
                }
                _ => return Err(Refusal::Full { uid, has: *balance }),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [End; 3] = [End::Confirm, End::Refund, End::Expire];
    const STATES: [State; 5] =
        [State::Frozen, State::Confirmed, State::Refunded, State::Expired, State::Added];

    fn uid(id: i64) -> Uid {
        Uid::new(id).unwrap()
    }

    fn transaction(state: State, coin: i64, share: u8) -> Transaction {
        let coin = Coin::new(coin).unwrap();
        let from = (state != State::Added).then_some(uid(1));
        let order = Order { from, to: uid(2), coin, biz_type: 0, biz_id: "b".into(), scene_id: 0 };
        let receiver_coin = Share::percent(share).unwrap().of(coin);
        Transaction {
            seq: 1,
            tx_id: "t".into(),
            state,
            order,
            receiver_coin,
            created_ms: 0,
            expires_ms: None,
            completed_ms: None,
        }
    }

    #[test]
    fn a_transaction_ends_as_the_table_says() {
        let mut table = String::new();
        for state in STATES {
            for end in ENDS {
                let said = match transaction(state, 10, 70).end(end) {
                    Ok(Step::Done) => "nothing".to_owned(),
                    Ok(Step::Move(_, state)) => format!("{state:?}"),
                    Err(Refusal::Ended { .. }) => "refused".to_owned(),
                    Err(other) => panic!("{other}"),
                };
                table.push_str(&format!("{state:?} {end:?}: {said}\n"));
            }
        }
        let expected = "\
            Frozen Confirm: Confirmed\nFrozen Refund: Refunded\nFrozen Expire: Expired\n\
            Confirmed Confirm: nothing\nConfirmed Refund: refused\nConfirmed Expire: nothing\n\
            Refunded Confirm: refused\nRefunded Refund: nothing\nRefunded Expire: nothing\n\
            Expired Confirm: refused\nExpired Refund: nothing\nExpired Expire: nothing\n\
            Added Confirm: refused\nAdded Refund: refused\nAdded Expire: nothing\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn whatever_moves_adds_up_to_zero_and_no_entry_is_empty() {
        for coin in [1, 2, 3, 99, 100, 101, MAX] {
            for share in [0, 1, 33, 70, 99, 100] {
                let frozen = transaction(State::Frozen, coin, share);
                let mut postings =
                    vec![frozen.beginning(), transaction(State::Added, coin, share).beginning()];
                for end in ENDS {
                    let Ok(Step::Move(posting, _)) = frozen.end(end) else { panic!("it is frozen") };
                    postings.push(posting);
                }
                for posting in postings {
                    assert_eq!(posting.entries().iter().map(|entry| entry.amount).sum::<i64>(), 0);
                    assert!(posting.entries().iter().all(|entry| entry.amount != 0), "{posting:?}");
                    let mut accounts: Vec<_> = posting.entries().iter().map(|entry| entry.account).collect();
                    accounts.sort_unstable();
                    accounts.dedup();
                    assert_eq!(accounts.len(), posting.entries().len(), "{posting:?}");
                }
            }
        }
    }

    #[test]
    fn a_share_is_whole_coins_rounded_down() {
        let of = |percent, coins| Share::percent(percent).unwrap().of(Coin::new(coins).unwrap());
        assert_eq!([of(70, 1), of(70, 10), of(70, 3), of(0, 5), of(100, 5)], [0, 7, 2, 0, 5]);
        assert_eq!(of(100, MAX), MAX);
        assert_eq!(of(99, MAX), 8_917_127_262_193_581);
        assert_eq!(Share::percent(101), None);
    }

    #[test]
    fn a_book_refuses_what_an_account_does_not_hold_or_cannot() {
        let posted = |available, frozen, posting: &Posting| {
            let mut book = Book::default();
            book.set((uid(1), Kind::Available), available);
            book.set((uid(1), Kind::Frozen), frozen);
            book.post(posting).map(|()| book.balances().map(|(_, balance)| balance).collect::<Vec<_>>())
        };
        let frozen = transaction(State::Frozen, 10, 70);
        let freeze = frozen.beginning();
        assert_eq!(posted(10, 5, &freeze), Ok(vec![0, 15]));
        assert_eq!(posted(9, 5, &freeze), Err(Refusal::TooFew { uid: uid(1), has: 9, needs: 10 }));
        let Ok(Step::Move(refund, _)) = frozen.end(End::Refund) else { panic!("it is frozen") };
        assert_eq!(posted(MAX, 10, &refund), Ok(vec![MAX + 10, 0]), "a refund finds room");
        assert_eq!(posted(0, 9, &refund), Err(Refusal::Broken { uid: uid(1), has: 9, needs: 10 }));

        let added = transaction(State::Added, 10, 0).beginning();
        let mut book = Book::default();
        book.set((uid(2), Kind::Available), MAX - 9);
        assert_eq!(book.post(&added), Err(Refusal::Full { uid: uid(2), has: MAX - 9 }));
    }
}
