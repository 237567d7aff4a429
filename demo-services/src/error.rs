//! The error of a program.

/// An error of a program as a whole: what it says is all that its user can do about it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
