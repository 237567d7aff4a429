//! Databases that are new, old, taken, or away when an instance starts.

use std::time::Duration;

use demo_services::balance::{DatabaseUrl, Store};
use svc_tests::postgres::Postgres;

use crate::support::{Database, Instance, database_tests};

database_tests! {
    async fn instances_that_start_together_on_a_new_database_all_start(database: Database) {
        let url = database.url();
        let starting: Vec<_> = (0..6)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { Store::open(&url).await })
            })
            .collect();
        for started in starting {
            started.await.expect("no panic").expect("it starts");
        }
        assert_eq!(database.is_sound().await.transactions, 0);
    }

    async fn a_restart_finds_what_was_there(database: Database) {
        let first = Instance::start(&database).await;
        first.client.add(1, 10, "in").await.expect("it is issued");
        first.store.close().await;
        drop(first);
        let second = Instance::start(&database).await;
        assert_eq!(second.client.balance(1).await, (10, 0));
    }

    async fn a_database_of_a_newer_version_is_refused(database: Database) {
        drop(Instance::start(&database).await);
        database
            .execute(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'later', TRUE, 'x', 0)",
            )
            .await;
        let refused = Store::open(&database.url()).await.expect_err("it is not ours").to_string();
        assert!(refused.contains("999"), "{refused}");
    }

    async fn a_check_makes_no_ledger_where_there_is_none(database: Database) {
        let refused = Store::open_existing(&database.url()).await.expect_err("there is none").to_string();
        assert!(refused.contains("--database"), "{refused}");
        if let Database::Sqlite(folder) = &database {
            assert!(!folder.path().join("test.db").exists());
        }
    }
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_waited_for() {
    let Some(postgres) = Postgres::start().await else { return };
    postgres.crash();
    let url: DatabaseUrl = postgres.url().parse().expect("an address");
    let mut opening = tokio::spawn(async move { Store::open(&url).await.map(drop) });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut opening).await;
    assert!(early.is_err(), "it waits: {early:?}");
    postgres.start_again().await;
    opening.await.expect("no panic").expect("it opens");
}

#[test]
fn an_address_is_checked_and_never_shows_its_password() {
    let parse = |url: &str| url.parse::<DatabaseUrl>();
    for wrong in
        ["", "balance.db", "mysql://host/db", "sqlite://", "sqlite://:memory:", "sqlite://a?mode=memory"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    for (url, shown) in [
        ("sqlite://balance.db", "sqlite://balance.db"),
        ("postgres://ada:s3cret@db:5432/balance?sslmode=require", "postgres://db:5432/balance"),
        ("postgresql://ada:s3@cret@db/balance", "postgresql://db/balance"),
        ("postgres://db/balance?password=s3cret", "postgres://db/balance"),
    ] {
        let url = parse(url).expect("an address");
        assert_eq!(url.to_string(), shown);
        assert!(!format!("{url:?}").contains("s3"), "{url:?}");
    }
}
