//! `etcdserverpb.Cluster`: the list of members, which is always this one.

use etcd_client::proto::{
    PbClusterService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::refusal::Refusal;

#[tonic::async_trait]
impl PbClusterService for Api {
    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        self.member.admit(request.metadata(), request.get_ref().linearizable).await?;
        let header = self.answer(request, |node, who, _| {
            node.look_up(who, |auth, caller| auth.signed_in(caller))?;
            Ok(node.header())
        });
        let mut header = header?.into_inner();
        // As in etcd, which fills only the ids here.
        (header.revision, header.raft_term) = (0, 0);
        let member = PbMember {
            id: header.member_id,
            name: "embedded".to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: self.member.urls(),
            is_learner: false,
        };
        Ok(Response::new(PbMemberListResponse { header: Some(header), members: vec![member] }))
    }

    async fn member_add(
        &self,
        _: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(Refusal::Unsupported("MemberAdd").into())
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(Refusal::Unsupported("MemberRemove").into())
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(Refusal::Unsupported("MemberUpdate").into())
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(Refusal::Unsupported("MemberPromote").into())
    }
}
