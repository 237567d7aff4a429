//! A balance and a database that go away, callers that hang up, and instances that stop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use demo_services::gift::{Point, Probe, Terms};
use svc_proto::gift::v1::{ReceiptState, Sending, SendingState};
use svc_tests::ports::free_port;
use svc_tests::postgres::Postgres;
use tokio::net::TcpListener;
use tonic::Code;

use crate::support::{
    ADA, Client, Database, Instance, LIMIT, Ledger, RICH, database_tests, delivered, rose, roses,
    serve_balance, soon, states,
};

/// Sends what does not end, and has its answer in time nevertheless; a busy machine has more time.
async fn unended(client: &Client, biz_id: &str) -> Sending {
    for seconds in [1, 4, 16] {
        if let Ok(sent) = client.send_within(rose(RICH, ADA, biz_id), Duration::from_secs(seconds)).await {
            return sent;
        }
    }
    panic!("the answer comes before the deadline");
}

database_tests! {
    async fn a_sending_waits_for_a_balance_that_is_away(database: Database) {
        let ledger = Ledger::start().await;
        let away = ([127, 0, 0, 1], free_port()).into();
        let Instance { client, .. } = &Instance::start(&database, away).await;
        let sent = unended(client, "gift").await;
        assert_eq!((sent.state(), states(&sent)), (SendingState::Sending, vec![ReceiptState::Freezing]));

        let listener = TcpListener::bind(away).await.expect("the port is free");
        let _balance = serve_balance(&ledger.database, listener, Duration::from_secs(600)).await;
        let ended = client.ended("gift").await;
        assert_eq!(states(&ended), [ReceiptState::Received]);
        ledger.has_paid_for(1).await;
    }

    async fn a_caller_that_hangs_up_has_its_gift_sent(database: Database) {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.send(roses(RICH, (100..150).collect(), "gift")).await }
        });
        while client.sending("gift").await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        call.abort();
        assert_eq!(states(&client.ended("gift").await), [ReceiptState::Received; 50]);
        ledger.has_paid_for(50).await;
    }

    async fn an_instance_that_stops_leaves_what_it_cannot_end_to_another_at_once(database: Database) {
        let ledger = Ledger::start().await;
        let away = ([127, 0, 0, 1], free_port()).into();
        // A claim that would outlast the test.
        let long = || Terms { claim: Duration::from_secs(3600), ..soon() };
        let stops = Instance::start_with(&database, away, long()).await;
        assert_eq!(unended(&stops.client, "gift").await.state(), SendingState::Sending);
        let other = Instance::start_with(&database, ledger.address, long()).await;
        stops.courier.close(Duration::from_millis(100)).await;
        assert_eq!(states(&other.client.ended("gift").await), [ReceiptState::Received]);
        let refused = stops.client.send(rose(RICH, ADA, "late")).await.expect_err("it stops");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        ledger.has_paid_for(1).await;
    }

    async fn one_that_wakes_after_it_was_taken_over_does_nothing_twice(database: Database) {
        let ledger = Ledger::start().await;
        let other = Instance::start(&database, ledger.address).await;
        let points = [Point::Begun, Point::Frozen, Point::Delivering, Point::Delivered, Point::Paid];
        for (n, point) in (1i64..).zip(points) {
            let (wake, woken) = std::sync::mpsc::channel::<()>();
            let woken = Mutex::new(woken);
            let probe = Probe::new(move |reached| {
                if reached == point {
                    // Until the sender is gone.
                    let asleep = || woken.lock().unwrap().recv().is_err();
                    tokio::task::block_in_place(asleep);
                }
            });
            let sleeper = Instance::start_with(&database, ledger.address, Terms { probe, ..soon() }).await;
            let sleeper = sleeper.without_sweeper();
            let biz_id = format!("{point:?}");
            let call = tokio::spawn({
                let (client, biz_id) = (sleeper.client.clone(), biz_id.clone());
                async move { client.send(rose(RICH, ADA, &biz_id)).await }
            });
            while other.client.sending(&biz_id).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let ended = other.client.ended(&biz_id).await;
            assert_eq!(states(&ended), [ReceiptState::Received], "{point:?}");
            drop(wake);
            assert_eq!(call.await.expect("no panic").expect("it has ended"), ended, "{point:?}");
            sleeper.courier.close(LIMIT).await;
            ledger.has_paid_for(n).await;
            assert_eq!(delivered(&database).await, (n, n), "{point:?}");
        }
    }
}

#[test]
fn a_database_that_crashes_under_load_costs_repeated_calls_and_no_coin() {
    crate::support::run(true, async |database| {
        let ledger = Ledger::start().await;
        let Instance { client, .. } = &Instance::start(&database, ledger.address).await;
        let Database::Postgres(postgres) = &database else { panic!("it was asked for") };
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..100 {
            let client = client.clone();
            calls.spawn(async move {
                loop {
                    match client.send(rose(RICH, ADA, &format!("gift-{n}"))).await {
                        Ok(_) => return,
                        // "Repeat the call, whether or not it was carried out."
                        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        while ledger.database.figures().await.house < 30 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        postgres.crash();
        tokio::time::sleep(Duration::from_millis(200)).await;
        postgres.start_again().await;
        calls.join_all().await;
        for n in 0..100 {
            assert_eq!(states(&client.ended(&format!("gift-{n}")).await), [ReceiptState::Received]);
        }
        ledger.has_paid_for(100).await;
        assert_eq!(delivered(&database).await, (100, 100));
    });
}

#[test]
fn every_point_on_the_way_is_told_to_the_probe_in_order() {
    crate::support::run(false, async |database| {
        let ledger = Ledger::start().await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let probe = Probe::new({
            let told = told.clone();
            move |point| told.lock().unwrap().push(format!("{point:?}"))
        });
        let Instance { client, .. } =
            &Instance::start_with(&database, ledger.address, Terms { probe, ..Terms::default() }).await;
        client.send(rose(RICH, ADA, "gift")).await.expect("there is enough");
        let told = told.lock().unwrap().clone();
        assert_eq!(told, ["Begun", "Frozen", "Delivering", "Delivered", "Paid", "Received"]);
    });
}

#[tokio::test]
async fn a_database_that_is_balances_is_refused() {
    let Some(postgres) = Postgres::start().await else { return };
    let url = postgres.url().parse().expect("an address");
    demo_services::balance::Store::open(&url).await.expect("it opens").close().await;
    let refused = demo_services::gift::Store::open(&url).await.expect_err("it is another's").to_string();
    assert!(refused.contains("--database") && refused.contains("another service's"), "{refused}");
}
