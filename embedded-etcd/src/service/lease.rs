//! `etcdserverpb.Lease`: leases and the streams that keep them.

use std::sync::Arc;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::auth::Who;
use crate::member::{Member, requires_leader};

/// Answers that wait for a client to read; renewals beyond wait their turn.
const ANSWERS_AHEAD: usize = 16;

type Renewals = mpsc::Sender<Result<PbLeaseKeepAliveResponse, Status>>;

#[tonic::async_trait]
impl PbLeaseService for Api {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer_at(request, |node, who, request, now| node.grant(who, &request, now))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.revoke(who, request.id))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.member.admit(request.metadata(), false).await?;
        let (member, metadata) = (self.member.clone(), request.metadata().clone());
        let (renewals, stream) = mpsc::channel(ANSWERS_AHEAD);
        // Owned by the run's tracker; ends with the client's stream or connection, or when streams are dropped
        // or the run stops. Its errors are the client's, and go there.
        self.streams.spawn(keep_alive(member, metadata, request.into_inner(), renewals));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer_at(request, |node, who, request, now| node.time_to_live(who, &request, now))
    }

    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, _| node.leases(who))
    }
}

async fn keep_alive(
    member: Arc<Member>,
    metadata: MetadataMap,
    requests: Streaming<PbLeaseKeepAliveRequest>,
    renewals: Renewals,
) {
    let end = tokio::select! {
        biased;
        status = member.streams_end(requires_leader(&metadata)) => Err(status),
        end = renew(&member, &metadata, requests, &renewals) => end,
    };
    if let Err(status) = end {
        // The client may be gone; then nobody needs the reason.
        let _ = renewals.send(Err(status)).await;
    }
}

/// One after the other, as etcd does: a renewal that waits holds up those behind it.
async fn renew(
    member: &Member,
    metadata: &MetadataMap,
    mut requests: Streaming<PbLeaseKeepAliveRequest>,
    renewals: &Renewals,
) -> Result<(), Status> {
    while let Some(request) = requests.next().await.transpose()? {
        member.admit(metadata, true).await?;
        let answer = member.with(|node, now| node.keep_alive(Who::of(metadata, now), request.id, now))?;
        if renewals.send(Ok(answer)).await.is_err() {
            break;
        }
    }
    Ok(())
}
