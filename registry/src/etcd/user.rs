//! Who we are to etcd: a name, and a password from memory or from a file. What flags and environment say comes in, a
//! checked [`User`] goes out; a wrong one is refused with the name of its field. Next is `token.rs`.

use std::path::PathBuf;

use super::secret::{Secret, private_file, unreadable};
use crate::error::Error;

/// A user of etcd.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    password: Password,
}

#[derive(Clone, Debug)]
enum Password {
    Text(Secret),
    /// Read at each authentication, so that a password that was changed needs no restart.
    File(PathBuf),
}

/// What was said, wherever it was said.
#[derive(Clone, Default)]
pub(crate) struct UserGiven {
    /// `name` or `name:password`.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
}

/// How each of them is called where it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserNames {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    pub(crate) password_file: &'static str,
}

impl UserNames {
    pub(crate) const FIELDS: UserNames =
        UserNames { user: "user", password: "password", password_file: "password-file" };
    #[cfg(feature = "cli")]
    pub(crate) const FLAGS: UserNames =
        UserNames { user: "--user", password: "ETCDCTL_PASSWORD", password_file: "--password-file" };
    pub(crate) const ENVIRONMENT: UserNames =
        UserNames { user: "ETCDCTL_USER", password: "ETCDCTL_PASSWORD", password_file: "SVC_PASSWORD_FILE" };
}

impl UserGiven {
    /// The user; none where nothing was said.
    pub(super) fn check(self, names: &UserNames) -> Result<Option<User>, Error> {
        let refuse = |field: &str, reason: String| Err(Error::config(field, reason));
        let Some(user) = self.user else {
            return match (self.password, self.password_file) {
                (None, None) => Ok(None),
                _ => refuse(names.user, "missing, while a password is given; name the user too".to_owned()),
            };
        };
        let (name, password) = match (self.password, self.password_file) {
            (Some(_), Some(_)) => {
                let reason = format!("given beside {}; one of them is enough", names.password);
                return refuse(names.password_file, reason);
            }
            // As etcdctl has it: with a password of its own the user's name may hold a colon.
            (Some(password), None) => (user, Password::Text(Secret::new(password))),
            (None, Some(path)) => (user, Password::File(path)),
            (None, None) => match user.split_once(':') {
                Some((name, password)) => (name.to_owned(), Password::Text(Secret::new(password))),
                None => {
                    let (password, file) = (names.password, names.password_file);
                    let reason = format!(
                        "the password of {user:?} is missing; write name:password, or set {password} or {file}"
                    );
                    return refuse(names.user, reason);
                }
            },
        };
        if name.is_empty() {
            return refuse(names.user, "the name is empty; write name:password".to_owned());
        }
        let user = User { name, password };
        if let Password::File(path) = &user.password {
            let text = std::fs::read_to_string(path)
                .map_err(|error| unreadable(names.password_file, path, error))?;
            private_file(names.password_file, path)?;
            if first_line(&text).is_empty() {
                return refuse(
                    names.password_file,
                    format!("{} holds no password in its first line", path.display()),
                );
            }
        }
        Ok(Some(user))
    }
}

impl User {
    /// The password as it is now; an error names the file.
    pub(super) async fn password(&self) -> Result<Secret, String> {
        match &self.password {
            Password::Text(secret) => Ok(secret.clone()),
            Password::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text
                    .map_err(|error| format!("password-file: {} cannot be read ({error})", path.display()))?;
                Ok(Secret::new(first_line(&text)))
            }
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(
        user: Option<&str>,
        password: Option<&str>,
        file: Option<PathBuf>,
    ) -> Result<Option<User>, Error> {
        let given = UserGiven {
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            password_file: file,
        };
        given.check(&UserNames::FIELDS)
    }

    #[tokio::test]
    async fn a_password_comes_with_the_user_or_apart_or_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        for (user, password, path, name) in [
            (Some("me:hunter2"), None, None, "me"),
            (Some("me:x"), Some("hunter2"), None, "me:x"),
            (Some("me"), None, Some(file.path().to_owned()), "me"),
        ] {
            let user = given(user, password, path).unwrap().expect("a user");
            assert_eq!((user.name.as_str(), user.password().await.unwrap().reveal()), (name, "hunter2"));
            assert!(!format!("{user:?}").contains("hunter2"), "{user:?}");
        }
        assert!(given(None, None, None).unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_wrong_user_is_refused_with_the_name_of_the_field() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Some(path)
        };
        for (result, field, part) in [
            (given(Some("me"), None, None), "user", "name:password"),
            (given(Some(":x"), None, None), "user", "empty"),
            (given(None, Some("hunter2"), None), "user", "missing"),
            (given(Some("me"), Some("hunter2"), file("a", "x", 0o600)), "password-file", "one of them"),
            (given(Some("me"), None, Some("/nowhere/p".into())), "password-file", "/nowhere/p"),
            (given(Some("me"), None, file("empty", "\n", 0o600)), "password-file", "first line"),
            (given(Some("me"), None, file("open", "hunter2", 0o644)), "password-file", "chmod 600"),
        ] {
            let error = result.expect_err(part);
            let text = error.to_string();
            assert!(error.is_config() && text.starts_with(&format!("{field}: ")), "{text}");
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
    }
}
