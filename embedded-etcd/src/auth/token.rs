//! Simple tokens: random texts that stand for a user until nobody used them for their TTL.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Of so many random letters, as etcd's.
const LETTERS: usize = 16;

#[derive(Debug)]
pub(super) struct Tokens {
    ttl: Duration,
    by_text: HashMap<String, (String, Instant)>,
    by_end: BTreeSet<(Instant, String)>,
}

impl Tokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, by_text: HashMap::new(), by_end: BTreeSet::new() }
    }

    /// A new token; `index` tells it from all others, as the raft index does in etcd.
    pub(super) fn assign(&mut self, user: &str, index: u64, now: Instant) -> String {
        self.drop_ended(now);
        let letters: String = std::iter::repeat_with(fastrand::alphabetic).take(LETTERS).collect();
        let token = format!("{letters}.{index}");
        let end = now + self.ttl;
        self.by_text.insert(token.clone(), (user.to_owned(), end));
        self.by_end.insert((end, token.clone()));
        token
    }

    /// Whose token this is; it lives for its whole TTL again.
    pub(super) fn user_of(&mut self, token: &str, now: Instant) -> Option<String> {
        self.drop_ended(now);
        let (user, end) = self.by_text.get_mut(token)?;
        self.by_end.remove(&(*end, token.to_owned()));
        *end = now + self.ttl;
        self.by_end.insert((*end, token.to_owned()));
        Some(user.clone())
    }

    /// All tokens of one user.
    pub(super) fn drop_user(&mut self, name: &str) {
        self.by_text.retain(|_, (user, _)| user != name);
        self.by_end.retain(|(_, token)| self.by_text.contains_key(token));
    }

    pub(super) fn clear(&mut self) {
        self.by_text.clear();
        self.by_end.clear();
    }

    fn drop_ended(&mut self, now: Instant) {
        while let Some((_, token)) = self.by_end.first().filter(|(end, _)| *end <= now).cloned() {
            self.by_end.pop_first();
            self.by_text.remove(&token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_is_used_and_its_ttl_beyond() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tokens = Tokens::new(Duration::from_secs(10));
        let (used, idle) = (tokens.assign("ada", 1, start), tokens.assign("bob", 2, start));
        assert_eq!(tokens.user_of(&used, at(9)).as_deref(), Some("ada"));
        assert_eq!(tokens.user_of(&idle, at(10)), None, "over");
        assert_eq!(tokens.user_of(&used, at(18)).as_deref(), Some("ada"), "renewed by use");
        assert_eq!(tokens.user_of(&used, at(28)), None);
        assert!(tokens.by_text.is_empty() && tokens.by_end.is_empty(), "nothing is left of them");
    }

    #[test]
    fn a_user_loses_all_tokens_and_others_none() {
        let now = Instant::now();
        let mut tokens = Tokens::new(Duration::from_secs(10));
        let (first, second, other) =
            (tokens.assign("ada", 1, now), tokens.assign("ada", 2, now), tokens.assign("bob", 3, now));
        tokens.drop_user("ada");
        assert_eq!((tokens.user_of(&first, now), tokens.user_of(&second, now)), (None, None));
        assert_eq!(tokens.user_of(&other, now).as_deref(), Some("bob"));
    }
}
