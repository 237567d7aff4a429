//! Users, roles and tokens: who a caller is and what it may do. A value; the time comes in with each call.
//!
//! A request's token becomes a [`Caller`], and [`check`] holds the caller against what the request touches.
//! [`users`] changes users and roles, [`password`] hashes outside of the lock. As in etcd all of it does nothing
//! until it is enabled, and the user `root` with the role `root` may do everything.

pub(crate) mod check;
pub(crate) mod password;
mod permission;
mod records;
mod token;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

pub(crate) use permission::Access;
use permission::covers;
use token::Tokens;

use crate::pb::authpb::Permission;
use crate::refusal::Refusal;

/// The name of the user, and of the role, that may do everything.
const ROOT: &str = "root";

/// One user. The name is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    /// `None`: may not log in by password.
    password: Option<password::Hash>,
    roles: BTreeSet<String>,
}

/// What a request says of who sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    token: Option<&'a str>,
    now: Instant,
}

impl<'a> Who<'a> {
    pub(crate) fn of(metadata: &'a MetadataMap, now: Instant) -> Self {
        let token = metadata.get("token").or_else(|| metadata.get("authorization"));
        Self { token: token.and_then(|token| token.to_str().ok()), now }
    }
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Authentication is off.
    Anyone,
    /// It is on, and the request had no token.
    Nobody,
    User(String),
}

/// Everything about users.
#[derive(Debug)]
pub(crate) struct Auth {
    enabled: bool,
    /// Counts the changes of users, roles and of being enabled.
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Vec<Permission>>,
    tokens: Tokens,
    /// Fault: so many next requests with a token are told that the auth store went on.
    outdated: usize,
}

impl Auth {
    pub(crate) fn new(token_ttl: Duration) -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            tokens: Tokens::new(token_ttl),
            outdated: 0,
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Who sent a request; a token that is used lives for its whole TTL again.
    pub(crate) fn caller(&mut self, who: Who<'_>) -> Result<Caller, Refusal> {
        if !self.enabled {
            return Ok(Caller::Anyone);
        }
        let Some(token) = who.token else { return Ok(Caller::Nobody) };
        let user = self.tokens.user_of(token, who.now).ok_or(Refusal::InvalidAuthToken)?;
        if self.outdated > 0 {
            self.outdated -= 1;
            return Err(Refusal::AuthOldRevision);
        }
        Ok(Caller::User(user))
    }

    /// A new token for a user whose password was checked against the users at `revision`; `None` if they
    /// changed since.
    pub(crate) fn assign(&mut self, name: &str, revision: u64, index: u64, now: Instant) -> Option<String> {
        (self.enabled && self.revision == revision).then(|| self.tokens.assign(name, index, now))
    }

    /// Fault: all tokens are gone.
    pub(crate) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Fault: so many next requests with a token are told that the auth store went on.
    pub(crate) fn outdate(&mut self, count: usize) {
        self.outdated = count;
    }

    // --- what a caller may do ---

    /// Anyone, or a user that is logged in.
    pub(crate) fn signed_in(&self, caller: &Caller) -> Result<(), Refusal> {
        if *caller == Caller::Nobody { Err(Refusal::UserEmpty) } else { Ok(()) }
    }

    /// Anyone, or a user with the role `root`.
    pub(crate) fn admin(&self, caller: &Caller) -> Result<(), Refusal> {
        match caller {
            Caller::Anyone => Ok(()),
            Caller::Nobody => Err(Refusal::UserEmpty),
            Caller::User(name) => match self.users.get(name) {
                None => Err(Refusal::UserNotFound),
                Some(user) if user.roles.contains(ROOT) => Ok(()),
                Some(_) => Err(Refusal::PermissionDenied),
            },
        }
    }

    /// Whether the caller may do this to all keys that `key` and `range_end` mean.
    pub(crate) fn permits(
        &self,
        caller: &Caller,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refusal> {
        let name = match caller {
            Caller::Anyone => return Ok(()),
            Caller::Nobody => return Err(Refusal::UserEmpty),
            Caller::User(name) => name,
        };
        let user = self.users.get(name).ok_or(Refusal::PermissionDenied)?;
        if user.roles.contains(ROOT) {
            return Ok(());
        }
        let granted = user.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        if covers(granted, access, key, range_end) { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    fn has_role(&self, caller: &Caller, role: &str) -> bool {
        match caller {
            Caller::User(name) => self.users.get(name).is_some_and(|user| user.roles.contains(role)),
            Caller::Anyone | Caller::Nobody => false,
        }
    }
}
