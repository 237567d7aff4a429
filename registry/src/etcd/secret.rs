//! What must not be read by others: passwords in memory, and files that hold keys and passwords.

use std::fmt;
use std::path::Path;

use crate::error::Error;

/// A text that is never shown: not by `Debug`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

pub(super) fn unreadable(field: &str, path: &Path, error: std::io::Error) -> Error {
    let reason = format!(
        "{} cannot be read ({error}); check its path and that this process may read it",
        path.display()
    );
    Error::config(field, reason).with_source(error)
}

/// Refuses a file with a secret that everybody on this machine may read or write, as ssh does; a group may, since that is how
/// Kubernetes gives a secret to a process that is not root (`fsGroup`).
#[cfg(unix)]
pub(crate) fn private_file(field: &str, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(|error| unreadable(field, path, error))?.permissions().mode();
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let reason = format!(
        "{} is open to everybody on this machine (mode {:03o}); run chmod 600 on it (in Kubernetes: defaultMode 0440 and an \
         fsGroup)",
        path.display(),
        mode & 0o777
    );
    Err(Error::config(field, reason))
}

/// Permissions elsewhere are not those of Unix: nothing is checked.
#[cfg(not(unix))]
pub(crate) fn private_file(_: &str, _: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<redacted>");
    }
}
