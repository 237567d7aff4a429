//! etcd's gRPC services, a file each: they let faults act, ask the node, and give its answer.

mod auth;
mod cluster;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::auth::Who;
use crate::limits::TRANSPORT_BYTES;
use crate::member::Member;
use crate::node::Node;
use crate::pb::etcdserverpb::auth_server::AuthServer;
use crate::refusal::Refusal;

/// What the services share: the node, and the owner of the tasks of streams.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) member: Arc<Member>,
    pub(crate) streams: TaskTracker,
}

impl Api {
    /// All services, with limits as wide as etcd's.
    pub(crate) fn router(self) -> Router {
        let widest = TRANSPORT_BYTES.max(self.member.settings.max_message_bytes().saturating_mul(2));
        let kv = PbKvServer::new(self.clone()).max_decoding_message_size(widest);
        tonic::transport::Server::builder()
            .max_concurrent_streams(u32::MAX)
            .http2_max_pending_accept_reset_streams(Some(1024))
            .add_service(kv)
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbClusterServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self.clone()))
            .add_service(AuthServer::new(self))
    }

    /// Lets the node answer a request of whoever sent it.
    fn answer<Q, A>(
        &self,
        request: Request<Q>,
        act: impl FnOnce(&mut Node, Who<'_>, Q) -> Result<A, Refusal>,
    ) -> Result<Response<A>, Status> {
        self.answer_at(request, |node, who, request, _| act(node, who, request))
    }

    /// The same with the present time.
    fn answer_at<Q, A>(
        &self,
        request: Request<Q>,
        act: impl FnOnce(&mut Node, Who<'_>, Q, Instant) -> Result<A, Refusal>,
    ) -> Result<Response<A>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.member.with(|node, now| act(node, Who::of(&metadata, now), request, now))?;
        Ok(Response::new(answer))
    }
}
