//! Why a service config is refused.

/// A service config that was refused: the path of the field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service config: {path}{}{why}", if path.is_empty() { "" } else { ": " })]
pub struct InvalidServiceConfig {
    path: String,
    why: String,
}

impl InvalidServiceConfig {
    pub(super) fn at(path: &str, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }

    /// Where: such as `methodConfig[0].timeout`; empty for the document as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }
}

pub(super) type Result<T> = std::result::Result<T, InvalidServiceConfig>;
