//! `etcdserverpb.KV`: reads and writes.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::refusal::Refusal;

#[tonic::async_trait]
impl PbKvService for Api {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let linearizable = !request.get_ref().serializable;
        self.member.admit(request.metadata(), linearizable).await?;
        self.answer(request, |node, who, request| node.range(who, &request))
    }

    type RangeStreamStream = tokio_stream::Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        // Newer than the versions that this one stands in for.
        Err(Refusal::Unsupported("RangeStream").into())
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.put(who, request))
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.delete(who, &request))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.txn(who, request))
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        self.member.admit(request.metadata(), true).await?;
        self.answer(request, |node, who, request| node.compact(who, &request))
    }
}
