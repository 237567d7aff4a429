//! The last good answers of methods that everybody asks alike, such as the list of gifts: better than none when their
//! service is away. Bounded by the number of such methods.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tonic::Code;

/// By the path of the method.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<HashMap<String, (Instant, Value)>>);

impl Remembered {
    /// A good answer.
    pub(super) fn keep(&self, path: &str, answer: &Value) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), (Instant::now(), answer.clone()));
    }

    /// The last one, and how old it is.
    pub(super) fn last(&self, path: &str) -> Option<(Duration, Value)> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(path).map(|(at, answer)| (at.elapsed(), answer.clone()))
    }
}

/// Whether a call failed because its service is away, rather than by what was asked of it.
pub(super) fn is_away(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded)
}
