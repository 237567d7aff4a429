//! Users and roles as a record, and back. Tokens are kept nowhere.

use super::password::Hash;
use super::{Auth, User};
use crate::pb::authpb;
use crate::pb::journal::Users;

impl Auth {
    pub(crate) fn dump(&self) -> Users {
        let users = self.users.iter().map(|(name, user)| authpb::User {
            name: name.clone().into_bytes(),
            password: user.password.as_ref().map(Hash::to_bytes).unwrap_or_default(),
            roles: user.roles.iter().cloned().collect(),
            options: Some(authpb::UserAddOptions { no_password: user.password.is_none() }),
        });
        let roles = self.roles.iter().map(|(name, granted)| authpb::Role {
            name: name.clone().into_bytes(),
            key_permission: granted.clone(),
        });
        Users {
            enabled: self.enabled,
            revision: self.revision,
            users: users.collect(),
            roles: roles.collect(),
        }
    }

    pub(crate) fn restore(&mut self, kept: Users) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (self.enabled, self.revision) = (kept.enabled, kept.revision);
        let users = kept.users.into_iter().map(|user| {
            let without = user.options.is_some_and(|options| options.no_password);
            let password = (!without).then(|| Hash::from_bytes(&user.password));
            (text(&user.name), User { password, roles: user.roles.into_iter().collect() })
        });
        self.users = users.collect();
        let roles = kept.roles.into_iter().map(|role| (text(&role.name), role.key_permission));
        self.roles = roles.collect();
    }
}
