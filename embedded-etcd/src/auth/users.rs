//! Changes of users and roles, and what can be asked of them. Each change counts up the revision.

use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;
use crate::refusal::Refusal;

use super::password::Hash;
use super::permission::is_valid;
use super::{Auth, Caller, ROOT, User};

impl Auth {
    /// From now on tokens are asked for. The user `root` must be there and have the role `root`.
    pub(crate) fn enable(&mut self) -> Result<(), Refusal> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(Refusal::RootUserNotExist)?;
        if !root.roles.contains(ROOT) {
            return Err(Refusal::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(())
    }

    pub(crate) fn disable(&mut self) {
        if self.enabled {
            self.enabled = false;
            self.tokens.clear();
            self.changed();
        }
    }

    /// What the password of a user who wants to log in is checked against, and the revision of that.
    pub(crate) fn password_of(&self, name: &str) -> Result<(Hash, u64), Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user = self.users.get(name).ok_or(Refusal::AuthFailed)?;
        let hash = user.password.clone().ok_or(Refusal::NoPasswordUser)?;
        Ok((hash, self.revision))
    }

    // --- users ---

    pub(crate) fn user_add(&mut self, name: &str, password: Option<Hash>) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Refusal::UserAlreadyExist);
        }
        self.users.insert(name.to_owned(), User { password, roles: Default::default() });
        self.changed();
        Ok(())
    }

    pub(crate) fn user_delete(&mut self, name: &str) -> Result<(), Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(Refusal::UserNotFound)?;
        self.tokens.drop_user(name);
        self.changed();
        Ok(())
    }

    /// Ends all tokens of the user too.
    pub(crate) fn user_change_password(&mut self, name: &str, password: Hash) -> Result<(), Refusal> {
        let user = self.users.get_mut(name).ok_or(Refusal::UserNotFound)?;
        // Who was added without a password stays without.
        if let Some(old) = &mut user.password {
            *old = password;
        }
        self.tokens.drop_user(name);
        self.changed();
        Ok(())
    }

    pub(crate) fn user_grant(&mut self, name: &str, role: &str) -> Result<(), Refusal> {
        let user = self.users.get_mut(name).ok_or(Refusal::UserNotFound)?;
        // The role `root` is there even if nobody added it.
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Refusal::RoleNotFound);
        }
        if user.roles.insert(role.to_owned()) {
            self.changed();
        }
        Ok(())
    }

    pub(crate) fn user_revoke(&mut self, name: &str, role: &str) -> Result<(), Refusal> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let user = self.users.get_mut(name).ok_or(Refusal::UserNotFound)?;
        if !user.roles.remove(role) {
            return Err(Refusal::RoleNotGranted);
        }
        self.changed();
        Ok(())
    }

    /// The roles of a user, whom only administrators and the user itself may ask about.
    pub(crate) fn user_get(&self, caller: &Caller, name: &str) -> Result<Vec<String>, Refusal> {
        if *caller != Caller::User(name.to_owned()) {
            self.admin(caller)?;
        }
        let user = self.users.get(name).ok_or(Refusal::UserNotFound)?;
        Ok(user.roles.iter().cloned().collect())
    }

    pub(crate) fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    // --- roles ---

    pub(crate) fn role_add(&mut self, name: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refusal::RoleAlreadyExist);
        }
        self.roles.insert(name.to_owned(), Vec::new());
        self.changed();
        Ok(())
    }

    pub(crate) fn role_delete(&mut self, name: &str) -> Result<(), Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        self.changed();
        Ok(())
    }

    pub(crate) fn role_grant(&mut self, name: &str, permission: Option<Permission>) -> Result<(), Refusal> {
        let permission = permission.ok_or(Refusal::PermissionNotGiven)?;
        if !is_valid(&permission.key, &permission.range_end) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        let granted = self.roles.get_mut(name).ok_or(Refusal::RoleNotFound)?;
        let same = |old: &&mut Permission| old.key == permission.key && old.range_end == permission.range_end;
        match granted.iter_mut().find(same) {
            Some(old) => old.perm_type = permission.perm_type,
            None => granted.push(permission),
        }
        granted.sort_by(|a, b| a.key.cmp(&b.key));
        self.changed();
        Ok(())
    }

    pub(crate) fn role_revoke(&mut self, name: &str, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        let granted = self.roles.get_mut(name).ok_or(Refusal::RoleNotFound)?;
        let before = granted.len();
        granted.retain(|permission| permission.key != key || permission.range_end != range_end);
        if granted.len() == before {
            return Err(Refusal::PermissionNotGranted);
        }
        self.changed();
        Ok(())
    }

    /// What a role allows, which only administrators and those who have it may ask.
    pub(crate) fn role_get(&self, caller: &Caller, name: &str) -> Result<Vec<Permission>, Refusal> {
        if !self.has_role(caller, name) {
            self.admin(caller)?;
        }
        let granted = self.roles.get(name).ok_or(Refusal::RoleNotFound)?;
        if name == ROOT {
            let everything =
                Permission { perm_type: Type::Readwrite as i32, key: Vec::new(), range_end: vec![0] };
            return Ok(vec![everything]);
        }
        Ok(granted.clone())
    }

    pub(crate) fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    fn changed(&mut self) {
        self.revision += 1;
    }
}
