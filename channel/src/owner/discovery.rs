//! Discovery as the owner takes it: the changes of a tower `Discover` that never ends and never errs, whatever the user's
//! does, and what it says of itself beside them. Next: `task.rs`, which hands each change to the core.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::BoxError;
use tower::discover::{Change, Discover};

use crate::endpoint::Endpoint;
use crate::resolution::Resolution;

/// A `Discover` that errs is polled again after this.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(1);

/// What discovery brings.
pub(crate) struct Discovery<D: Discover> {
    discover: Option<Pin<Box<D>>>,
    resolution: Option<watch::Receiver<Resolution>>,
    pub(super) seen: Resolution,
    /// Until when an erring `Discover` is left alone.
    paused: Option<Instant>,
}

impl<D: Discover> Discovery<D> {
    pub(crate) fn new(discover: D, resolution: Option<watch::Receiver<Resolution>>) -> Self {
        Self { discover: Some(Box::pin(discover)), resolution, seen: Resolution::Pending, paused: None }
    }
}

/// One thing that discovery brought.
pub(crate) enum Found<K> {
    Change(Change<K, Endpoint>),
    /// It says something new of itself.
    Resolution,
    Error(BoxError),
    End,
}

impl<D> Discovery<D>
where
    D: Discover<Service = Endpoint>,
    D::Error: Into<BoxError>,
{
    pub(super) async fn next(&mut self) -> Found<D::Key> {
        if let Some(until) = self.paused.take_if(|until| Instant::now() < *until) {
            self.paused = Some(until);
            let changed = resolution_changed(&mut self.resolution);
            tokio::select! {
                () = sleep_until(until) => {}
                () = changed => {}
            }
        }
        let changes = poll_fn(|cx| poll_discover(&mut self.discover, cx));
        tokio::select! {
            biased; // resolution first: see `discover_ready`
            () = resolution_changed(&mut self.resolution) => self.note_resolution(),
            change = changes => self.note(change),
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Found<D::Key>> {
        if self.resolution.as_ref().is_some_and(|r| r.borrow().has_changed()) {
            return Poll::Ready(self.note_resolution());
        }
        if self.paused.is_some_and(|until| Instant::now() < until) {
            return Poll::Pending;
        }
        poll_discover(&mut self.discover, cx).map(|change| self.note(change))
    }

    fn note_resolution(&mut self) -> Found<D::Key> {
        if let Some(resolution) = &mut self.resolution {
            self.seen = resolution.borrow_and_update().clone();
        }
        Found::Resolution
    }

    fn note(&mut self, change: Discovered<D>) -> Found<D::Key> {
        match change {
            Some(Ok(change)) => {
                if self.resolution.is_none() {
                    // Without word of its own, discovery has answered with its first change.
                    self.seen = Resolution::Live { known: 0 };
                }
                Found::Change(change)
            }
            Some(Err(error)) => {
                self.paused = Some(Instant::now() + DISCOVERY_PAUSE);
                Found::Error(error.into())
            }
            None => {
                self.discover = None;
                Found::End
            }
        }
    }
}

async fn resolution_changed(resolution: &mut Option<watch::Receiver<Resolution>>) {
    if let Some(receiver) = resolution
        && receiver.changed().await.is_ok()
    {
        receiver.mark_changed(); // read by `note_resolution`
        return;
    }
    // Nobody is left to say more: what was said last holds.
    std::future::pending::<()>().await;
}

/// What a `Discover` yields.
type Discovered<D> =
    Option<Result<Change<<D as Discover>::Key, <D as Discover>::Service>, <D as Discover>::Error>>;

fn poll_discover<D: Discover>(
    discover: &mut Option<Pin<Box<D>>>,
    cx: &mut Context<'_>,
) -> Poll<Discovered<D>> {
    match discover {
        Some(discover) => discover.as_mut().poll_discover(cx),
        None => Poll::Pending,
    }
}
