//! Whether a compare of a transaction holds.

use std::cmp::Ordering;

use etcd_client::proto::{PbCompare, PbCompareTarget, PbTargetUnion};

use crate::store::{Item, KeyRange, Store};

// CompareResult of etcd's Compare.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

/// A compare of a range holds if it holds for each key. A missing key has zeros everywhere but no value: no
/// compare of a value holds for it.
pub(super) fn holds(store: &Store, compare: &PbCompare) -> bool {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut items = store.view(&range, None).peekable();
    if items.peek().is_none() {
        return compare.target != PbCompareTarget::Value as i32
            && decides(compare.result, number(compare, None).cmp(&given(compare)));
    }
    items.all(|item| {
        let ordering = if compare.target == PbCompareTarget::Value as i32 {
            item.value[..].cmp(given_value(compare))
        } else {
            number(compare, Some(item)).cmp(&given(compare))
        };
        decides(compare.result, ordering)
    })
}

fn number(compare: &PbCompare, item: Option<&Item>) -> i64 {
    let Some(item) = item else { return 0 };
    match PbCompareTarget::try_from(compare.target) {
        Ok(PbCompareTarget::Version) => item.version,
        Ok(PbCompareTarget::Create) => item.create_revision,
        Ok(PbCompareTarget::Mod) => item.mod_revision,
        Ok(PbCompareTarget::Lease) => item.lease,
        Ok(PbCompareTarget::Value) | Err(_) => 0,
    }
}

/// What is compared with; zero where the request names another target than it gives a number for.
fn given(compare: &PbCompare) -> i64 {
    match (PbCompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(PbCompareTarget::Version), Some(PbTargetUnion::Version(n)))
        | (Ok(PbCompareTarget::Create), Some(PbTargetUnion::CreateRevision(n)))
        | (Ok(PbCompareTarget::Mod), Some(PbTargetUnion::ModRevision(n)))
        | (Ok(PbCompareTarget::Lease), Some(PbTargetUnion::Lease(n))) => *n,
        _ => 0,
    }
}

fn given_value(compare: &PbCompare) -> &[u8] {
    match &compare.target_union {
        Some(PbTargetUnion::Value(value)) => value,
        _ => &[],
    }
}

fn decides(result: i32, ordering: Ordering) -> bool {
    match result {
        EQUAL => ordering == Ordering::Equal,
        GREATER => ordering == Ordering::Greater,
        LESS => ordering == Ordering::Less,
        NOT_EQUAL => ordering != Ordering::Equal,
        // etcd lets a result that it does not know pass.
        _ => true,
    }
}
