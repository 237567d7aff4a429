//! `WatchGifts`: in order, across instances, and on from where it was.

use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{ADA, Instance, Ledger, RICH, database_tests, rose, roses};

database_tests! {
    async fn a_watch_shows_what_is_delivered_whichever_instance_delivers(database: Database) {
        let ledger = Ledger::start().await;
        let one = Instance::start(&database, ledger.address).await;
        let other = Instance::start(&database, ledger.address).await;
        one.client.send(rose(RICH, ADA, "before")).await.expect("there is enough");
        let mut here = one.client.watch(ADA, None).await.expect("it begins");
        let mut there = other.client.watch(ADA, None).await.expect("it begins");
        let mut whole = other.client.watch(ADA, Some(0)).await.expect("it begins");
        one.client.send(roses(RICH, vec![100, ADA], "first")).await.expect("there is enough");
        other.client.send(rose(RICH, ADA, "second")).await.expect("there is enough");
        assert_eq!(whole.gift().await, (1, "before".to_owned()));
        for watch in [&mut here, &mut there, &mut whole] {
            let first = watch.next().await.expect("it goes on");
            assert_eq!((first.position, first.biz_id.as_str()), (2, "first"), "from now on");
            let gift = first.gift.expect("it is said");
            assert_eq!((gift.name.as_str(), gift.coin, first.from_uid, first.scene_id), ("Rose", 10, RICH, 9));
            assert!(first.deliver_time.is_some());
            assert_eq!(watch.gift().await, (3, "second".to_owned()));
        }
        let mut behind = one.client.watch(ADA, Some(2)).await.expect("it begins");
        assert_eq!(behind.gift().await, (3, "second".to_owned()), "a watch that broke goes on where it was");
        let ahead = one.client.watch(ADA, Some(4)).await.expect_err("nothing is there yet");
        assert_eq!(ahead.code(), Code::OutOfRange);
        assert!(ahead.message().contains("after") && ahead.message().contains('3'), "{ahead}");
    }

    async fn no_gift_is_passed_over_while_two_instances_deliver_at_once(database: Database) {
        let ledger = Ledger::start().await;
        let one = Instance::start(&database, ledger.address).await;
        let other = Instance::start(&database, ledger.address).await;
        let mut watches = [
            one.client.watch(ADA, None).await.expect("it begins"),
            other.client.watch(ADA, Some(0)).await.expect("it begins"),
        ];
        let mut sending = JoinSet::new();
        for n in 0..60 {
            let client = if n % 2 == 0 { &one.client } else { &other.client }.clone();
            sending.spawn(async move {
                client.send(rose(RICH, ADA, &format!("gift-{n}"))).await.expect("there is enough")
            });
        }
        for watch in &mut watches {
            let mut seen = Vec::new();
            for position in 1..=60 {
                let (at, biz_id) = watch.gift().await;
                assert_eq!(at, position, "in order, and none is missing");
                seen.push(biz_id);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 60, "none twice");
        }
        sending.join_all().await;
        ledger.has_paid_for(60).await;
    }
}

#[test]
fn a_stop_ends_watches_with_what_to_do() {
    crate::support::run(false, async |database| {
        let ledger = Ledger::start().await;
        let stops = Instance::start(&database, ledger.address).await;
        let other = Instance::start(&database, ledger.address).await;
        stops.client.send(rose(RICH, ADA, "gift")).await.expect("there is enough");
        let mut watch = stops.client.watch(ADA, Some(0)).await.expect("it begins");
        assert_eq!(watch.gift().await, (1, "gift".to_owned()));
        stops.stopping.cancel();
        let ended = watch.next().await.expect_err("it stops");
        assert_eq!(ended.code(), Code::Unavailable);
        assert!(ended.message().contains("behind position 1"), "{ended}");
        let mut on = other.client.watch(ADA, Some(1)).await.expect("it begins");
        other.client.send(rose(RICH, ADA, "next")).await.expect("there is enough");
        assert_eq!(on.gift().await, (2, "next".to_owned()));
    });
}
