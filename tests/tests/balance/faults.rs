//! Databases that fail under calls, and callers that go away.

use std::time::Duration;

use sqlx::Executor;
use svc_tests::postgres::Postgres;
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{Client, Database, Instance, database_tests, freeze, seed};

database_tests! {
    async fn callers_that_hang_up_leave_nothing_half_done(database: Database) {
        let instance = Instance::start(&database).await;
        let client = &instance.client;
        client.add(1, 1000, "in").await.expect("it is issued");
        let mut rng = fastrand::Rng::with_seed(seed());
        let mut calls = JoinSet::new();
        // A connection for each ten: a server ends one on which many calls are broken off.
        let clients: Vec<Client> = (0..20).map(|_| Client::to(instance.address)).collect();
        for n in 0..200 {
            let (mut stub, patience) = (clients[n / 10].stub.clone(), Duration::from_micros(rng.u64(0..30_000)));
            calls.spawn(async move {
                let call = stub.freeze_user_coin_for_gift(freeze(1, 2, 1, &format!("gift-{n}")));
                tokio::time::timeout(patience, call).await.is_ok_and(|answer| answer.is_ok())
            });
        }
        let answered = calls.join_all().await.into_iter().filter(|&answered| answered).count();
        eprintln!("{answered} of 200 were answered");
        // Whatever became of the first call: the second one is answered, and both together count once.
        for n in 0..200 {
            client.freeze(1, 2, 1, &format!("gift-{n}")).await.expect("there is enough");
        }
        assert_eq!(client.balance(1).await, (800, 200));
        assert_eq!(database.is_sound().await.transactions, 201);
    }

    async fn a_write_that_the_database_refuses_halfway_has_not_happened(database: Database) {
        let instance = Instance::start(&database).await;
        let client = &instance.client;
        client.add(1, 100, "in").await.expect("it is issued");
        let (forbid, allow) = match &database {
            Database::Sqlite(_) => (
                "CREATE TRIGGER refuse BEFORE INSERT ON entries BEGIN SELECT RAISE (ABORT, 'refused'); END",
                "DROP TRIGGER refuse",
            ),
            Database::Postgres(_) => (
                "ALTER TABLE entries ADD CONSTRAINT refuse CHECK (FALSE) NOT VALID",
                "ALTER TABLE entries DROP CONSTRAINT refuse",
            ),
        };
        database.execute(forbid).await;
        let refused = client.freeze(1, 2, 10, "gift").await.expect_err("the database refuses");
        assert_eq!(refused.code(), Code::Internal);
        assert!(!refused.message().contains("entries"), "what is inside is not for callers: {refused}");
        assert_eq!(client.balance(1).await, (100, 0));
        database.execute(allow).await;
        assert_eq!(database.is_sound().await.transactions, 1);
        client.freeze(1, 2, 10, "gift").await.expect("its biz_id is free");
        database.is_sound().await;
    }

    async fn hundreds_of_calls_at_once_on_one_account_each_count_once(database: Database) {
        let instances = [Instance::start(&database).await, Instance::start(&database).await];
        instances[0].client.add(1, 250, "in").await.expect("it is issued");
        let mut calls = JoinSet::new();
        let start = std::time::Instant::now();
        for n in 0..300 {
            let client = instances[n % 2].client.clone();
            calls.spawn(async move { client.freeze(1, 2, 1, &format!("gift-{n}")).await });
        }
        let (mut done, mut refused) = (0, 0);
        for answer in calls.join_all().await {
            match answer {
                Ok(_) => done += 1,
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                    refused += 1;
                }
            }
        }
        eprintln!("300 calls in {:?}", start.elapsed());
        assert_eq!((done, refused), (250, 50), "as many as there are coins");
        assert_eq!(instances[1].client.balance(1).await, (0, 250));
        database.is_sound().await;
    }
}

#[test]
fn a_database_that_crashes_under_load_costs_repeated_calls_and_no_coin() {
    crate::support::run(true, async |database| {
        let instance = Instance::start(&database).await;
        let other = Instance::start(&database).await;
        instance.client.add(1, 1000, "in").await.expect("it is issued");
        let Database::Postgres(postgres) = &database else { panic!("it was asked for") };
        let mut calls = JoinSet::new();
        for n in 0..300 {
            let client = if n % 2 == 0 { &instance.client } else { &other.client }.clone();
            calls.spawn(async move {
                client.freeze(1, 2, 1, &format!("gift-{n}")).await.expect("there is enough")
            });
        }
        // Some are done, some are on the way.
        while other.client.balance(1).await.1 < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        postgres.crash();
        tokio::time::sleep(Duration::from_millis(200)).await;
        postgres.start_again().await;
        let mut tx_ids = calls.join_all().await;
        tx_ids.sort_unstable();
        tx_ids.dedup();
        assert_eq!(tx_ids.len(), 300);
        assert_eq!(instance.client.balance(1).await, (700, 300));
        assert_eq!(database.is_sound().await.transactions, 301);
    });
}

#[test]
fn connections_that_an_operator_cuts_cost_no_call() {
    crate::support::run(true, async |database| {
        let instance = Instance::start(&database).await;
        instance.client.add(1, 1000, "in").await.expect("it is issued");
        let Database::Postgres(postgres) = &database else { panic!("it was asked for") };
        let mut operator = postgres.connect().await;
        let mut calls = JoinSet::new();
        for n in 0..60 {
            let mut stub = instance.client.stub.clone();
            calls.spawn(async move {
                stub.freeze_user_coin_for_gift(freeze(1, 2, 1, &format!("gift-{n}"))).await
            });
        }
        for _ in 0..3 {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
            operator.execute(cut).await.expect("it answers");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        for answer in calls.join_all().await {
            answer.expect("it is tried again");
        }
        assert_eq!(instance.client.balance(1).await, (940, 60));
        database.is_sound().await;
    });
}

#[tokio::test]
async fn a_database_that_is_away_is_said_and_found_again() {
    let Some(postgres) = Postgres::start().await else { return };
    let database = Database::Postgres(Box::new(postgres));
    let instance = Instance::start(&database).await;
    instance.client.add(1, 10, "in").await.expect("it is issued");
    let Database::Postgres(postgres) = &database else { unreachable!("it is one") };
    postgres.crash();
    let refused = instance.client.stub.clone().freeze_user_coin_for_gift(freeze(1, 2, 1, "gift")).await;
    let refused = refused.expect_err("it is away");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("database"), "{refused}");
    postgres.start_again().await;
    instance.client.freeze(1, 2, 1, "gift").await.expect("there is enough");
    assert_eq!(instance.client.balance(1).await, (9, 1));
}

/// A lock that somebody else holds for good: calls keep their deadlines, and go on once it is free.
#[tokio::test]
async fn a_locked_sqlite_costs_callers_their_deadline_and_no_more() {
    use sqlx::{Connection, SqliteConnection};

    let database = Database::sqlite();
    let instance = Instance::start(&database).await;
    instance.client.add(1, 10, "in").await.expect("it is issued");
    let mut holder = SqliteConnection::connect(&database.address()).await.expect("it is there");
    holder.execute("BEGIN IMMEDIATE").await.expect("it is free");
    let mut request = Request::new(freeze(1, 2, 1, "gift"));
    request.set_timeout(Duration::from_millis(300));
    let late =
        instance.client.stub.clone().freeze_user_coin_for_gift(request).await.expect_err("it is locked");
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late}");
    assert_eq!(instance.client.balance(1).await, (10, 0), "reading waits for no writer");
    holder.execute("ROLLBACK").await.expect("it holds");
    instance.client.freeze(1, 2, 1, "gift").await.expect("there is enough");
    assert_eq!(instance.client.balance(1).await, (9, 1));
    database.is_sound().await;
}
