//! What each call promises.

use svc_proto::balance::v1::{
    AddUserCoinOperation, BatchAddUserCoinRequest, CompleteTransactionRequest, FreezeUserCoinForGiftRequest,
    GetBalanceRequest, ListTransactionsRequest, Outcome, State,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Instance, database_tests, freeze, operation, time};

/// The largest amount and user id.
const MAX: i64 = (1 << 53) - 1;

database_tests! {
    async fn a_confirmed_gift_pays_the_receiver_its_share_and_the_house_the_rest(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, 1000, "in").await.expect("it is issued");
        for (n, (coin, receiver)) in [(100, 70), (1, 0), (3, 2), (10, 7)].into_iter().enumerate() {
            let tx_id = client.freeze(1, 2, coin, &format!("gift-{n}")).await.expect("there is enough");
            let done = client.confirm(&tx_id).await.expect("it is frozen");
            assert_eq!(done.tx_id, tx_id);
            assert_eq!((done.receiver_coin, done.house_coin), (receiver, coin - receiver), "of {coin} coins");
            assert_eq!(done.state(), State::Confirmed);
        }
        assert_eq!(client.balance(1).await, (1000 - 114, 0));
        assert_eq!(client.balance(2).await, (79, 0));
        let figures = database.is_sound().await;
        assert_eq!((figures.house, figures.issued), (114 - 79, 1000));
    }

    async fn frozen_coins_cannot_be_spent_and_a_refund_gives_them_back(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, 100, "in").await.expect("it is issued");
        let tx_id = client.freeze(1, 2, 60, "gift").await.expect("there is enough");
        assert_eq!(client.balance(1).await, (40, 60));

        let refused = client.freeze(1, 2, 41, "too much").await.expect_err("there are 40");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("40") && refused.message().contains("41"), "{refused}");
        assert_eq!(client.balance(1).await, (40, 60), "a refused call leaves nothing behind");

        let done = client.refund(&tx_id).await.expect("it is frozen");
        assert_eq!((done.state(), done.receiver_coin, done.house_coin), (State::Refunded, 0, 0));
        assert_eq!(client.balance(1).await, (100, 0));
        client.freeze(1, 2, 41, "too much").await.expect("what was refused may be tried again");
        database.is_sound().await;
    }

    async fn a_user_of_whom_nothing_is_known_has_nothing(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        assert_eq!(client.balance(7).await, (0, 0));
        assert!(client.transactions(7, 10).await.is_empty());
        let refused = client.freeze(7, 8, 1, "gift").await.expect_err("there is nothing");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(database.is_sound().await.transactions, 0);
    }

    async fn the_same_call_again_gives_the_same_answer_and_changes_nothing(database: Database) {
        let one = Instance::start(&database).await;
        let other = Instance::start(&database).await;
        let issued = one.client.add(1, 100, "in").await.expect("it is issued");
        let request = freeze(1, 2, 10, "gift");
        let frozen = one.client.stub.clone().freeze_user_coin_for_gift(request.clone()).await;
        let frozen = frozen.expect("there is enough").into_inner();
        let confirmed = one.client.confirm(&frozen.tx_id).await.expect("it is frozen");
        let refunded = one.client.freeze(1, 2, 10, "gift 2").await.expect("there is enough");
        let back = one.client.refund(&refunded).await.expect("it is frozen");
        // Not even what would no longer be possible is looked at: 70 coins are left, then none.
        one.client.freeze(1, 2, 90, "all").await.expect("there is enough");

        for instance in [&one, &other] {
            let client = &instance.client;
            assert_eq!(client.add(1, 100, "in").await.expect("as before"), issued);
            let again = client.stub.clone().freeze_user_coin_for_gift(request.clone()).await;
            assert_eq!(again.expect("as before").into_inner(), frozen);
            assert_eq!(client.confirm(&frozen.tx_id).await.expect("as before"), confirmed);
            assert_eq!(client.refund(&refunded).await.expect("as before"), back);
        }
        assert_eq!(one.client.balance(1).await, (0, 90));
        assert_eq!(one.client.balance(2).await, (7, 0));
        database.is_sound().await;
    }

    async fn another_body_under_a_known_biz_id_is_refused(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, 100, "in").await.expect("it is issued");
        let first = freeze(1, 2, 10, "gift");
        client.stub.clone().freeze_user_coin_for_gift(first.clone()).await.expect("there is enough");
        let others = [
            FreezeUserCoinForGiftRequest { from_uid: 3, ..first.clone() },
            FreezeUserCoinForGiftRequest { to_uid: 3, ..first.clone() },
            FreezeUserCoinForGiftRequest { coin: 11, ..first.clone() },
            FreezeUserCoinForGiftRequest { biz_type: 3, ..first.clone() },
            FreezeUserCoinForGiftRequest { scene_id: 10, ..first.clone() },
            // The id is one over all kinds of calls.
            FreezeUserCoinForGiftRequest { biz_id: "in".to_owned(), ..first },
        ];
        for other in others {
            let refused = client.stub.clone().freeze_user_coin_for_gift(other.clone()).await;
            let refused = refused.expect_err("it is another body");
            assert_eq!(refused.code(), Code::AlreadyExists, "{other:?}");
            assert!(refused.message().contains(&other.biz_id), "{refused}");
        }
        for other in [operation(1, 101, "in"), operation(2, 100, "in"), operation(2, 10, "gift")] {
            let refused = client.add_all(vec![other]).await.expect_err("it is another body");
            assert_eq!(refused.code(), Code::AlreadyExists);
        }
        assert_eq!(client.balance(1).await, (90, 10));
        database.is_sound().await;
    }

    async fn a_transaction_ends_once(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        let added = client.add(1, 100, "in").await.expect("it is issued");
        let confirmed = client.freeze(1, 2, 10, "gift 1").await.expect("there is enough");
        client.confirm(&confirmed).await.expect("it is frozen");
        let refunded = client.freeze(1, 2, 10, "gift 2").await.expect("there is enough");
        client.refund(&refunded).await.expect("it is frozen");
        for (tx_id, outcome) in [
            (&confirmed, Outcome::Refund),
            (&refunded, Outcome::Confirm),
            (&added, Outcome::Confirm),
            (&added, Outcome::Refund),
        ] {
            let refused = client.complete(tx_id, outcome).await.expect_err("it has ended");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{outcome:?}");
        }
        for unknown in ["0123456789abcdef0123456789abcdef", "'; DROP TABLE entries; --"] {
            let refused = client.confirm(unknown).await.expect_err("there is none");
            assert_eq!(refused.code(), Code::NotFound, "{unknown}");
        }
        assert_eq!(client.balance(1).await, (90, 0));
        database.is_sound().await;
    }

    async fn a_batch_is_carried_out_whole_or_not_at_all(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(3, MAX, "rich").await.expect("it is issued");
        let full = vec![operation(1, 10, "a"), operation(3, 1, "b"), operation(2, 10, "c")];
        let refused = client.add_all(full).await.expect_err("one is too much");
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("user 3"), "{refused}");
        let known = vec![operation(1, 10, "a"), operation(3, 1, "rich")];
        assert_eq!(client.add_all(known).await.expect_err("another body").code(), Code::AlreadyExists);
        assert_eq!(client.balance(1).await, (0, 0));
        assert_eq!(database.is_sound().await.transactions, 1);

        let tx_ids = client
            .add_all(vec![operation(1, 10, "a"), operation(1, 5, "b"), operation(2, 7, "c")])
            .await
            .expect("it is issued");
        assert_eq!(client.balance(1).await, (15, 0), "twice the same user");
        // What was carried out in another batch counts as done.
        let again =
            vec![operation(2, 7, "c"), operation(2, 1, "d"), operation(1, 10, "a")];
        let again = client.add_all(again).await.expect("it is issued");
        assert_eq!([&again[0], &again[2]], [&tx_ids[2], &tx_ids[0]], "in the order of the request");
        assert_eq!(client.balance(1).await, (15, 0));
        assert_eq!(client.balance(2).await, (8, 0));
        database.is_sound().await;
    }

    async fn a_thousand_operations_are_one_batch(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        let batch: Vec<_> = (1..=1000).map(|n| operation(n % 400 + 1, n, &format!("op-{n}"))).collect();
        let tx_ids = client.add_all(batch.clone()).await.expect("it is issued");
        assert_eq!(client.add_all(batch).await.expect("as before"), tx_ids);
        let figures = database.is_sound().await;
        assert_eq!((figures.issued, figures.transactions, figures.entries), (500_500, 1000, 2000));
    }

    async fn an_account_never_overflows(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, MAX, "in 1").await.expect("it fits");
        client.add(2, MAX - 1, "in 2").await.expect("it fits");
        let refused = client.add(1, 1, "in 3").await.expect_err("it is full");
        assert_eq!(refused.code(), Code::OutOfRange);

        let tx_id = client.freeze(1, 2, 10, "gift").await.expect("there is enough");
        let refused = client.confirm(&tx_id).await.expect_err("the receiver has room for one");
        assert_eq!(refused.code(), Code::OutOfRange);
        assert_eq!(client.balance(1).await, (MAX - 10, 10), "the coins stay frozen");
        // The sender's account is filled again meanwhile: a refund finds room all the same.
        client.add(1, 10, "in 4").await.expect("it fits");
        client.refund(&tx_id).await.expect("a refund is never turned away");
        assert_eq!(client.balance(1).await, (MAX + 10, 0));

        // All coins together are more than one 64-bit integer holds.
        for first in [10, 600] {
            let rich = (first..first + 550).map(|uid| operation(uid, MAX, &format!("rich-{uid}")));
            client.add_all(rich.collect()).await.expect("it fits");
        }
        let figures = database.is_sound().await;
        assert!(figures.issued > i128::from(i64::MAX), "{figures}");
    }

    async fn a_wrong_request_is_refused_with_the_name_of_its_field(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        let good = freeze(1, 2, 10, "gift");
        let long = "x".repeat(129);
        let cases = [
            ("from_uid", FreezeUserCoinForGiftRequest { from_uid: 0, ..good.clone() }),
            ("from_uid", FreezeUserCoinForGiftRequest { from_uid: -1, ..good.clone() }),
            ("from_uid", FreezeUserCoinForGiftRequest { from_uid: MAX + 1, ..good.clone() }),
            ("to_uid", FreezeUserCoinForGiftRequest { to_uid: 0, ..good.clone() }),
            ("to_uid", FreezeUserCoinForGiftRequest { to_uid: i64::MAX, ..good.clone() }),
            ("to_uid", FreezeUserCoinForGiftRequest { to_uid: 1, ..good.clone() }),
            ("coin", FreezeUserCoinForGiftRequest { coin: 0, ..good.clone() }),
            ("coin", FreezeUserCoinForGiftRequest { coin: -10, ..good.clone() }),
            ("coin", FreezeUserCoinForGiftRequest { coin: i64::MIN, ..good.clone() }),
            ("coin", FreezeUserCoinForGiftRequest { coin: MAX + 1, ..good.clone() }),
            ("biz_type", FreezeUserCoinForGiftRequest { biz_type: -1, ..good.clone() }),
            ("biz_id", FreezeUserCoinForGiftRequest { biz_id: String::new(), ..good.clone() }),
            ("biz_id", FreezeUserCoinForGiftRequest { biz_id: long, ..good.clone() }),
            ("biz_id", FreezeUserCoinForGiftRequest { biz_id: "a\u{7}b".to_owned(), ..good.clone() }),
            ("biz_id", FreezeUserCoinForGiftRequest { biz_id: "a\0".to_owned(), ..good.clone() }),
            ("scene_id", FreezeUserCoinForGiftRequest { scene_id: -1, ..good }),
        ];
        let named = |status: tonic::Status, field: &str| {
            assert_eq!(status.code(), Code::InvalidArgument, "{field}");
            assert!(status.message().starts_with(&format!("{field} ")), "{field}: {status}");
            let details = status.get_details_bad_request().expect("they are for programs");
            assert_eq!(details.field_violations[0].field, field);
        };
        for (field, request) in cases {
            let refused = client.stub.clone().freeze_user_coin_for_gift(request).await;
            named(refused.expect_err(field), field);
        }
        let batches = [
            ("operations", vec![]),
            ("operations", (0..1001).map(|n| operation(1, 1, &n.to_string())).collect()),
            ("operations[1].coin", vec![operation(1, 1, "a"), operation(1, 0, "b")]),
            ("operations[0].to_uid", vec![operation(-1, 1, "a")]),
            ("operations[1].biz_id", vec![operation(1, 1, "a"), operation(1, 1, "a")]),
            ("operations[0].scene_id", vec![AddUserCoinOperation { scene_id: -1, ..operation(1, 1, "a") }]),
        ];
        for (field, operations) in batches {
            let refused = client.stub.clone().batch_add_user_coin(BatchAddUserCoinRequest { operations }).await;
            named(refused.expect_err(field), field);
        }
        let complete = |tx_id: &str, outcome: i32| {
            let (mut stub, tx_id) = (client.stub.clone(), tx_id.to_owned());
            async move { stub.complete_transaction(CompleteTransactionRequest { tx_id, outcome }).await }
        };
        named(complete("", 1).await.expect_err("no id"), "tx_id");
        named(complete("a", 0).await.expect_err("no outcome"), "outcome");
        named(complete("a", 7).await.expect_err("an unknown outcome"), "outcome");
        let refused = client.stub.clone().get_balance(GetBalanceRequest { uid: 0 }).await;
        named(refused.expect_err("no user"), "uid");
        let list = |uid, page_size, page_token: &str| {
            let request = ListTransactionsRequest { uid, page_size, page_token: page_token.to_owned() };
            let mut stub = client.stub.clone();
            async move { stub.list_transactions(request).await }
        };
        named(list(-1, 0, "").await.expect_err("no user"), "uid");
        named(list(1, -1, "").await.expect_err("no size"), "page_size");
        named(list(1, 1, "2-1").await.expect_err("another's token"), "page_token");
        assert_eq!(database.is_sound().await.transactions, 0);
    }

    async fn pages_show_every_transaction_once_the_newest_first(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, 1000, "in").await.expect("it is issued");
        for n in 0..12 {
            // Received and sent by turns, and some that are nobody's business.
            let (from, to) = if n % 3 == 0 { (2, 1) } else { (1, 2) };
            client.add(2, 1, &format!("for {n}")).await.expect("it is issued");
            client.freeze(from, to, 1, &format!("gift-{n}")).await.expect("there is enough");
        }
        let mut expected: Vec<String> = (0..12).map(|n| format!("gift-{n}")).rev().collect();
        expected.push("in".to_owned());
        for page_size in [1, 2, 5, 13, 14, 1000] {
            let all = client.transactions(1, page_size).await;
            let ids: Vec<_> = all.iter().map(|transaction| transaction.biz_id.clone()).collect();
            assert_eq!(ids, expected, "in pages of {page_size}");
        }
        let all = client.transactions(1, 100).await;
        let gift = &all[0];
        assert_eq!((gift.from_uid, gift.to_uid, gift.coin, gift.state()), (1, 2, 1, State::Frozen));
        assert_eq!((gift.biz_type, gift.scene_id, gift.receiver_coin, gift.house_coin), (2, 9, 0, 0));
        assert!(time(gift.create_time.as_ref()) < time(gift.expire_time.as_ref()) && gift.complete_time.is_none());
        let issued = &all[12];
        assert_eq!((issued.from_uid, issued.to_uid, issued.coin, issued.state()), (0, 1, 1000, State::Added));
        assert_eq!((issued.receiver_coin, issued.house_coin), (1000, 0));
        assert!(issued.expire_time.is_none() && issued.complete_time.is_some());
    }
}
