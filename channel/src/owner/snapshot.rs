//! What the owner publishes and requests read: immutable, replaced as a whole, once for each batch of changes.

use std::sync::Arc;

use super::config::Methods;
use crate::policy::{Call, Picker};
use crate::subchannel::Subchannel;

/// One publication.
pub(crate) struct Snapshot {
    pub(crate) picker: Arc<dyn Picker>,
    /// What the picker's indices mean.
    pub(crate) ready: Box<[Subchannel]>,
    /// What becomes of a call for which the picker has none.
    pub(crate) verdict: Verdict,
    /// What the service config says of methods; `None` where it says nothing.
    pub(crate) methods: Option<Arc<Methods>>,
    /// All endpoints, for dumps.
    pub(crate) endpoints: Box<[Subchannel]>,
    pub(crate) policy: &'static str,
    pub(crate) resolution: String,
}

impl Snapshot {
    /// The last publication.
    pub(crate) fn over(channel: &str) -> Self {
        let reason = format!("{channel}: the channel's task has ended, by a panic or with its runtime");
        Self {
            picker: Arc::new(Nobody),
            ready: [].into(),
            verdict: Verdict::Over(reason.into()),
            methods: None,
            endpoints: [].into(),
            policy: "none",
            resolution: "has ended".into(),
        }
    }
}

struct Nobody;

impl Picker for Nobody {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        None
    }
}

/// What becomes of a call for which no endpoint is ready; the text says why, for the call's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits: something is still being found out.
    Wait(Arc<str>),
    /// It fails, unless it waits for ready.
    Fail(Arc<str>),
    /// It wakes the channel, and waits.
    Idle(Arc<str>),
    /// It fails: the owner has ended, and nothing will ever change.
    Over(Arc<str>),
}

impl Verdict {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Wait(reason) | Self::Fail(reason) | Self::Idle(reason) | Self::Over(reason) => reason,
        }
    }
}
