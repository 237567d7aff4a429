//! Sagas whose process dies after each of their steps: they are finished or refunded by the same one started again, or
//! by another one.

use svc_proto::gift::v1::{ReceiptState, SendGiftRequest, SendingState};
use tonic::Code;

use crate::support::{
    ADA, Database, FULL, Instance, Ledger, POOR, Program, RICH, database_tests, delivered, rose, states,
};

/// Each point at which a process can be told to die, and a gift on whose way it lies.
const POINTS: [(&str, Way); 12] = [
    ("begun", Way::Received),
    ("frozen", Way::Received),
    ("delivering", Way::Received),
    ("delivered", Way::Received),
    ("paid", Way::Received),
    ("received", Way::Received),
    ("not-frozen", Way::Refused),
    ("refused", Way::Refused),
    ("not-paid", Way::Refunded),
    ("refunding", Way::Refunded),
    ("back", Way::Refunded),
    ("refunded", Way::Refunded),
];

/// How a gift ends.
#[derive(Clone, Copy, Debug)]
enum Way {
    Received,
    Refused,
    Refunded,
}

impl Way {
    fn gift(self, biz_id: &str) -> SendGiftRequest {
        match self {
            Way::Received => rose(RICH, ADA, biz_id),
            Way::Refused => rose(POOR, ADA, biz_id),
            Way::Refunded => rose(RICH, FULL, biz_id),
        }
    }

    fn end(self) -> ReceiptState {
        match self {
            Way::Received => ReceiptState::Received,
            Way::Refused => ReceiptState::Refused,
            Way::Refunded => ReceiptState::Refunded,
        }
    }
}

/// Has a process send a gift and die on its way.
async fn dies(database: &Database, ledger: &Ledger, point: &str, way: Way) -> Program {
    let mut doomed = Program::start(database, ledger.address, Some(point)).await;
    doomed.client.send(way.gift(point)).await.expect_err("nobody answers");
    let status = doomed.process.ended_within(crate::support::LIMIT).await;
    assert!(!status.success(), "it died: {status}");
    doomed
}

/// The same process started again ends what it left behind, and the same call again finds that.
async fn killed_at(database: Database, point: &str) {
    let way = POINTS.into_iter().find(|(name, _)| *name == point).expect("it is a point").1;
    let ledger = Ledger::start().await;
    let mut program = dies(&database, &ledger, point, way).await;
    program.start_again().await;
    let sent = program.client.ended(point).await;
    assert_eq!(states(&sent), [way.end()], "{sent:?}");
    let roses = i64::from(matches!(way, Way::Received));
    ledger.has_paid_for(roses).await;
    assert_eq!(delivered(&database).await.0, roses);
    match program.client.send(way.gift(point)).await {
        Ok(again) => assert_eq!(again, sent),
        Err(status) => {
            assert_eq!((status.code(), way.end()), (Code::FailedPrecondition, ReceiptState::Refused));
        }
    }
    ledger.has_paid_for(roses).await;
    assert_eq!(delivered(&database).await.0, roses);
}

database_tests! {
    async fn killed_once_it_is_written_down(database: Database) {
        killed_at(database, "begun").await;
    }

    async fn killed_when_balance_has_frozen_the_coins(database: Database) {
        killed_at(database, "frozen").await;
    }

    async fn killed_once_that_is_written_down(database: Database) {
        killed_at(database, "delivering").await;
    }

    async fn killed_once_the_gift_is_in_the_inbox(database: Database) {
        killed_at(database, "delivered").await;
    }

    async fn killed_when_balance_has_paid_the_coins_out(database: Database) {
        killed_at(database, "paid").await;
    }

    async fn killed_once_it_is_received(database: Database) {
        killed_at(database, "received").await;
    }

    async fn killed_when_balance_has_refused_to_freeze(database: Database) {
        killed_at(database, "not-frozen").await;
    }

    async fn killed_once_it_is_refused(database: Database) {
        killed_at(database, "refused").await;
    }

    async fn killed_when_balance_has_refused_to_pay_out(database: Database) {
        killed_at(database, "not-paid").await;
    }

    async fn killed_once_a_refund_is_written_down(database: Database) {
        killed_at(database, "refunding").await;
    }

    async fn killed_when_balance_has_given_the_coins_back(database: Database) {
        killed_at(database, "back").await;
    }

    async fn killed_once_it_is_refunded(database: Database) {
        killed_at(database, "refunded").await;
    }

    async fn whatever_one_instance_leaves_behind_another_one_ends(database: Database) {
        let ledger = Ledger::start().await;
        let heir = Instance::start(&database, ledger.address).await;
        let mut roses = 0;
        for (point, way) in POINTS {
            drop(dies(&database, &ledger, point, way).await);
            let sent = heir.client.ended(point).await;
            assert_eq!(states(&sent), [way.end()], "{point}: {sent:?}");
            roses += i64::from(matches!(way, Way::Received));
            ledger.has_paid_for(roses).await;
            assert_eq!(delivered(&database).await.0, roses, "{point}");
        }
    }

    async fn coins_that_went_back_while_nobody_was_there_take_the_gift_back(database: Database) {
        let ledger = Ledger::start().await;
        let mut program = dies(&database, &ledger, "delivered", Way::Received).await;
        assert_eq!(delivered(&database).await, (1, 1));
        assert_eq!(ledger.database.figures().await.frozen, 10);
        ledger.database.execute("UPDATE transactions SET expires_ms = 0 WHERE state = 'frozen'").await;
        while ledger.database.figures().await.frozen > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        program.start_again().await;
        let sent = program.client.ended("delivered").await;
        assert_eq!((sent.state(), states(&sent)), (SendingState::Ended, vec![ReceiptState::Refunded]));
        assert!(sent.receipts[0].reason.contains("Expired"), "{sent:?}");
        ledger.has_paid_for(0).await;
        assert_eq!(delivered(&database).await, (0, 1));
    }
}
