//! Passwords: hashed and checked by bcrypt as in etcd, outside of the node's lock.

use std::fmt;

use crate::refusal::Refusal;

/// The least that bcrypt has: a server for tests is logged in to often, and guards nothing. etcd's is 10.
const COST: u32 = 4;

/// A password as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hash(String);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hash>")
    }
}

impl Hash {
    /// Hashes a password; bcrypt reads its first 72 bytes and refuses NUL bytes.
    pub(crate) fn of(password: &str) -> Result<Self, Refusal> {
        bcrypt::hash(password, COST).map(Self).map_err(|_| Refusal::BadPassword)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    /// One that was kept; nothing fits one that is none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn is_of(&self, password: &str) -> bool {
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_and_no_debug_output_shows_it() {
        let hash = Hash::of("secret").unwrap();
        assert!(hash.is_of("secret") && !hash.is_of("Secret") && !hash.is_of(""));
        assert_ne!(Hash::of("secret").unwrap(), hash, "salted");
        assert!(!format!("{hash:?}").contains("secret"));
    }
}
