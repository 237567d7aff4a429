//! Frozen coins that nobody completes go back, once, whoever sweeps.

use std::time::Duration;

use svc_proto::balance::v1::State;
use tonic::Code;

use crate::support::{Client, Instance, database_tests, limited, terms, time};

/// Short for a limit, and long beside what a test does before it.
const LIMIT: Duration = Duration::from_millis(500);
const SWEEP: Duration = Duration::from_millis(20);

/// Waits until nothing is frozen any more.
async fn thawed(client: &Client, uid: i64) {
    while client.balance(uid).await.1 > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

database_tests! {
    async fn what_nobody_completes_goes_back_once_though_two_instances_sweep(database: Database) {
        let one = Instance::start_with(&database, limited(LIMIT), SWEEP).await;
        let _other = Instance::start_with(&database, limited(LIMIT), SWEEP).await;
        let client = &one.client;
        client.add(1, 1000, "in").await.expect("it is issued");
        let mut frozen = Vec::new();
        for n in 0..120 {
            frozen.push(client.freeze(1, 2, 1, &format!("gift-{n}")).await.expect("there is enough"));
        }
        thawed(client, 1).await;
        assert_eq!(client.balance(1).await, (1000, 0));
        let shown = client.transactions(1, 1000).await;
        for transaction in shown.iter().filter(|transaction| transaction.from_uid == 1) {
            assert_eq!(transaction.state(), State::Expired);
            let (expires, completed) = (transaction.expire_time.as_ref(), transaction.complete_time.as_ref());
            assert!(time(completed) >= time(expires), "never before its time");
        }
        let tx_id = &frozen[0];
        let refused = client.confirm(tx_id).await.expect_err("the coins are back");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(client.refund(tx_id).await.expect("the coins are back").state(), State::Expired);
        let again = client.freeze(1, 2, 1, "gift-0").await.expect("as before");
        assert_eq!(again, *tx_id);
        assert_eq!(client.balance(1).await, (1000, 0));
        let figures = database.is_sound().await;
        assert_eq!((figures.frozen, figures.house), (0, 0));
    }

    async fn a_confirm_and_the_sweeper_end_a_transaction_only_once(database: Database) {
        let one = Instance::start_with(&database, limited(Duration::from_millis(1)), SWEEP).await;
        let other = Instance::start_with(&database, limited(Duration::from_millis(1)), SWEEP).await;
        one.client.add(1, 1000, "in").await.expect("it is issued");
        let (mut confirmed, mut expired) = (0, 0);
        for n in 0..60 {
            let tx_id = one.client.freeze(1, 2, 10, &format!("gift-{n}")).await.expect("there is enough");
            tokio::time::sleep(Duration::from_millis(n % 20)).await;
            match other.client.confirm(&tx_id).await {
                Ok(_) => confirmed += 1,
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition);
                    expired += 1;
                }
            }
        }
        eprintln!("{confirmed} confirmed, {expired} expired");
        thawed(&one.client, 1).await;
        assert_eq!(one.client.balance(1).await, (1000 - 10 * confirmed, 0));
        assert_eq!(one.client.balance(2).await, (7 * confirmed, 0));
        assert_eq!(database.is_sound().await.house, i128::from(3 * confirmed));
    }

    async fn the_limit_of_the_instance_that_froze_counts(database: Database) {
        let long = Instance::start_with(&database, terms(), SWEEP).await;
        let short = Instance::start_with(&database, limited(Duration::ZERO), SWEEP).await;
        long.client.add(1, 100, "in").await.expect("it is issued");
        let stays = long.client.freeze(1, 2, 10, "long").await.expect("there is enough");
        short.client.freeze(1, 2, 20, "short").await.expect("there is enough");
        while long.client.balance(1).await != (90, 10) {
            tokio::time::sleep(SWEEP).await;
        }
        long.client.confirm(&stays).await.expect("it has not expired");
        database.is_sound().await;
    }
}
