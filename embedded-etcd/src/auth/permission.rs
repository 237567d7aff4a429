//! Whether granted permissions cover what a request touches.

use std::cmp::Ordering;

use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;

/// What a request does to keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// The end of an interval of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    Before(&'a [u8]),
    Open,
}

impl<'a> End<'a> {
    fn of(range_end: &'a [u8]) -> Self {
        if range_end == [0] { End::Open } else { End::Before(range_end) }
    }

    fn cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (End::Open, End::Open) => Ordering::Equal,
            (End::Open, End::Before(_)) => Ordering::Greater,
            (End::Before(_), End::Open) => Ordering::Less,
            (End::Before(mine), End::Before(theirs)) => mine.cmp(theirs),
        }
    }
}

/// Whether a permission means any key at all.
pub(super) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

/// Whether the permissions together hold for all keys of a range: ranges that overlap or meet add up, as in
/// etcd. Permissions on single keys count only for requests of a single key.
pub(super) fn covers<'a>(
    granted: impl Iterator<Item = &'a Permission> + Clone,
    access: Access,
    key: &[u8],
    range_end: &[u8],
) -> bool {
    let granted = granted.filter(|permission| allows(permission, access));
    if range_end.is_empty() {
        return granted.into_iter().any(|permission| contains(permission, key));
    }
    let mut ranges: Vec<(&[u8], End<'_>)> = granted
        .filter(|permission| !permission.range_end.is_empty())
        .map(|permission| (&permission.key[..], End::of(&permission.range_end)))
        .collect();
    ranges.sort_by_key(|&(start, _)| start);
    let wanted = End::of(range_end);
    // Up to where the keys from `key` on are covered.
    let mut reached = End::Before(key);
    for (start, end) in ranges {
        let touches = match reached {
            End::Before(reached) => start <= reached,
            End::Open => true,
        };
        if touches && end.cmp(reached) == Ordering::Greater {
            reached = end;
        }
    }
    reached != End::Before(key) && wanted.cmp(reached) != Ordering::Greater
}

fn allows(permission: &Permission, access: Access) -> bool {
    match Type::try_from(permission.perm_type) {
        Ok(Type::Readwrite) => true,
        Ok(Type::Read) => access == Access::Read,
        Ok(Type::Write) => access == Access::Write,
        Err(_) => false,
    }
}

fn contains(permission: &Permission, key: &[u8]) -> bool {
    let start = &permission.key[..];
    match &permission.range_end[..] {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(kind: Type, key: &str, range_end: &str) -> Permission {
        Permission { perm_type: kind as i32, key: key.into(), range_end: range_end.into() }
    }

    fn reads(granted: &[Permission], key: &str, range_end: &str) -> bool {
        covers(granted.iter(), Access::Read, key.as_bytes(), range_end.as_bytes())
    }

    #[test]
    fn a_permission_covers_its_key_or_range_and_nothing_beside_it() {
        let one = [grant(Type::Read, "k", "")];
        assert!(reads(&one, "k", "") && !reads(&one, "ka", "") && !reads(&one, "k", "k\0"));
        let prefix = [grant(Type::Read, "a/", "a0")];
        assert!(reads(&prefix, "a/1", "") && reads(&prefix, "a/", "a0") && reads(&prefix, "a/1", "a/2"));
        assert!(!reads(&prefix, "a0", "") && !reads(&prefix, "a", "a0") && !reads(&prefix, "a/", "\0"));
        let open = [grant(Type::Read, "b", "\0")];
        assert!(reads(&open, "c", "\0") && reads(&open, "b", "z") && !reads(&open, "a", "\0"));
    }

    #[test]
    fn ranges_that_meet_or_overlap_add_up_and_gaps_do_not() {
        let meeting = [grant(Type::Read, "c", "e"), grant(Type::Read, "a", "c")];
        assert!(reads(&meeting, "a", "e") && reads(&meeting, "b", "d"));
        let gap = [grant(Type::Read, "a", "b"), grant(Type::Read, "c", "d")];
        assert!(!reads(&gap, "a", "d"));
    }

    #[test]
    fn reading_and_writing_are_granted_apart() {
        let cases = [(Type::Read, true, false), (Type::Write, false, true), (Type::Readwrite, true, true)];
        for (kind, read, write) in cases {
            let granted = [grant(kind, "k", "")];
            let allowed = |access| covers(granted.iter(), access, b"k", b"");
            assert_eq!((allowed(Access::Read), allowed(Access::Write)), (read, write), "{kind:?}");
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_no_permission() {
        assert!(is_valid(b"a", b"") && is_valid(b"a", b"\0") && is_valid(b"a", b"b"));
        assert!(!is_valid(b"", b"") && !is_valid(b"b", b"a") && !is_valid(b"b", b"b"));
    }
}
