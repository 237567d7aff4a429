//! Carries a table's actions out on etcd: a value in, etcd's answer as a value out. No decision is made here.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetResponse, KeyValue, LeaseGrantOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};

use futures_util::future::join_all;

use super::entry::Outcome;
use super::ownership::{Change, Held, Keys, Overridden, Seen, Wished};
use super::table::Trouble;
use crate::etcd::{Etcd, classify};
use crate::intent::{DrainIntent, SetIntent};
use crate::keys::{RecordKey, Root};
use crate::name::{InstanceId, LeaseId, Revision, ServiceName};
use crate::record::decode;

/// Asks for a lease under an id of ours; etcd may grant more than the TTL asked for.
pub(super) async fn grant(etcd: Etcd, lease: LeaseId, ttl: Duration) -> Result<Duration, Trouble> {
    let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
    let options = LeaseGrantOptions::new().with_id(lease.0);
    let granted = etcd.guarded().lease_client().grant(seconds, Some(options)).await;
    let granted = granted.map_err(|error| trouble(&etcd, "granting a lease", error))?;
    Ok(Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default().max(1)))
}

/// Revokes a lease; where etcd does not answer it runs out by itself.
pub(super) async fn revoke(etcd: Etcd, lease: LeaseId) {
    if let Err(error) = etcd.guarded().lease_client().revoke(lease.0).await {
        tracing::debug!(%lease, %error, "lease not revoked; it runs out by itself");
    }
}

/// Reads the five keys of each of these instances at one revision; the answers are in their order.
pub(super) async fn read(etcd: Etcd, all: Vec<&Keys>) -> Vec<Result<Seen, Trouble>> {
    if let [keys] = all[..] {
        return vec![read_one(&etcd, keys).await];
    }
    let ops: Vec<TxnOp> = all.iter().flat_map(|keys| gets(keys)).collect();
    match etcd.guarded().kv_client().txn(Txn::new().and_then(ops)).await {
        Ok(answer) => {
            let revision = revision(&answer);
            let mut found = answer.op_responses().into_iter();
            all.iter().map(|_| Ok(seen(revision, &mut found))).collect()
        }
        Err(error) if concerns_all(&error) => {
            let doing = format!("reading {} and {} more", first_of(&all), all.len() - 1);
            let trouble = trouble(&etcd, &doing, error);
            all.iter().map(|_| Err(trouble.clone())).collect()
        }
        Err(_) => join_all(all.into_iter().map(|keys| read_one(&etcd, keys))).await,
    }
}

async fn read_one(etcd: &Etcd, keys: &Keys) -> Result<Seen, Trouble> {
    let answer = etcd.guarded().kv_client().txn(Txn::new().and_then(gets(keys))).await;
    let answer = answer.map_err(|error| trouble(etcd, &format!("reading {}", keys.serving), error))?;
    Ok(seen(revision(&answer), &mut answer.op_responses().into_iter()))
}

/// Sends the transactions of these instances as one, and one by one where that fails, be it for one of them; the answers are in
/// their order. Perhaps a transaction is sent twice, so that it may read what it has done itself.
pub(super) async fn commit(etcd: Etcd, all: Vec<(&Keys, &Change)>) -> Vec<Result<Outcome, Trouble>> {
    if all.len() > 1 {
        let changes = || all.iter().map(|(_, change)| *change);
        let compares: Vec<Compare> = changes().flat_map(compares).collect();
        let ops: Vec<TxnOp> = changes().flat_map(ops).collect();
        match etcd.guarded().kv_client().txn(Txn::new().when(compares).and_then(ops)).await {
            Ok(answer) if answer.succeeded() => {
                let revision = revision(&answer);
                return all.iter().map(|_| Ok(Outcome::Done(revision))).collect();
            }
            Err(error) if concerns_all(&error) => {
                let keys: Vec<&Keys> = all.iter().map(|(keys, _)| *keys).collect();
                let doing = format!("writing {} and {} more", first_of(&keys), all.len() - 1);
                let trouble = trouble(&etcd, &doing, error);
                return all.iter().map(|_| Err(trouble.clone())).collect();
            }
            Ok(_) | Err(_) => {}
        }
    }
    join_all(all.into_iter().map(|(keys, change)| commit_one(&etcd, keys, change))).await
}

/// Whose failure reads the five keys back.
async fn commit_one(etcd: &Etcd, keys: &Keys, change: &Change) -> Result<Outcome, Trouble> {
    let txn = Txn::new().when(compares(change)).and_then(ops(change)).or_else(gets(keys));
    let answer = etcd.guarded().kv_client().txn(txn).await;
    let answer = answer.map_err(|error| trouble(etcd, &format!("writing {}", keys.serving), error))?;
    Ok(if answer.succeeded() {
        Outcome::Done(revision(&answer))
    } else {
        Outcome::Conflict(Box::new(seen(revision(&answer), &mut answer.op_responses().into_iter())))
    })
}

/// Whether the same would be said to each of many: etcd could not do anything. A right, a lease or a size is one's own.
fn concerns_all(error: &etcd_client::Error) -> bool {
    classify(error).is_transient()
}

fn first_of<'a>(all: &[&'a Keys]) -> &'a str {
    all.first().map_or("nothing", |keys| keys.serving.as_str())
}

fn compares(change: &Change) -> Vec<Compare> {
    let unchanged =
        |(key, at): &(String, Revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, at.0);
    change.compares.iter().map(unchanged).collect()
}

fn ops(change: &Change) -> Vec<TxnOp> {
    let puts = change.puts.iter().map(|(key, value, lease)| {
        TxnOp::put(key.as_str(), value.as_slice(), Some(PutOptions::new().with_lease(lease.0)))
    });
    puts.chain(change.deletes.iter().map(|key| TxnOp::delete(key.as_str(), None))).collect()
}

fn gets(keys: &Keys) -> Vec<TxnOp> {
    [&keys.serving, &keys.draining, &keys.intent, &keys.intent_for_all, &keys.set]
        .map(|key| TxnOp::get(key.as_str(), None))
        .into()
}

fn revision(answer: &TxnResponse) -> Revision {
    Revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
}

/// What the next five answers say.
fn seen(revision: Revision, found: &mut impl Iterator<Item = TxnOpResponse>) -> Seen {
    let mut next = || match found.next() {
        Some(TxnOpResponse::Get(get)) => first(get),
        _ => None,
    };
    Seen {
        revision,
        serving: next().map(held),
        draining: next().map(held),
        intent: next().as_ref().map(wished),
        intent_for_all: next().as_ref().map(wished),
        set: next().as_ref().map(overridden),
    }
}

fn first(mut get: GetResponse) -> Option<KeyValue> {
    let mut found = get.take_kvs();
    (!found.is_empty()).then(|| found.swap_remove(0))
}

fn held(kv: KeyValue) -> Held {
    // Only who wrote it matters here, which is in the value: service and id are the key's, known to the caller.
    let record = ServiceName::new("any")
        .ok()
        .zip(InstanceId::new("any").ok())
        .and_then(|(service, id)| decode(&RecordKey { root: Root::Serving, service, id }, kv.value()).ok());
    Held {
        mod_revision: Revision(kv.mod_revision()),
        lease: LeaseId(kv.lease()),
        incarnation: record.as_ref().and_then(|record| record.incarnation),
        epoch: record.as_ref().and_then(|record| record.epoch),
        value: kv.into_key_value().1,
    }
}

fn wished(kv: &KeyValue) -> Wished {
    Wished { mod_revision: Revision(kv.mod_revision()), intent: DrainIntent::decode(kv.value()) }
}

fn overridden(kv: &KeyValue) -> Overridden {
    Overridden { mod_revision: Revision(kv.mod_revision()), set: SetIntent::decode(kv.value()) }
}

fn trouble(etcd: &Etcd, doing: &str, error: etcd_client::Error) -> Trouble {
    let failure = classify(&error);
    let text: Arc<str> = etcd.error(doing, error).to_string().into();
    Trouble { failure, text }
}
