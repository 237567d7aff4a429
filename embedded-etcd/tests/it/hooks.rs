//! Each fault does what it says, and its end ends it.

use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use etcd_client::{Client, ConnectOptions, GetOptions, WatchOptions};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::{exists, heard, next, put_leased, refusal, silent, strict_client, watch};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn frozen_nothing_answers_and_no_lease_ends_until_it_thaws() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    put_leased(&mut client, "k", 10).await;
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    etcd.hooks().freeze();
    timeout(HOUR, client.get("k", None)).await.expect_err("an answer while frozen");
    silent(&mut stream).await;
    assert_eq!(etcd.hooks().lease_count(), 1, "time stands still for leases");
    etcd.hooks().thaw();
    assert_eq!(heard(&mut stream).await, [""], "the lease was overdue");
    assert!(!exists(&mut client, "k").await);
}

#[tokio::test(start_paused = true)]
async fn dropped_streams_end_with_an_error_and_calls_go_on() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let lease = put_leased(&mut client, "k", 60).await;
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    let (_keeper, mut renewals) = client.lease_keep_alive(lease).await.unwrap();
    etcd.hooks().drop_streams();
    assert_eq!(refusal(stream.message().await).0, Code::Unavailable);
    assert_eq!(refusal(renewals.message().await).0, Code::Unavailable);
    assert!(exists(&mut client, "k").await);
    assert_eq!(etcd.hooks().watch_count(), 0);
    let mut again = watch(&mut client, "k", WatchOptions::new()).await;
    client.put("k", "w", None).await.unwrap();
    assert_eq!(heard(&mut again).await, ["w"]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_up_calls_and_what_watches_are_told() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    let delay = Duration::from_secs(2);
    etcd.hooks().delay(delay);
    let begun = Instant::now();
    client.put("k", "v", None).await.unwrap();
    assert!(begun.elapsed() >= delay);
    assert_eq!(heard(&mut stream).await, ["v"]);
    assert!(begun.elapsed() >= 2 * delay);
    etcd.hooks().delay(Duration::ZERO);
    let begun = Instant::now();
    client.put("k", "w", None).await.unwrap();
    assert!(begun.elapsed() < delay);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_strict_calls_fail_and_others_wait_and_leases_live() {
    let etcd = EmbeddedEtcd::start().await;
    let (mut strict, mut patient) = (strict_client(&etcd).await, etcd.client().await.unwrap());
    let lease = put_leased(&mut strict, "k", 10).await;
    let term = strict.get("k", None).await.unwrap().header().unwrap().raft_term();
    let mut strict_stream = watch(&mut strict, "k", WatchOptions::new()).await;
    let mut patient_stream = watch(&mut patient, "k", WatchOptions::new()).await;
    etcd.hooks().lose_leader();
    let no_leader = (Code::Unavailable, "etcdserver: no leader".to_owned());
    assert_eq!(refusal(strict.put("k", "w", None).await), no_leader);
    assert_eq!(refusal(strict_stream.message().await), no_leader);
    assert_eq!(refusal(strict.watch("k", None).await), no_leader);
    assert_eq!(refusal(strict.lease_keep_alive(lease).await), no_leader);

    let begun = Instant::now();
    let timed_out = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!(refusal(patient.put("k", "w", None).await), timed_out);
    assert!(begun.elapsed() >= Duration::from_secs(7));
    let local = patient.get("k", Some(GetOptions::new().with_serializable())).await.unwrap();
    assert_eq!(local.count(), 1, "serializable reads go on");
    silent(&mut patient_stream).await;
    assert_eq!(etcd.hooks().lease_count(), 1, "nobody ends leases");

    etcd.hooks().elect_leader();
    let answer = strict.lease_time_to_live(lease, None).await.unwrap();
    assert!(answer.ttl() >= 9, "its full TTL again, not {}", answer.ttl());
    assert_eq!(answer.header().unwrap().raft_term(), term + 1);
    strict.put("k", "w", None).await.unwrap();
    assert_eq!(heard(&mut patient_stream).await, ["w"]);
}

#[tokio::test(start_paused = true)]
async fn compact_now_cancels_watches_of_the_past() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    for value in ["1", "2"] {
        client.put("k", value, None).await.unwrap();
    }
    assert_eq!(etcd.hooks().compact_now(), 3);
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_start_revision(2)).await;
    let end = next(&mut stream).await;
    assert_eq!((end.canceled(), end.compact_revision()), (true, 3));
    assert_eq!(etcd.hooks().compact_now(), 3, "again is no error");
}

#[tokio::test(start_paused = true)]
async fn leases_are_held_and_ended_at_will() {
    let etcd = EmbeddedEtcd::start().await;
    let hooks = etcd.hooks();
    let mut client = etcd.client().await.unwrap();
    put_leased(&mut client, "held", 10).await;
    hooks.freeze_leases();
    tokio::time::sleep(HOUR).await;
    assert!(exists(&mut client, "held").await);
    hooks.unfreeze_leases();
    assert!(!exists(&mut client, "held").await, "it was overdue");

    let one = put_leased(&mut client, "one", 60).await;
    put_leased(&mut client, "other", 60).await;
    hooks.expire_lease(one);
    assert!(!exists(&mut client, "one").await && exists(&mut client, "other").await);
    hooks.expire_leases();
    assert!(!exists(&mut client, "other").await);
    assert_eq!(hooks.lease_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_event_is_read_but_never_told() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new().with_prefix()).await;
    etcd.hooks().lose_events("k/", 1);
    for (key, value) in [("k", "told"), ("k/1", "lost"), ("k/1", "told too")] {
        client.put(key, value, None).await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(heard(&mut stream).await);
    }
    assert_eq!(told, ["told", "told too"]);
    let mut past = watch(&mut client, "k/1", WatchOptions::new().with_start_revision(1)).await;
    assert_eq!(heard(&mut past).await, ["told too"]);
    assert_eq!(client.get("k/1", None).await.unwrap().kvs()[0].version(), 2);
}

#[tokio::test(start_paused = true)]
async fn replayed_events_come_again_with_their_old_revisions() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let mut stream = watch(&mut client, "k", WatchOptions::new()).await;
    client.put("k", "1", None).await.unwrap();
    assert_eq!(heard(&mut stream).await, ["1"]);
    client.put("k", "2", None).await.unwrap();
    assert_eq!(heard(&mut stream).await, ["2"]);
    etcd.hooks().replay_events(2);
    let again = next(&mut stream).await;
    let revisions: Vec<i64> = again.events().iter().map(|event| event.kv().unwrap().mod_revision()).collect();
    assert_eq!(revisions, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn refused_watches_are_as_many_as_told() {
    let etcd = EmbeddedEtcd::start().await;
    let mut client = etcd.client().await.unwrap();
    let mut stream = watch(&mut client, "a", WatchOptions::new()).await;
    etcd.hooks().refuse_watches(1, "etcdserver: permission denied");
    stream.watch("b", None).await.unwrap();
    let refused = next(&mut stream).await;
    assert!(refused.created() && refused.canceled());
    assert_eq!((refused.watch_id(), refused.cancel_reason()), (-1, "etcdserver: permission denied"));
    stream.watch("b", None).await.unwrap();
    let accepted = next(&mut stream).await;
    assert!(accepted.created() && !accepted.canceled());
    assert_eq!(etcd.hooks().watch_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn stale_tokens_are_told_in_each_of_etcds_ways() {
    let etcd = EmbeddedEtcd::start().await;
    let mut anyone = etcd.client().await.unwrap();
    anyone.user_add("root", "secret", None).await.unwrap();
    anyone.user_grant_role("root", "root").await.unwrap();
    anyone.auth_enable().await.unwrap();
    let login = async || {
        let options = ConnectOptions::new().with_user("root", "secret");
        let channel = etcd_client::Channel::Tonic(etcd.channel());
        Client::from_channel(channel, Some(options)).await.unwrap()
    };

    let mut root = login().await;
    etcd.hooks().outdate_tokens(2);
    for _ in 0..2 {
        let old = "etcdserver: revision of auth store is old".to_owned();
        assert_eq!(refusal(root.get("k", None).await), (Code::InvalidArgument, old));
    }
    root.get("k", None).await.expect("the token is as good as before");

    etcd.hooks().expire_tokens();
    let invalid = (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned());
    assert_eq!(refusal(root.put("k", "v", None).await), invalid);

    let mut root = login().await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    root.get("k", None).await.expect("five minutes after its last use");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(refusal(root.get("k", None).await), invalid);
}
