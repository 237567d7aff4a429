//! What can be given, and what it costs.

/// Something that can be given, as it is told and written down with what it cost then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its number.
    pub(super) id: i64,
    /// For people.
    pub(super) name: String,
    /// What the sender pays for each receiver.
    pub(super) coin: i64,
}

/// All of it, by rising price: number, name, coins.
const ITEMS: [(i64, &str, i64); 6] = [
    (1, "Rose", 10),
    (2, "Coffee", 50),
    (3, "Cake", 200),
    (4, "Fireworks", 1_000),
    (5, "Sports car", 10_000),
    (6, "Rocket", 100_000),
];

/// Everything, by rising price.
pub(super) fn all() -> impl Iterator<Item = Item> {
    ITEMS.into_iter().map(|(id, name, coin)| Item { id, name: name.to_owned(), coin })
}

/// The one with this number.
pub(super) fn find(id: i64) -> Option<Item> {
    all().find(|item| item.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_rise_and_numbers_are_given_once() {
        let items: Vec<Item> = all().collect();
        assert!(items.is_sorted_by(|one, next| one.coin < next.coin && one.coin > 0));
        assert!(items.iter().all(|item| find(item.id).as_ref() == Some(item)));
    }
}
