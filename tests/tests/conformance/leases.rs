//! Leases: granting, keeping, asking, revoking, running out, and what happens to keys.

use std::time::{Duration, Instant};

use etcd_client::{
    Client, Error, EventType, GetOptions, LeaseGrantOptions, LeaseKeeper, LeaseTimeToLiveOptions, PutOptions,
    WatchOptions,
};
use svc_tests::etcd::TestEtcd;
use tonic::Code;

use crate::support::{LIMIT, events, keys, next, put, refusal, refused, told};

async fn grant(client: &mut Client, ttl: i64) -> i64 {
    client.lease_grant(ttl, None).await.unwrap().id()
}

async fn put_on(client: &mut Client, key: &str, lease: i64) -> i64 {
    let answer = client.put(key, "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    answer.header().unwrap().revision()
}

fn not_found() -> (Code, String) {
    refused(Code::NotFound, "etcdserver: requested lease not found")
}

laws! {
    async fn a_lease_is_granted_with_its_id_and_a_ttl_within_bounds(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let chosen = client.lease_grant(60, None).await.unwrap();
        assert!(chosen.id() > 0, "etcd chooses an id");
        assert_eq!(chosen.ttl(), 60);
        assert_eq!(chosen.header().unwrap().revision(), 1, "a lease is no revision");
        let given = client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(4711))).await.unwrap();
        assert_eq!(given.id(), 4711);
        let again = client.lease_grant(60, Some(LeaseGrantOptions::new().with_id(4711))).await;
        assert_eq!(refusal(again), refused(Code::FailedPrecondition, "etcdserver: lease already exists"));
        for wish in [0, -5] {
            let raised = client.lease_grant(wish, None).await.unwrap();
            assert_eq!(raised.ttl(), TestEtcd::MIN_TTL, "{wish} s is raised to the least");
        }
        let too_large = client.lease_grant(9_000_000_001, None).await;
        assert_eq!(refusal(too_large), refused(Code::OutOfRange, "etcdserver: too large lease TTL"));
    }

    async fn a_lease_tells_its_ttl_and_keys_and_an_unknown_one_minus_one(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = grant(&mut client, 60).await;
        put_on(&mut client, "k/1", lease).await;
        put_on(&mut client, "k/2", lease).await;
        let short = client.lease_time_to_live(lease, None).await.unwrap();
        assert_eq!((short.granted_ttl(), short.keys().len()), (60, 0), "keys are not asked for");
        assert!((1..=60).contains(&short.ttl()), "{}", short.ttl());
        let long = client.lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await.unwrap();
        let mut held = long.keys().to_vec();
        held.sort();
        assert_eq!(held, [b"k/1".to_vec(), b"k/2".to_vec()]);
        let unknown = client.lease_time_to_live(4711, None).await.unwrap();
        assert_eq!((unknown.id(), unknown.ttl(), unknown.granted_ttl()), (4711, -1, 0));
    }

    async fn leases_are_listed_until_they_are_revoked(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let (first, second) = (grant(&mut client, 60).await, grant(&mut client, 50).await);
        let listed: Vec<i64> = client.leases().await.unwrap().leases().iter().map(|lease| lease.id()).collect();
        assert_eq!(listed, [second, first], "the one that runs out first in front");
        client.lease_revoke(first).await.unwrap();
        let listed: Vec<i64> = client.leases().await.unwrap().leases().iter().map(|lease| lease.id()).collect();
        assert_eq!(listed, [second]);
        assert_eq!(refusal(client.lease_revoke(first).await), not_found(), "gone");
    }

    async fn one_stream_keeps_many_leases_and_an_unknown_one_is_ttl_zero(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let (first, second) = (grant(&mut client, 60).await, grant(&mut client, 50).await);
        let (keeper, mut answers) = client.lease_keep_alive(first).await.unwrap();
        for (id, ttl) in [(second, 50), (4711, 0), (first, 60)] {
            LeaseKeeper { id, sender: keeper.sender.clone() }.keep_alive().await.unwrap();
            let answer = tokio::time::timeout(LIMIT, answers.message()).await.unwrap().unwrap().unwrap();
            assert_eq!((answer.id(), answer.ttl()), (id, ttl), "the stream goes on");
        }
        let unknown = client.lease_keep_alive(4711).await;
        assert!(matches!(unknown, Err(Error::LeaseKeepAliveError(_))), "{unknown:?}");
    }

    async fn a_revoked_lease_takes_its_keys_along_in_one_revision(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = grant(&mut client, 60).await;
        put(&mut client, "k/0", "stays").await;
        put_on(&mut client, "k/2", lease).await;
        let last = put_on(&mut client, "k/1", lease).await;
        let mut stream = client.watch("k/", Some(WatchOptions::new().with_prefix())).await.unwrap();
        next(&mut stream).await;
        let revoked = client.lease_revoke(lease).await.unwrap();
        assert_eq!(revoked.header().unwrap().revision(), last + 1);
        let gone = next(&mut stream).await;
        assert_eq!(told(gone.events()), ["DELETE k/1", "DELETE k/2"]);
        assert!(gone.events().iter().all(|event| event.kv().unwrap().mod_revision() == last + 1));
        let left = client.get("k/", Some(GetOptions::new().with_prefix())).await.unwrap();
        assert_eq!(keys(left.kvs()), ["k/0"]);
    }

    async fn a_lease_that_runs_out_deletes_its_keys_and_a_kept_one_does_not(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let granted = Instant::now();
        let (kept, lost) = (grant(&mut client, 1).await, grant(&mut client, 1).await);
        let (mut keeper, mut answers) = client.lease_keep_alive(kept).await.unwrap();
        put_on(&mut client, "kept", kept).await;
        let put = put_on(&mut client, "lost", lost).await;
        let options = WatchOptions::new().with_start_revision(put + 1).with_prev_key();
        let mut stream = client.watch("lost", Some(options)).await.unwrap();
        next(&mut stream).await;
        let gone = {
            let mut told = std::pin::pin!(events(&mut stream, 1));
            let mut renew = tokio::time::interval(Duration::from_millis(200));
            loop {
                tokio::select! {
                    gone = &mut told => break gone,
                    _ = renew.tick() => {
                        keeper.keep_alive().await.unwrap();
                        assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 1);
                    }
                }
            }
        };
        println!("gone after {:?}", granted.elapsed());
        assert!(granted.elapsed() >= Duration::from_secs(1), "not before its time");
        assert_eq!(gone[0].event_type(), EventType::Delete);
        assert_eq!(gone[0].kv().unwrap().value(), b"", "a deletion has no value");
        assert_eq!(gone[0].prev_kv().unwrap().lease(), lost);
        assert_eq!(client.get("kept", None).await.unwrap().count(), 1);
        assert_eq!(client.lease_time_to_live(lost, None).await.unwrap().ttl(), -1);
        let late = client.put("lost", "v", Some(PutOptions::new().with_lease(lost))).await;
        assert_eq!(refusal(late), not_found());
    }

    async fn a_key_that_moved_to_another_lease_outlives_the_first(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let (old, new) = (grant(&mut client, 60).await, grant(&mut client, 60).await);
        put_on(&mut client, "moved", old).await;
        put_on(&mut client, "moved", new).await;
        put_on(&mut client, "freed", old).await;
        put(&mut client, "freed", "by a plain put").await;
        client.lease_revoke(old).await.unwrap();
        assert_eq!(client.get("moved", None).await.unwrap().kvs()[0].lease(), new);
        assert_eq!(client.get("freed", None).await.unwrap().kvs()[0].lease(), 0);
        client.lease_revoke(new).await.unwrap();
        assert_eq!(client.get("moved", None).await.unwrap().count(), 0);
    }

    async fn a_restart_gives_every_lease_its_full_ttl(etcd: TestEtcd) {
        let mut client = etcd.client().await;
        let lease = grant(&mut client, 3).await;
        let put = put_on(&mut client, "k", lease).await;
        etcd.kill().await;
        // Away for longer than the lease had left.
        tokio::time::sleep(Duration::from_secs(4)).await;
        etcd.start().await;
        let mut client = etcd.client().await;
        let kv = client.get("k", None).await.unwrap().kvs()[0].clone();
        assert_eq!((kv.lease(), kv.mod_revision()), (lease, put));
        let left = client.lease_time_to_live(lease, None).await.unwrap();
        assert_eq!(left.granted_ttl(), 3);
        let mut stream = client.watch("k", Some(WatchOptions::new().with_start_revision(put + 1))).await.unwrap();
        next(&mut stream).await;
        assert_eq!(told(&events(&mut stream, 1).await), ["DELETE k"], "and it still runs out");
    }
}
