//! Random operations, and a model of a few lines beside them.
//!
//! One caller alone must see exactly what the model says, call by call. With 64 callers on two instances nobody knows
//! who came first: then every answer is held against every other answer about the same thing, and in the end the sum of
//! what was answered is what the ledger holds. `BALANCE_SEED` plays a run again (of the 64, as far as their draws go).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use svc_proto::balance::v1::{AddUserCoinOperation, FreezeUserCoinForGiftRequest, Outcome, State};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::{Client, Database, Instance, SHARE, database_tests, freeze, operation, seed};

/// Few enough to meet all the time.
const USERS: i64 = 6;

const CALLERS: u64 = 64;
const STEPS: u64 = 30;

/// The steps of the one caller.
const ALONE: u64 = 400;

/// What one transaction did.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moved {
    from: i64,
    to: i64,
    coin: i64,
    state: State,
}

/// What users have: the model.
fn balances(moved: impl IntoIterator<Item = Moved>) -> BTreeMap<i64, (i64, i64)> {
    let mut balances: BTreeMap<i64, (i64, i64)> = (1..=USERS).map(|uid| (uid, (0, 0))).collect();
    for Moved { from, to, coin, state } in moved {
        let mut gains = |uid: i64, available: i64, frozen: i64| {
            let balance = balances.get_mut(&uid).expect("one of the users");
            *balance = (balance.0 + available, balance.1 + frozen);
        };
        match state {
            State::Added => gains(to, coin, 0),
            State::Frozen => gains(from, -coin, coin),
            State::Confirmed => {
                gains(from, -coin, 0);
                gains(to, coin * SHARE / 100, 0);
            }
            State::Refunded | State::Expired | State::Unspecified => {}
        }
    }
    balances
}

/// The ledger holds what the model says, whoever is asked.
async fn agrees(database: &Database, clients: &[&Client], moved: &HashMap<String, Moved>) {
    let figures = database.is_sound().await;
    let issued: i64 =
        moved.values().filter(|moved| moved.state == State::Added).map(|moved| moved.coin).sum();
    let house: i64 = moved
        .values()
        .filter(|moved| moved.state == State::Confirmed)
        .map(|moved| moved.coin - moved.coin * SHARE / 100)
        .sum();
    assert_eq!((figures.issued, figures.house), (issued.into(), house.into()));
    assert_eq!(figures.transactions, moved.len() as i64, "nothing was carried out that nobody was told of");
    for (uid, expected) in balances(moved.values().copied()) {
        for client in clients {
            assert_eq!(client.balance(uid).await, expected, "user {uid}");
        }
        let shown: HashMap<String, Moved> = clients[0]
            .transactions(uid, 97)
            .await
            .into_iter()
            .map(|shown| {
                let state = shown.state();
                let moved = Moved { from: shown.from_uid, to: shown.to_uid, coin: shown.coin, state };
                (shown.tx_id, moved)
            })
            .collect();
        let expected: HashMap<String, Moved> = moved
            .iter()
            .filter(|(_, moved)| moved.from == uid || moved.to == uid)
            .map(|(tx_id, moved)| (tx_id.clone(), *moved))
            .collect();
        assert_eq!(shown, expected, "user {uid}");
    }
}

/// A call that changes something.
#[derive(Clone, Debug, PartialEq)]
enum Request {
    Add(Vec<AddUserCoinOperation>),
    Freeze(FreezeUserCoinForGiftRequest),
    Complete(String, Outcome),
}

/// What was answered: the transactions, or how one ended.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Carried(Vec<String>),
    Ended(State),
}

async fn call(client: &Client, request: &Request) -> Result<Answer, Status> {
    match request {
        Request::Add(operations) => client.add_all(operations.clone()).await.map(Answer::Carried),
        Request::Freeze(freeze) => {
            client.freeze_again(freeze).await.map(|tx_id| Answer::Carried(vec![tx_id]))
        }
        Request::Complete(tx_id, outcome) => {
            client.complete(tx_id, *outcome).await.map(|done| Answer::Ended(done.state()))
        }
    }
}

/// Draws requests that were not made before.
struct Draw {
    rng: Rng,
    name: String,
    drawn: u64,
}

impl Draw {
    fn new(seed: u64, name: String) -> Draw {
        Draw { rng: Rng::with_seed(seed), name, drawn: 0 }
    }

    fn biz_id(&mut self) -> String {
        self.drawn += 1;
        format!("{}-{}", self.name, self.drawn)
    }

    fn user(&mut self) -> i64 {
        self.rng.i64(1..=USERS)
    }

    fn add(&mut self) -> Request {
        let operations = (0..self.rng.u32(1..=4)).map(|_| {
            let (uid, coin) = (self.user(), self.rng.i64(1..=300));
            operation(uid, coin, &self.biz_id())
        });
        Request::Add(operations.collect())
    }

    fn freeze(&mut self) -> Request {
        let from = self.user();
        let to = (from - 1 + self.rng.i64(1..USERS)) % USERS + 1;
        // Often more than there is.
        let coin = self.rng.i64(1..=400);
        Request::Freeze(freeze(from, to, coin, &self.biz_id()))
    }

    fn complete(&mut self, known: &[String]) -> Request {
        let outcome = if self.rng.u32(0..3) == 0 { Outcome::Refund } else { Outcome::Confirm };
        let tx_id = self.rng.choice(known).cloned().unwrap_or_else(|| "none".to_owned());
        Request::Complete(tx_id, outcome)
    }

    /// The same names with another body.
    fn forged(&self, request: &Request) -> Option<Request> {
        let mut request = request.clone();
        match &mut request {
            Request::Add(operations) => operations.last_mut()?.coin += 1,
            Request::Freeze(freeze) => freeze.coin += 1,
            Request::Complete(..) => return None,
        }
        Some(request)
    }
}

/// The model of the one caller: it knows what every call must answer.
#[derive(Default)]
struct Model {
    moved: HashMap<String, Moved>,
    /// What a `biz_id` stands for: the body that came with it, and the transaction.
    known: HashMap<String, (Moved, String)>,
}

impl Model {
    /// Holds an answer against what it must be, and remembers it.
    fn check(&mut self, request: &Request, answer: Result<Answer, Status>) {
        let answer = answer.map_err(|status| status.code());
        match request {
            Request::Complete(tx_id, outcome) => {
                let wanted = if *outcome == Outcome::Confirm { State::Confirmed } else { State::Refunded };
                let expected = match self.moved.get_mut(tx_id) {
                    None => Err(Code::NotFound),
                    Some(moved) if moved.state == State::Frozen => {
                        moved.state = wanted;
                        Ok(Answer::Ended(wanted))
                    }
                    Some(moved) if moved.state == wanted => Ok(Answer::Ended(wanted)),
                    Some(_) => Err(Code::FailedPrecondition),
                };
                assert_eq!(answer, expected, "{request:?}");
            }
            Request::Add(operations) => {
                let bodies = operations.iter().map(|operation| {
                    let AddUserCoinOperation { to_uid, coin, biz_id, .. } = operation;
                    let body = Moved { from: 0, to: *to_uid, coin: *coin, state: State::Added };
                    (biz_id.clone(), body)
                });
                self.carried(request, &bodies.collect::<Vec<_>>(), answer);
            }
            Request::Freeze(freeze) => {
                let FreezeUserCoinForGiftRequest { from_uid: from, to_uid: to, coin, .. } = *freeze;
                let body = Moved { from, to, coin, state: State::Frozen };
                let has = balances(self.moved.values().copied())[&from].0;
                if has < coin && !self.known.contains_key(&freeze.biz_id) {
                    return assert_eq!(answer, Err(Code::FailedPrecondition), "{request:?} of {has}");
                }
                self.carried(request, &[(freeze.biz_id.clone(), body)], answer);
            }
        }
    }

    fn carried(&mut self, request: &Request, bodies: &[(String, Moved)], answer: Result<Answer, Code>) {
        let forged =
            |(biz_id, body): &(String, Moved)| self.known.get(biz_id).is_some_and(|(known, _)| known != body);
        if bodies.iter().any(forged) {
            return assert_eq!(answer, Err(Code::AlreadyExists), "{request:?}");
        }
        let Ok(Answer::Carried(tx_ids)) = answer else { panic!("{request:?}: {answer:?}") };
        assert_eq!(tx_ids.len(), bodies.len());
        for ((biz_id, body), tx_id) in bodies.iter().zip(tx_ids) {
            match self.known.get(biz_id) {
                Some((_, known)) => assert_eq!(*known, tx_id, "{request:?}"),
                None => {
                    self.known.insert(biz_id.clone(), (*body, tx_id.clone()));
                    let before = self.moved.insert(tx_id, *body);
                    assert_eq!(before, None, "a transaction of its own: {request:?}");
                }
            }
        }
    }
}

database_tests! {
    async fn one_caller_sees_exactly_what_the_model_says(database: Database) {
        let instances = [Instance::start(&database).await, Instance::start(&database).await];
        let clients = [&instances[0].client, &instances[1].client];
        let (mut model, mut made) = (Model::default(), Vec::<Request>::new());
        let mut draw = Draw::new(seed(), "alone".to_owned());
        for step in 0..ALONE {
            let mut known: Vec<String> = model.moved.keys().cloned().collect();
            known.sort_unstable();
            let request = match draw.rng.u32(0..10) {
                0..2 => draw.add(),
                2..5 => draw.freeze(),
                5..8 => draw.complete(&known),
                8 => draw.rng.choice(&made).cloned().unwrap_or(Request::Complete("none".to_owned(), Outcome::Refund)),
                _ => match draw.rng.choice(&made).and_then(|made| draw.forged(made)) {
                    Some(forged) => forged,
                    None => continue,
                },
            };
            let answer = call(clients[step as usize % 2], &request).await;
            model.check(&request, answer);
            made.push(request);
        }
        agrees(&database, &clients, &model.moved).await;
    }

    async fn whatever_64_callers_do_on_two_instances_no_coin_is_lost_or_made(database: Database) {
        let instances = [Instance::start(&database).await, Instance::start(&database).await];
        let clients = [instances[0].client.clone(), instances[1].client.clone()];
        let told = Arc::new(Told::default());
        let seed = seed();
        let mut callers = JoinSet::new();
        for n in 0..CALLERS {
            callers.spawn(caller(n, seed, clients.clone(), told.clone()));
        }
        // The law holds at every moment, not only in the end.
        let store = instances[0].store.clone();
        let mut checks = 0;
        while !callers.is_empty() {
            tokio::select! {
                Some(ended) = callers.join_next() => ended.expect("no caller panics"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    let figures = store.check().await.expect("it answers");
                    assert!(figures.ok, "{figures}");
                    checks += 1;
                }
            }
        }
        told.seen().refused_ends_were_rightly_refused();
        let moved = told.seen().moved();
        eprintln!(
            "{} transactions, {} calls, {checks} checks meanwhile",
            moved.len(),
            told.calls.load(Ordering::Relaxed),
        );
        agrees(&database, &[&clients[0], &clients[1]], &moved).await;
    }
}

/// What the callers were told, held against each other.
#[derive(Default)]
struct Told {
    seen: Mutex<Seen>,
    calls: AtomicU64,
}

#[derive(Default)]
struct Seen {
    /// What was asked for under a `biz_id`, and the transaction that was given for it.
    orders: HashMap<String, (Moved, String)>,
    /// Each transaction that can end, and how it has.
    ends: HashMap<String, Option<State>>,
    /// Frozen ones, for callers to end.
    frozen: Vec<String>,
    /// Ends that were refused.
    refused: Vec<(String, Outcome)>,
    /// Requests that succeeded, to be repeated.
    made: Vec<Request>,
}

impl Told {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, client: &Client, request: &Request) -> Result<Answer, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        call(client, request).await
    }
}

impl Seen {
    fn remember(&mut self, request: &Request, answer: Result<Answer, Status>) {
        match (request, answer) {
            (Request::Add(operations), Ok(Answer::Carried(tx_ids))) => {
                for (operation, tx_id) in operations.iter().zip(tx_ids) {
                    let AddUserCoinOperation { to_uid, coin, biz_id, .. } = operation;
                    let moved = Moved { from: 0, to: *to_uid, coin: *coin, state: State::Added };
                    self.order(biz_id, moved, tx_id);
                }
            }
            (Request::Freeze(freeze), Ok(Answer::Carried(tx_ids))) => {
                let FreezeUserCoinForGiftRequest { from_uid: from, to_uid: to, coin, .. } = *freeze;
                let moved = Moved { from, to, coin, state: State::Frozen };
                if self.order(&freeze.biz_id, moved, tx_ids[0].clone()) {
                    self.frozen.push(tx_ids[0].clone());
                }
            }
            (Request::Freeze(_), Err(status)) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{request:?}: {status}");
                return;
            }
            (Request::Complete(tx_id, _), Ok(Answer::Ended(state))) => {
                let before = self.ends.insert(tx_id.clone(), Some(state)).flatten();
                assert!(before.is_none_or(|before| before == state), "{request:?}: {before:?}, {state:?}");
            }
            (Request::Complete(tx_id, outcome), Err(status)) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{request:?}: {status}");
                return self.refused.push((tx_id.clone(), *outcome));
            }
            (request, answer) => panic!("{request:?}: {answer:?}"),
        }
        self.made.push(request.clone());
    }

    /// Whether it is new.
    fn order(&mut self, biz_id: &str, moved: Moved, tx_id: String) -> bool {
        let known = self.orders.entry(biz_id.to_owned()).or_insert((moved, tx_id.clone()));
        assert_eq!(*known, (moved, tx_id.clone()), "one body and one transaction for {biz_id}");
        moved.state == State::Frozen
            && self.ends.insert(tx_id.clone(), None).is_none_or(|end| {
                self.ends.insert(tx_id, end);
                false
            })
    }

    fn refused_ends_were_rightly_refused(&self) {
        for (tx_id, outcome) in &self.refused {
            let refused = if *outcome == Outcome::Confirm { State::Confirmed } else { State::Refunded };
            let ended =
                self.ends[tx_id].expect("what was refused had ended otherwise, and somebody was told so");
            assert_ne!(ended, refused, "{tx_id}");
        }
    }

    /// What each transaction came to.
    fn moved(&self) -> HashMap<String, Moved> {
        let moved = self.orders.values().map(|(moved, tx_id)| {
            let state = self.ends.get(tx_id).copied().flatten().unwrap_or(moved.state);
            (tx_id.clone(), Moved { state, ..*moved })
        });
        moved.collect()
    }
}

async fn caller(n: u64, seed: u64, clients: [Client; 2], told: Arc<Told>) {
    let mut draw = Draw::new(seed.wrapping_add(n), format!("caller-{n}"));
    for _ in 0..STEPS {
        let client = &clients[draw.rng.usize(0..2)];
        let known = |told: &Told, draw: &mut Draw| {
            let seen = told.seen();
            draw.rng.choice(&seen.frozen).cloned()
        };
        let request = match draw.rng.u32(0..10) {
            0..2 => draw.add(),
            2..5 => draw.freeze(),
            5..8 => match known(&told, &mut draw) {
                Some(tx_id) => draw.complete(&[tx_id]),
                None => draw.add(),
            },
            // What somebody else has done, or is doing.
            8 => {
                let made = draw.rng.choice(&told.seen().made).cloned();
                made.unwrap_or_else(|| draw.add())
            }
            _ => {
                let made = draw.rng.choice(&told.seen().made).cloned();
                if let Some(forged) = made.and_then(|made| draw.forged(&made)) {
                    let refused = told.call(client, &forged).await.expect_err("it is another body");
                    assert_eq!(refused.code(), Code::AlreadyExists, "{forged:?}");
                }
                let balance = client.balance(draw.user()).await;
                assert!(balance.0 >= 0 && balance.1 >= 0, "{balance:?}");
                continue;
            }
        };
        if draw.rng.bool() {
            let answer = told.call(client, &request).await;
            told.seen().remember(&request, answer);
        } else {
            // The same at the same time on both instances.
            let (one, other) =
                tokio::join!(told.call(&clients[0], &request), told.call(&clients[1], &request));
            told.seen().remember(&request, one);
            told.seen().remember(&request, other);
        }
    }
}
