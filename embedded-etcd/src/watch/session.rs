//! The task of one watch stream: requests in, answers out, one loop.

use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
use futures_core::Stream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{StreamId, Wanted, fragments};
use crate::auth::Who;
use crate::member::{Member, requires_leader};
use crate::store::KeyRange;

// WatchCreateRequest.FilterType
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

pub(crate) type Answers = mpsc::Sender<Result<PbWatchResponse, Status>>;

/// Serves a stream until the client ends it or is gone, or a fault does.
pub(crate) async fn run(
    member: Arc<Member>,
    requests: impl Stream<Item = Result<PbWatchRequest, Status>> + Unpin,
    answers: Answers,
    metadata: MetadataMap,
) {
    let session = Session::open(&member, answers.clone(), &metadata);
    tokio::select! {
        // First, so that a dropped stream ends with its reason even if it is busy.
        biased;
        status = member.streams_end(requires_leader(&metadata)) => {
            // The client may be gone; then nobody needs the reason.
            let _ = answers.send(Err(status)).await;
        }
        _ = session.serve(requests) => {}
    }
}

/// The client is gone.
struct Gone;

struct Session<'a> {
    member: &'a Member,
    id: StreamId,
    wake: Arc<Notify>,
    answers: Answers,
    /// With the token that the stream was opened with, which each of its watches is held against.
    metadata: &'a MetadataMap,
    /// How often all streams had been silenced before this one.
    muted: u64,
}

impl<'a> Session<'a> {
    fn open(member: &'a Member, answers: Answers, metadata: &'a MetadataMap) -> Self {
        let (id, wake) = (member.stream_id(), Arc::new(Notify::new()));
        let muted = member.faults.borrow().muted;
        member.with(|node, _| node.watches.open(id, wake.clone()));
        Self { member, id, wake, answers, metadata, muted }
    }

    async fn serve(
        self,
        mut requests: impl Stream<Item = Result<PbWatchRequest, Status>> + Unpin,
    ) -> Result<(), Gone> {
        let interval = self.member.progress_interval;
        let mut notices = tokio::time::interval_at(Instant::now() + interval, interval);
        notices.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What is ready goes out before more is taken in: a slow reader holds up only itself.
            while let Some((answer, may_split)) = self.member.with(|node, _| node.next_event(self.id)) {
                let parts = if may_split {
                    fragments(answer, self.member.settings.max_message_bytes())
                } else {
                    vec![answer]
                };
                for part in parts {
                    self.send(part).await?;
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                request = requests.next() => match request {
                    Some(Ok(request)) => {
                        if let Some(answer) = self.answer(request) {
                            self.send(answer).await?;
                        }
                    }
                    // The client ended the stream, or its connection did.
                    Some(Err(_)) | None => return Ok(()),
                },
                _ = notices.tick() => {
                    for notice in self.member.with(|node, _| node.notices(self.id)) {
                        self.send(notice).await?;
                    }
                }
                () = self.answers.closed() => return Err(Gone),
            }
        }
    }

    fn answer(&self, request: PbWatchRequest) -> Option<PbWatchResponse> {
        match request.request_union? {
            PbWatchRequestUnion::CreateRequest(create) => {
                // No key means the first one, so that an open end then means all keys.
                let key = if create.key.is_empty() { vec![0] } else { create.key };
                let wanted = Wanted {
                    range: KeyRange::new(&key, &create.range_end),
                    start_revision: create.start_revision,
                    watch_id: create.watch_id,
                    prev_kv: create.prev_kv,
                    fragment: create.fragment,
                    progress_notify: create.progress_notify,
                    no_put: create.filters.contains(&NO_PUT),
                    no_delete: create.filters.contains(&NO_DELETE),
                };
                let who = |now| Who::of(self.metadata, now);
                Some(self.member.with(|node, now| node.watch(self.id, who(now), wanted)))
            }
            PbWatchRequestUnion::CancelRequest(cancel) => {
                self.member.with(|node, _| node.cancel_watch(self.id, cancel.watch_id))
            }
            PbWatchRequestUnion::ProgressRequest(_) => self.member.with(|node, _| node.progress(self.id)),
        }
    }

    async fn send(&self, answer: PbWatchResponse) -> Result<(), Gone> {
        self.member.delay().await;
        if self.member.faults.borrow().muted != self.muted {
            return Ok(());
        }
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.member.with(|node, _| node.watches.close(self.id));
    }
}
