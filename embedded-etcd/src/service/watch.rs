//! `etcdserverpb.Watch`: opens streams; [`crate::watch::session`] serves them.

use etcd_client::proto::{PbWatchRequest, PbWatchResponse, PbWatchService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::watch::session;

/// Answers that wait for a client to read; more stay in the store's log.
const ANSWERS_AHEAD: usize = 16;

#[tonic::async_trait]
impl PbWatchService for Api {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.member.admit(request.metadata(), false).await?;
        let metadata = request.metadata().clone();
        let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
        // Owned by the run's tracker; ends with the client's stream or connection, or when streams are dropped
        // or the run stops. Its errors are the client's, and go there.
        self.streams.spawn(session::run(self.member.clone(), request.into_inner(), answers, metadata));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
