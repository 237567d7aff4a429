//! Which keys a request means: `key` and `range_end` as etcd reads them.

use std::ops::Bound;

use bytes::Bytes;

/// One key, the keys in `[key, end)`, or all keys from `key` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyRange {
    start: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum End {
    OneKey,
    Before(Bytes),
    Open,
}

/// Where a map's `range` begins and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl KeyRange {
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::OneKey,
            [0] => End::Open,
            end => End::Before(Bytes::copy_from_slice(end)),
        };
        Self { start: Bytes::copy_from_slice(key), end }
    }

    pub(crate) fn one(key: &[u8]) -> Self {
        Self::new(key, &[])
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::OneKey => key == self.start,
            End::Before(end) => key >= &self.start[..] && key < &end[..],
            End::Open => key >= &self.start[..],
        }
    }

    /// As a request names it: `key` and `range_end`.
    pub(crate) fn as_request(&self) -> (&[u8], &[u8]) {
        let range_end: &[u8] = match &self.end {
            End::OneKey => &[],
            End::Before(end) => end,
            End::Open => &[0],
        };
        (&self.start, range_end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    pub(crate) fn as_one_key(&self) -> Option<&Bytes> {
        matches!(self.end, End::OneKey).then_some(&self.start)
    }

    /// For a map's `range`; `None` if there can be no such key.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let end = match &self.end {
            End::OneKey => Bound::Included(&self.start[..]),
            End::Before(end) => Bound::Excluded(&end[..]),
            End::Open => Bound::Unbounded,
        };
        (!self.is_empty()).then_some((Bound::Included(&self.start[..]), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_decides_between_one_key_a_range_and_all_that_follow() {
        let one = KeyRange::new(b"b", b"");
        assert!(one.contains(b"b") && !one.contains(b"ba") && one.as_one_key().is_some());
        let range = KeyRange::new(b"b", b"d");
        assert!(range.contains(b"c") && !range.contains(b"d"));
        let open = KeyRange::new(b"b", b"\0");
        assert!(open.contains(b"zzz") && !open.contains(b"a"));
    }

    #[test]
    fn nothing_lies_between_an_end_and_a_later_start() {
        assert!(KeyRange::new(b"b", b"a").bounds().is_none());
        assert!(KeyRange::new(b"b", b"b").bounds().is_none());
    }
}
