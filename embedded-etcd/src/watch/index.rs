//! Which watchers a key concerns, without asking every watcher.
//!
//! Watches of one key are found by a look-up, all others in a tree of intervals: a change costs the logarithm of the
//! number of different ranges, and those that it finds.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::StreamId;
use super::intervals::Intervals;
use crate::store::KeyRange;

/// A watcher: its stream and its id there.
pub(super) type WatcherRef = (StreamId, i64);

#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Bytes, BTreeSet<WatcherRef>>,
    ranges: Intervals<BTreeSet<WatcherRef>>,
}

impl Index {
    pub(super) fn insert(&mut self, range: &KeyRange, watcher: WatcherRef) {
        if let Some(key) = range.as_one_key() {
            self.keys.entry(key.clone()).or_default().insert(watcher);
        } else {
            self.ranges.change(range, |watchers| {
                watchers.insert(watcher);
            });
        }
    }

    pub(super) fn remove(&mut self, range: &KeyRange, watcher: WatcherRef) {
        if let Some(key) = range.as_one_key() {
            if let Entry::Occupied(mut watchers) = self.keys.entry(key.clone()) {
                watchers.get_mut().remove(&watcher);
                if watchers.get().is_empty() {
                    watchers.remove();
                }
            }
        } else {
            self.ranges.remove_if(range, |watchers| {
                watchers.remove(&watcher);
                watchers.is_empty()
            });
        }
    }

    /// The watchers that a change of this key concerns, each once.
    pub(super) fn watchers_of(&self, key: &[u8]) -> Vec<WatcherRef> {
        self.look_up(key).0
    }

    /// The same, and how many ranges were looked at for it.
    fn look_up(&self, key: &[u8]) -> (Vec<WatcherRef>, usize) {
        let mut found: Vec<WatcherRef> = self.keys.get(key).into_iter().flatten().copied().collect();
        let looked_at = self.ranges.visit(key, |watchers| found.extend(watchers));
        (found, looked_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &Index, key: &str) -> Vec<WatcherRef> {
        let mut found = index.watchers_of(key.as_bytes());
        found.sort_unstable();
        found
    }

    #[test]
    fn a_key_finds_its_own_watch_its_prefixes_and_ranges() {
        let mut index = Index::default();
        let ranges = [(b"a/b", &b""[..]), (b"a/\0", b"a0"), (b"b/\0", b"c\0"), (b"a/a", b"\0")];
        for (id, (key, end)) in ranges.into_iter().enumerate() {
            index.insert(&KeyRange::new(key, end), (0, id as i64));
        }
        index.insert(&KeyRange::new(b"a/", b"a0"), (1, 0));
        assert_eq!(found(&index, "a/b"), [(0, 0), (0, 1), (0, 3), (1, 0)]);
    }

    #[test]
    fn it_finds_those_whose_range_contains_the_key_and_no_others() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut key = move |longest: usize| -> Vec<u8> {
            let length = random.usize(1..=longest);
            std::iter::repeat_with(|| random.u8(b'a'..=b'd')).take(length).collect()
        };
        let mut index = Index::default();
        let mut all: Vec<(KeyRange, WatcherRef)> = Vec::new();
        for id in 0..2000 {
            let (start, end) = (key(3), key(3));
            let range = match id % 4 {
                0 => KeyRange::new(&start, b""),
                1 => KeyRange::new(&start, b"\0"),
                _ => KeyRange::new((&start).min(&end), (&start).max(&end)),
            };
            if range.is_empty() {
                continue;
            }
            index.insert(&range, (0, id));
            all.push((range, (0, id)));
            if id % 3 == 0 {
                let (range, watcher) = all.swap_remove(id as usize % all.len());
                index.remove(&range, watcher);
            }
        }
        for _ in 0..500 {
            let key = String::from_utf8(key(4)).unwrap();
            let contains = |(range, _): &&(KeyRange, WatcherRef)| range.contains(key.as_bytes());
            let mut expected: Vec<_> = all.iter().filter(contains).map(|&(_, watcher)| watcher).collect();
            expected.sort_unstable();
            assert_eq!(found(&index, &key), expected, "{key}");
        }
    }

    #[test]
    fn a_change_costs_the_logarithm_of_the_watches_and_those_it_finds() {
        let looked_at = |watchers: usize| {
            let mut index = Index::default();
            for i in 0..watchers {
                let (start, end) = (format!("k/{i:06}/"), format!("k/{i:06}0"));
                // As prefixes, as ranges that are none, and all under one root.
                let end = if i % 2 == 0 { end } else { format!("{start}x") };
                index.insert(&KeyRange::new(start.as_bytes(), end.as_bytes()), (0, i as i64));
            }
            index.insert(&KeyRange::new(b"k/", b"k0"), (1, 0));
            let mut sum = 0;
            for i in 0..1000 {
                let (found, looked_at) = index.look_up(format!("k/{:06}/a", i * 7919 % watchers).as_bytes());
                assert_eq!(found.len(), 2);
                sum += looked_at;
            }
            sum / 1000
        };
        let (few, many) = (looked_at(100), looked_at(10_000));
        println!("looked at for one change: {few} of 100 ranges, {many} of 10,000");
        assert!(many < few * 4, "{few} of 100 ranges, {many} of 10,000");
    }

    #[test]
    fn nothing_is_left_of_a_removed_watch() {
        let mut index = Index::default();
        for end in [&b""[..], b"b", b"x", b"\0"] {
            let range = KeyRange::new(b"a", end);
            index.insert(&range, (0, 0));
            index.insert(&range, (0, 1));
            index.remove(&range, (0, 0));
            index.remove(&range, (0, 1));
        }
        assert!(index.keys.is_empty() && index.ranges.is_empty());
    }
}
