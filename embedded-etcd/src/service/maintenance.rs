//! `etcdserverpb.Maintenance`: status, alarms, hashes; what has no meaning for a single node in memory says so.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse,
    PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse,
    PbStatusRequest, PbStatusResponse,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::refusal::Refusal;

#[tonic::async_trait]
impl PbMaintenanceService for Api {
    async fn status(&self, request: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        self.member.admit(request.metadata(), false).await?;
        let leaderless = self.member.faults.borrow().leaderless;
        self.answer(request, |node, who, _| {
            node.administer(who, |_| Ok(())).map(|()| node.status(leaderless))
        })
    }

    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.alarm(who, &request))
    }

    async fn defragment(
        &self,
        request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        self.member.admit(request.metadata(), false).await?;
        let answer = self.answer(request, |node, who, _| {
            node.maintain(who)?;
            node.defragment();
            Ok(PbDefragmentResponse { header: Some(node.header()) })
        })?;
        self.member.save_all();
        Ok(answer)
    }

    async fn hash(&self, request: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        self.member.admit(request.metadata(), false).await?;
        self.answer(request, |node, who, _| node.maintain(who).map(|()| node.hash()))
    }

    async fn hash_kv(&self, request: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        self.member.admit(request.metadata(), false).await?;
        self.answer(request, |node, who, request| {
            node.maintain(who)?;
            node.hash_kv(request.revision)
        })
    }

    type SnapshotStream = tokio_stream::Empty<Result<PbSnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Refusal::Unsupported("Snapshot").into())
    }

    async fn move_leader(
        &self,
        _: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(Refusal::Unsupported("MoveLeader").into())
    }

    async fn downgrade(
        &self,
        _: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(Refusal::Unsupported("Downgrade").into())
    }
}
