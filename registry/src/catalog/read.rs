//! One-time reads, for the command line: no watch, no task.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::entry::{Entry, Item};
use super::event::{Selector, Snapshot};
use super::join::Join;
use super::range::{Key, Kv, Range};
use super::set::Seen;
use super::wire;
use crate::Error;
use crate::etcd::Etcd;
use crate::keys::Root;
use crate::name::{InstanceId, Revision, ServiceName};

/// Keys in a page.
const PAGE: i64 = 10_000;

/// Everything that a selector means, all of one revision; `at` of now if `None`.
pub(super) async fn list(etcd: &Etcd, selector: &Selector, at: Option<Revision>) -> Result<Snapshot, Error> {
    let mut at = at;
    let mut found: HashMap<Key, Option<Seen>> = HashMap::new();
    for range in selector.ranges() {
        let mut after = None;
        loop {
            let doing = || format!("listing {}", range.prefix(etcd.prefix()));
            let page =
                wire::page(etcd, &range, at, after, PAGE).await.map_err(|e| etcd.error(&doing(), e))?;
            // The first page says what "now" is; all that follow are of that revision.
            at = at.or(Some(page.header.revision));
            after = page.kvs.last().map(|kv| kv.key.clone()).filter(|_| page.more);
            let wanted = page.kvs.iter().filter(|kv| selector.wants(etcd, &range, &kv.key));
            found.extend(wanted.map(|kv| (kv.key.clone(), Some(seen(etcd, &range, kv)))));
            if after.is_none() {
                break;
            }
        }
    }
    let mut join = Join::new(selector.draining);
    join.apply(found, Instant::now());
    Ok(Snapshot { revision: at.unwrap_or_default(), ..join.snapshot() })
}

/// One instance, under whichever root it lies; of two records the newer.
pub(super) async fn get(
    etcd: &Etcd,
    service: &ServiceName,
    id: &InstanceId,
) -> Result<Option<Arc<Entry>>, Error> {
    let keys = [
        (Root::Serving, etcd.prefix().record(service, id)),
        (Root::Draining, etcd.prefix().draining_record(service, id)),
    ];
    let reads: Vec<_> = keys.iter().map(|(_, key)| etcd_client::TxnOp::get(key.as_str(), None)).collect();
    let doing = || format!("reading instance {id} of service {service}");
    // One transaction, so that a move between the roots is not missed.
    let answer = etcd.kv().txn(etcd_client::Txn::new().and_then(reads)).await;
    let answer = answer.map_err(|e| etcd.error(&doing(), e))?;
    let mut found: Option<Arc<Entry>> = None;
    for response in answer.op_responses() {
        let etcd_client::TxnOpResponse::Get(mut read) = response else { continue };
        for kv in read.take_kvs() {
            let kv = wire::kv(kv);
            let range = Range::Records(super::range::Scope::Service(service.clone()));
            match range.item(etcd.prefix(), &kv) {
                Item::Record(entry) if found.as_ref().is_none_or(|f| f.modified < entry.modified) => {
                    found = Some(entry);
                }
                Item::Bad(bad) => return Err(Error::record(&bad.key, &bad.reason)),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn seen(etcd: &Etcd, range: &Range, kv: &Kv) -> Seen {
    Seen { item: range.item(etcd.prefix(), kv), held_until: None }
}
