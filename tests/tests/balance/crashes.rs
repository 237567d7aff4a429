//! Balances as processes that die, or stop, in the middle of a transaction.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use demo_services::balance::ledger::MAX;
use sqlx::{Connection, Executor, Row, SqliteConnection};
use svc_proto::balance::v1::balance_client::BalanceClient;
use svc_proto::balance::v1::{
    BatchAddUserCoinRequest, CompleteTransactionRequest, GetBalanceRequest, Outcome,
};
use svc_tests::ports::free_port;
use svc_tests::process::Process;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Client, Database, Instance, database_tests, freeze, operation, seed};

/// The service's binary. `cargo test --workspace` has built it; a test of this crate alone builds it first.
pub(crate) fn balance_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            // .../debug/deps/balance-0123456789abcdef
            let own = std::env::current_exe().expect("we run");
            let binary = own.ancestors().nth(2).expect("cargo's folders").join("balance");
            if !binary.is_file() {
                let built = Command::new(env!("CARGO"))
                    .args(["build", "--quiet", "-p", "demo-services", "--bin", "balance"])
                    .status()
                    .expect("cargo runs");
                assert!(built.success(), "the binary cannot be built");
            }
            binary
        })
        .clone()
}

type Stub = BalanceClient<Channel>;

/// A balance as a process, without an etcd.
struct Balance {
    process: Process,
    client: Client,
    arguments: Vec<String>,
}

impl Balance {
    async fn start(database: &Database, id: &str) -> Balance {
        let port = free_port();
        let arguments = [
            ["--listen".to_owned(), format!("127.0.0.1:{port}")],
            ["--database".to_owned(), database.address()],
            ["--id".to_owned(), id.to_owned()],
            // Where nobody listens.
            ["--endpoints".to_owned(), "127.0.0.1:1".to_owned()],
        ];
        let arguments = arguments.concat();
        let client = Client::to(([127, 0, 0, 1], port).into());
        let balance = Balance { process: spawn(&arguments), client, arguments };
        balance.serves().await;
        balance
    }

    async fn kill_and_start_again(&mut self) {
        self.process.kill();
        self.process = spawn(&self.arguments);
        self.serves().await;
    }

    async fn serves(&self) {
        while self.client.stub.clone().get_balance(GetBalanceRequest { uid: MAX }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn spawn(arguments: &[String]) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::spawn_unheard(&balance_binary(), &arguments)
}

/// Holds a balance in the middle of a transaction: it has written something and can go neither on nor back.
struct Held<'a> {
    database: &'a Database,
    /// Holds the row that the transaction wants.
    holder: Option<sqlx::PgConnection>,
}

impl<'a> Held<'a> {
    /// From here on every write on user 1's accounts stops halfway.
    async fn new(database: &'a Database) -> Held<'a> {
        let holder = match database {
            Database::Sqlite(_) => {
                // After the accounts are written, before the commit: a trigger that counts to 10^15.
                database
                    .execute(
                        "CREATE TABLE slow (n INTEGER); \
                         WITH RECURSIVE count (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM count LIMIT 1000) \
                         INSERT INTO slow SELECT n FROM count; \
                         CREATE TRIGGER slow_entries AFTER INSERT ON entries BEGIN \
                         UPDATE slow SET n = (SELECT COUNT(*) FROM slow a, slow b, slow c, slow d, slow e) \
                         WHERE n = 1; END",
                    )
                    .await;
                None
            }
            Database::Postgres(postgres) => {
                let mut holder = postgres.connect().await;
                holder
                    .execute("BEGIN; SELECT * FROM accounts WHERE uid = 1 FOR UPDATE")
                    .await
                    .expect("it locks");
                Some(holder)
            }
        };
        Held { database, holder }
    }

    /// Waits until a write has got stuck.
    async fn caught(&mut self) {
        loop {
            let caught = match self.database {
                Database::Sqlite(_) => {
                    let mut other =
                        SqliteConnection::connect(&self.database.address()).await.expect("it is there");
                    other.execute("PRAGMA busy_timeout = 0").await.expect("it is set");
                    let busy = other.execute("BEGIN IMMEDIATE; ROLLBACK").await.is_err();
                    other.close().await.expect("it closes");
                    busy
                }
                Database::Postgres(_) => {
                    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                    let holder = self.holder.as_mut().expect("it holds");
                    let row = sqlx::query(waiting).fetch_one(holder).await.expect("it answers");
                    row.get::<i64, _>(0) > 0
                }
            };
            if caught {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets go.
    async fn release(self) {
        match self.database {
            Database::Sqlite(_) => self.database.execute("DROP TRIGGER slow_entries; DROP TABLE slow").await,
            Database::Postgres(_) => {
                let mut holder = self.holder.expect("it holds");
                holder.execute("ROLLBACK").await.expect("it answers");
            }
        }
    }
}

database_tests! {
    async fn an_instance_killed_in_the_middle_of_a_transaction_has_done_nothing(database: Database) {
        let mut doomed = Balance::start(&database, "doomed").await;
        let other = Instance::start(&database).await;
        other.client.add(1, 100, "in").await.expect("it is issued");
        let done = other.client.freeze(1, 2, 10, "before").await.expect("there is enough");

        for (round, call) in ["a freeze", "a confirm", "a batch"].into_iter().enumerate() {
            let before = (other.client.balance(1).await, other.client.balance(2).await);
            let mut held = Held::new(&database).await;
            let (mut stub, tx_id) = (doomed.client.stub.clone(), done.clone());
            let stuck = tokio::spawn(async move {
                match round {
                    0 => stub.freeze_user_coin_for_gift(freeze(1, 2, 20, "gift")).await.map(drop),
                    1 => {
                        let outcome = Outcome::Confirm.into();
                        stub.complete_transaction(CompleteTransactionRequest { tx_id, outcome }).await.map(drop)
                    }
                    _ => {
                        let operations = vec![operation(1, 7, "more")];
                        stub.batch_add_user_coin(BatchAddUserCoinRequest { operations }).await.map(drop)
                    }
                }
            });
            held.caught().await;
            doomed.process.kill();
            stuck.await.expect("no panic").expect_err("nobody answers");
            held.release().await;

            let figures = database.is_sound().await;
            assert_eq!((other.client.balance(1).await, other.client.balance(2).await), before, "{call}");
            assert_eq!(figures.transactions, 2 + i64::from(round > 0), "{call}");
            // The caller repeats what it got no answer to, wherever.
            match round {
                0 => drop(other.client.freeze(1, 2, 20, "gift").await.expect(call)),
                1 => drop(other.client.confirm(&done).await.expect(call)),
                _ => drop(other.client.add(1, 7, "more").await.expect(call)),
            }
            doomed.kill_and_start_again().await;
        }
        assert_eq!(doomed.client.balance(1).await, (77, 20));
        assert_eq!(doomed.client.balance(2).await, (7, 0));
        database.is_sound().await;
    }

    async fn killed_and_started_again_under_load_they_lose_and_make_nothing(database: Database) {
        let mut rng = fastrand::Rng::with_seed(seed());
        let mut balances =
            [Balance::start(&database, "b-1").await, Balance::start(&database, "b-2").await];
        let clients = [balances[0].client.clone(), balances[1].client.clone()];
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut callers = JoinSet::new();
        for n in 0..16 {
            callers.spawn(shopper(n, clients.clone(), stopped.clone()));
        }
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(rng.u64(50..400))).await;
            balances[rng.usize(0..2)].kill_and_start_again().await;
        }
        stop.send_replace(true);
        let (mut expected, mut repeated) = (Sums::default(), 0);
        while let Some(ended) = callers.join_next().await {
            let (sums, again) = ended.expect("no caller panics");
            expected.issued += sums.issued;
            expected.sent += sums.sent;
            expected.transactions += sums.transactions;
            repeated += again;
        }
        eprintln!("{expected:?}, {repeated} calls repeated");
        assert!(repeated > 0, "some call was cut");
        let figures = database.is_sound().await;
        assert_eq!((figures.issued, figures.frozen), (expected.issued.into(), 0));
        assert_eq!(figures.transactions, expected.transactions);
        // Everybody sends ten coins at a time: seven arrive.
        assert_eq!(figures.house, i128::from(expected.sent * 3));
        assert_eq!(clients[0].balance(1).await, (expected.sent * 7, 0));
    }
}

/// What a caller was told was done.
#[derive(Debug, Default)]
struct Sums {
    issued: i64,
    sent: i64,
    transactions: i64,
}

/// Issues coins to a user of its own, and sends gifts to user 1, some of which it takes back; repeats each call until it
/// has an answer, by turns on both instances. Leaves nothing half done.
async fn shopper(n: i64, clients: [Client; 2], stopped: tokio::sync::watch::Receiver<bool>) -> (Sums, u64) {
    let (mut sums, mut repeated) = (Sums::default(), 0);
    let me = 100 + n;
    for round in 0.. {
        if *stopped.borrow() {
            break;
        }
        let biz_id = format!("{n}-{round}");
        let operations = vec![operation(me, 10, &format!("{biz_id}-in"))];
        let request = BatchAddUserCoinRequest { operations };
        let add = |mut stub: Stub| {
            let request = request.clone();
            async move { stub.batch_add_user_coin(request).await }
        };
        until_answered(&clients, &mut repeated, add).await;
        let freeze = |mut stub: Stub| {
            let request = freeze(me, 1, 10, &biz_id);
            async move { stub.freeze_user_coin_for_gift(request).await }
        };
        let tx_id = until_answered(&clients, &mut repeated, freeze).await.into_inner().tx_id;
        let outcome = if round % 4 == 3 { Outcome::Refund } else { Outcome::Confirm };
        let request = CompleteTransactionRequest { tx_id, outcome: outcome.into() };
        let complete = |mut stub: Stub| {
            let request = request.clone();
            async move { stub.complete_transaction(request).await }
        };
        until_answered(&clients, &mut repeated, complete).await;
        sums.issued += 10;
        sums.transactions += 2;
        sums.sent += i64::from(outcome == Outcome::Confirm);
    }
    (sums, repeated)
}

/// Repeats a call that got no answer. A connection that breaks under a call is UNKNOWN or CANCELLED to tonic's own
/// channel, which these callers use.
async fn until_answered<T, F: Future<Output = Result<T, Status>>>(
    clients: &[Client; 2],
    repeated: &mut u64,
    call: impl Fn(Stub) -> F,
) -> T {
    for turn in 0.. {
        match call(clients[turn % 2].stub.clone()).await {
            Ok(answer) => return answer,
            Err(status) => {
                let cut = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
                assert!(cut.contains(&status.code()), "{status}");
                *repeated += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    unreachable!("the loop returns")
}

/// On SQLite whoever has the write lock holds up everybody, as that database is for one host; PostgreSQL takes the
/// transaction away from an instance that has stopped.
#[test]
fn an_instance_stopped_in_the_middle_of_a_transaction_holds_up_nobody_for_long() {
    crate::support::run(true, async |database| {
        let stopped = Balance::start(&database, "stopped").await;
        let other = Instance::start(&database).await;
        other.client.add(1, 100, "in").await.expect("it is issued");
        let mut held = Held::new(&database).await;
        let client = stopped.client.clone();
        let stuck = tokio::spawn(async move { client.freeze(1, 2, 20, "gift").await });
        held.caught().await;
        stopped.process.freeze();
        // Now its transaction has the row, and does not go on.
        held.release().await;

        let again = other.client.freeze(1, 2, 20, "gift").await.expect("the transaction is taken away");
        assert_eq!(other.client.balance(1).await, (80, 20));
        stopped.process.thaw();
        let late = stuck.await.expect("no panic").expect("it tries again, and finds it done");
        assert_eq!(late, again);
        assert_eq!(stopped.client.balance(1).await, (80, 20));
        database.is_sound().await;
    });
}
