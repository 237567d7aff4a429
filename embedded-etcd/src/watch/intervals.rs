//! A set of intervals of keys that finds those which contain a key: a treap by their starts, in which each node knows
//! the last end below it, so that whole branches are passed over.
//!
//! (The crate `interavl` does this too, but looks at every interval that begins before the key.)

use std::cmp::Ordering;

use bytes::Bytes;

use crate::store::KeyRange;

/// Where an interval ends: before a key, or after all keys. In this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Open,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < &end[..],
            End::Open => true,
        }
    }
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    value: T,
    /// Random; no node's is above its parent's. That keeps the tree shallow.
    priority: u64,
    /// The last end of this node and all below.
    last: End,
    left: Link<T>,
    right: Link<T>,
}

/// Values by interval.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T: Default> Intervals<T> {
    /// The value of an interval, made when there is none.
    pub(super) fn change(&mut self, range: &KeyRange, act: impl FnOnce(&mut T)) {
        let (start, end) = bounds(range);
        insert(&mut self.root, start, end, act);
    }

    /// Changes the value of an interval, if there is one, and drops it where `act` says that it is of no more use.
    pub(super) fn remove_if(&mut self, range: &KeyRange, act: impl FnOnce(&mut T) -> bool) {
        let (start, end) = bounds(range);
        remove(&mut self.root, &start, &end, act);
    }

    /// Shows the values of all intervals that contain a key; gives how many nodes were looked at.
    pub(super) fn visit<'a>(&'a self, key: &[u8], mut show: impl FnMut(&'a T)) -> usize {
        visit(&self.root, key, &mut show)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

fn bounds(range: &KeyRange) -> (Bytes, End) {
    let (start, end) = range.as_request();
    let end = if end == [0] { End::Open } else { End::Before(Bytes::copy_from_slice(end)) };
    (Bytes::copy_from_slice(start), end)
}

impl<T> Node<T> {
    fn compare(&self, start: &Bytes, end: &End) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn update(&mut self) {
        let below = [&self.left, &self.right].into_iter().flatten().map(|node| &node.last);
        self.last = below.chain([&self.end]).max().unwrap_or(&self.end).clone();
    }
}

fn insert<T: Default>(link: &mut Link<T>, start: Bytes, end: End, act: impl FnOnce(&mut T)) {
    let Some(node) = link else {
        let (last, priority) = (end.clone(), fastrand::u64(..));
        let mut value = T::default();
        act(&mut value);
        *link = Some(Box::new(Node { start, end, value, priority, last, left: None, right: None }));
        return;
    };
    let rises =
        |child: &Link<T>, node: &Node<T>| child.as_ref().is_some_and(|child| child.priority > node.priority);
    match node.compare(&start, &end) {
        Ordering::Equal => act(&mut node.value),
        Ordering::Less => {
            insert(&mut node.left, start, end, act);
            node.update();
            if rises(&node.left, node) {
                rotate(link, |node| &mut node.left, |node| &mut node.right);
            }
        }
        Ordering::Greater => {
            insert(&mut node.right, start, end, act);
            node.update();
            if rises(&node.right, node) {
                rotate(link, |node| &mut node.right, |node| &mut node.left);
            }
        }
    }
}

/// Puts a node's child, on the side named first, in its place.
fn rotate<T>(
    link: &mut Link<T>,
    side: impl Fn(&mut Node<T>) -> &mut Link<T>,
    other: impl Fn(&mut Node<T>) -> &mut Link<T>,
) {
    let Some(mut node) = link.take() else { return };
    let Some(mut child) = side(&mut node).take() else {
        *link = Some(node);
        return;
    };
    *side(&mut node) = other(&mut child).take();
    node.update();
    *other(&mut child) = Some(node);
    child.update();
    *link = Some(child);
}

fn remove<T>(link: &mut Link<T>, start: &Bytes, end: &End, act: impl FnOnce(&mut T) -> bool) {
    let Some(node) = link else { return };
    match node.compare(start, end) {
        Ordering::Less => remove(&mut node.left, start, end, act),
        Ordering::Greater => remove(&mut node.right, start, end, act),
        Ordering::Equal => {
            if act(&mut node.value) {
                let (left, right) = (node.left.take(), node.right.take());
                *link = merge(left, right);
            }
        }
    }
    if let Some(node) = link {
        node.update();
    }
}

/// One tree of two, of which the first lies before the second.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, only) | (only, None) => only,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.update();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.update();
                Some(right)
            }
        }
    }
}

fn visit<'a, T>(link: &'a Link<T>, key: &[u8], show: &mut impl FnMut(&'a T)) -> usize {
    let Some(node) = link else { return 0 };
    if !node.last.is_after(key) {
        return 1;
    }
    let mut looked_at = 1 + visit(&node.left, key, show);
    if &node.start[..] <= key {
        if node.end.is_after(key) {
            show(&node.value);
        }
        looked_at += visit(&node.right, key, show);
    }
    looked_at
}
