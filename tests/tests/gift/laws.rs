//! What each call promises.

use std::time::Duration;

use svc_proto::gift::v1::{ListGiftsRequest, ReceiptState, SendGiftRequest, SendingState};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    ADA, COINS, FULL, Instance, Ledger, POOR, PRICE, RICH, database_tests, delivered, rose, roses, states,
};

database_tests! {
    async fn a_gift_is_received_once_and_paid_once(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let listed = client.stub.clone().list_gifts(ListGiftsRequest {}).await.expect("it answers").into_inner();
        assert!(listed.gifts.is_sorted_by_key(|gift| gift.coin), "by rising price");

        let sent = client.send(rose(RICH, ADA, "gift")).await.expect("there is enough");
        assert_eq!((sent.state(), states(&sent)), (SendingState::Ended, vec![ReceiptState::Received]));
        assert_eq!((sent.gift_id, sent.from_uid, sent.scene_id, sent.coin), (1, RICH, 9, PRICE));
        assert!(!sent.receipts[0].tx_id.is_empty() && sent.receipts[0].reason.is_empty(), "{sent:?}");
        assert_eq!(client.sending("gift").await.expect("it is known"), sent);
        assert_eq!(ledger.has(ADA).await, (7, 0));
        ledger.has_paid_for(1).await;

        let again = client.send(rose(RICH, ADA, "gift")).await.expect("it is known");
        assert_eq!(again, sent, "the same call again gives the same answer");
        ledger.has_paid_for(1).await;
        assert_eq!(delivered(&database).await, (1, 1));
    }

    async fn many_receivers_each_have_it_in_the_order_of_the_request(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let to: Vec<i64> = (100..200).rev().collect();
        client.send(roses(RICH, to.clone(), "many")).await.expect("there is enough");
        let sent = client.ended("many").await;
        assert_eq!(sent.receipts.iter().map(|receipt| receipt.to_uid).collect::<Vec<_>>(), to);
        assert!(states(&sent).iter().all(|&state| state == ReceiptState::Received), "{sent:?}");
        ledger.has_paid_for(100).await;
        assert_eq!(delivered(&database).await, (100, 100));
        assert_eq!(database.count("SELECT COUNT(DISTINCT tx_id) FROM receipts").await, 100);
    }

    async fn coins_that_do_not_suffice_for_all_suffice_for_some(database: Database) {
        let ledger = Ledger::start().await;
        ledger.add(POOR, 25).await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let sent = client.send(roses(POOR, (100..105).collect(), "some")).await.expect("some is enough");
        let received = states(&sent).into_iter().filter(|&state| state == ReceiptState::Received).count();
        assert_eq!((sent.state(), received), (SendingState::Ended, 2), "{sent:?}");
        for refused in sent.receipts.iter().filter(|receipt| receipt.state() != ReceiptState::Received) {
            assert_eq!(refused.state(), ReceiptState::Refused);
            assert!(refused.reason.contains("coins") && refused.tx_id.is_empty(), "{refused:?}");
        }
        assert_eq!(ledger.has(POOR).await, (5, 0));
        assert_eq!(ledger.database.is_sound().await.frozen, 0);
        assert_eq!(delivered(&database).await, (2, 2));
    }

    async fn without_coins_for_anybody_it_is_a_failed_precondition_and_stays_one(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        for _ in 0..2 {
            let refused = client.send(roses(POOR, vec![ADA, 100], "none")).await.expect_err("there is nothing");
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("0 coins"), "{refused}");
            // Coins that come later are for another sending.
            ledger.add(POOR, 1000).await;
        }
        let sent = client.sending("none").await.expect("it is known");
        assert_eq!(states(&sent), [ReceiptState::Refused, ReceiptState::Refused]);
        assert_eq!(ledger.has(POOR).await, (1000, 0));
        ledger.has_paid_for(0).await;
    }

    async fn another_body_under_a_known_biz_id_is_refused(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let good = roses(RICH, vec![ADA, 100], "gift");
        client.send(good.clone()).await.expect("there is enough");
        for other in [
            SendGiftRequest { gift_id: 2, ..good.clone() },
            SendGiftRequest { from_uid: POOR, ..good.clone() },
            SendGiftRequest { to_uids: vec![ADA], ..good.clone() },
            SendGiftRequest { to_uids: vec![100, ADA], ..good.clone() },
            SendGiftRequest { scene_id: 0, ..good.clone() },
        ] {
            let refused = client.send(other.clone()).await.expect_err("it is another");
            assert_eq!(refused.code(), Code::AlreadyExists, "{other:?}");
            assert!(refused.message().contains("\"gift\""), "{refused}");
        }
        ledger.has_paid_for(2).await;
    }

    async fn the_same_call_at_the_same_time_on_two_instances_sends_once(database: Database) {
        let ledger = Ledger::start().await;
        let instances =
            [Instance::start(&database, ledger.address).await, Instance::start(&database, ledger.address).await];
        let mut calls = JoinSet::new();
        for n in 0..40 {
            let client = instances[n % 2].client.clone();
            let biz_id = format!("gift-{}", n / 8);
            calls.spawn(async move {
                client.send(roses(RICH, vec![ADA, 100], &biz_id)).await.expect("there is enough")
            });
        }
        for sent in calls.join_all().await {
            assert_eq!(states(&sent), [ReceiptState::Received; 2], "each has the whole answer");
        }
        ledger.has_paid_for(10).await;
        assert_eq!(delivered(&database).await, (10, 10));
    }

    async fn what_cannot_be_paid_is_taken_back_and_refunded(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let sent = client.send(roses(RICH, vec![ADA, FULL], "gift")).await.expect("one can be paid");
        assert_eq!(states(&sent), [ReceiptState::Received, ReceiptState::Refunded]);
        assert!(sent.receipts[1].reason.contains("an account holds at most"), "{sent:?}");
        ledger.has_paid_for(1).await;
        assert_eq!(delivered(&database).await, (1, 2));
        // A watch passes over what was taken back: the first that it shows is one that stays.
        client.send(rose(RICH, FULL, "next")).await.expect("it ends");
        database.execute("UPDATE received SET taken_back = 0 WHERE position = 2").await;
        let mut watch = client.watch(FULL, Some(0)).await.expect("it begins");
        assert_eq!(watch.gift().await, (2, "next".to_owned()));
    }

    async fn a_gift_that_cannot_be_delivered_is_refunded(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        // The inbox of one user refuses.
        let forbid = match &database {
            crate::support::Database::Sqlite(_) => {
                "CREATE TRIGGER refuse BEFORE INSERT ON received WHEN NEW.uid = 100 \
                 BEGIN SELECT RAISE (ABORT, 'refused'); END"
            }
            crate::support::Database::Postgres(_) => {
                "ALTER TABLE received ADD CONSTRAINT refuse CHECK (uid <> 100) NOT VALID"
            }
        };
        database.execute(forbid).await;
        let sent = client.send(roses(RICH, vec![100, ADA], "gift")).await.expect("it ends");
        assert_eq!(states(&sent), [ReceiptState::Refunded, ReceiptState::Received]);
        assert!(sent.receipts[0].reason.contains("inbox"), "{sent:?}");
        ledger.has_paid_for(1).await;
        assert_eq!(delivered(&database).await, (1, 1));
    }

    async fn coins_whose_time_is_nearly_over_are_refunded_and_nothing_is_delivered(database: Database) {
        let ledger = Ledger::limited(Duration::ZERO).await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let sent = client.send(rose(RICH, ADA, "gift")).await.expect("it ends");
        assert_eq!(states(&sent), [ReceiptState::Refunded]);
        assert!(sent.receipts[0].reason.contains("time"), "{sent:?}");
        ledger.has_paid_for(0).await;
        assert_eq!(delivered(&database).await, (0, 0));
    }
}

#[test]
fn what_is_wrong_or_unknown_is_said_by_its_name() {
    crate::support::run(false, async |database| {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let wrong = SendGiftRequest { scene_id: -1, ..roses(0, vec![ADA, ADA], "") };
        let refused = client.send(wrong).await.expect_err("it is wrong");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_details_bad_request().expect("they are there");
        let named: Vec<&str> = details.field_violations.iter().map(|wrong| wrong.field.as_str()).collect();
        assert_eq!(named, ["from_uid", "to_uids[1]", "biz_id", "scene_id"]);
        let unknown = client.send(SendGiftRequest { gift_id: 99, ..rose(RICH, ADA, "gift") }).await;
        assert_eq!(unknown.expect_err("there is none").code(), Code::NotFound);
        assert_eq!(client.sending("gift").await.expect_err("there is none").code(), Code::NotFound);
        assert_eq!(client.sending("").await.expect_err("it is wrong").code(), Code::InvalidArgument);
        assert_eq!(client.watch(0, None).await.expect_err("it is wrong").code(), Code::InvalidArgument);
        assert_eq!(ledger.has(RICH).await, (COINS, 0));
    });
}
