//! The answer to a Range request: limit, sorting, filters, counting, as etcd does them.

use std::cmp::Ordering;
use std::sync::Arc;

use etcd_client::proto::{PbRangeRequest, PbRangeResponse, PbResponseHeader};

use super::{Item, KeyRange, Store};
use crate::refusal::Refusal;

// SortOrder and SortTarget of etcd's RangeRequest.
const ORDER_NONE: i32 = 0;
const ORDER_DESCEND: i32 = 2;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;
const BY_VALUE: i32 = 4;

/// What of a Range request can be refused before anything is read.
pub(crate) fn check(request: &PbRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// Answers from the store as it is; the header tells only the revision.
pub(crate) fn range(store: &Store, request: &PbRangeRequest) -> Result<PbRangeResponse, Refusal> {
    let at = (request.revision > 0).then_some(request.revision);
    if let Some(revision) = at {
        store.check_readable(revision)?;
    }
    let keys = KeyRange::new(&request.key, &request.range_end);
    let header = Some(PbResponseHeader { revision: store.revision(), ..Default::default() });
    let count = store.view(&keys, at).count();
    if request.count_only {
        return Ok(PbRangeResponse { header, count: count as i64, ..Default::default() });
    }
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let all = store.view(&keys, at);
    let mut found: Vec<&Arc<Item>> = if reads_everything(request) {
        all.filter(|item| passes(request, item)).collect()
    } else {
        // One more than asked for, to know whether there is more.
        all.take(limit.saturating_add(1)).collect()
    };
    sort(request, &mut found);
    let more = found.len() > limit;
    found.truncate(limit);
    let kvs = found
        .into_iter()
        .map(|item| if request.keys_only { item.to_message_without_value() } else { item.to_message() })
        .collect();
    Ok(PbRangeResponse { header, kvs, more, count: count as i64 })
}

/// The limit applies after sorting and filtering. (A target without an order is sorted after the limit, which
/// is a quirk of etcd's that we keep.)
fn reads_everything(request: &PbRangeRequest) -> bool {
    request.sort_order != ORDER_NONE
        || request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &PbRangeRequest, item: &Item) -> bool {
    let within = |revision: i64, min: i64, max: i64| revision >= min && (max == 0 || revision <= max);
    within(item.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(item.create_revision, request.min_create_revision, request.max_create_revision)
}

fn sort(request: &PbRangeRequest, found: &mut [&Arc<Item>]) {
    let order = |a: &&Arc<Item>, b: &&Arc<Item>| -> Ordering {
        match request.sort_target {
            BY_VERSION => a.version.cmp(&b.version),
            BY_CREATE => a.create_revision.cmp(&b.create_revision),
            BY_MOD => a.mod_revision.cmp(&b.mod_revision),
            BY_VALUE => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        }
    };
    if request.sort_order == ORDER_DESCEND {
        found.sort_by(|a, b| order(b, a));
    } else {
        found.sort_by(order);
    }
}
