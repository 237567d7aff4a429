//! The gRPC service: each method checks its request, asks the courier or the store, and says what came of it.

use std::time::Duration;

use futures_util::stream::BoxStream;
use svc_proto::gift::v1 as proto;
use svc_proto::gift::v1::gift_server::Gift as GiftV1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::answer::{item, sending};
use super::courier::{Courier, NotSent};
use super::receipt::State;
use super::store::{Error, Refusal};
use super::{catalogue, request, watching};
use crate::deadline::Deadline;

/// How long a caller without a deadline waits for the end of its sending.
const WAIT: Duration = Duration::from_secs(10);

/// How long one with a deadline waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The part of a caller's time that is kept for the answer's way: a tenth.
const FOR_THE_WAY: u32 = 10;

/// The service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gift {
    courier: Courier,
    stopping: CancellationToken,
}

impl Gift {
    /// Sends through `courier`; watches end when `stopping` is cancelled.
    pub fn new(courier: Courier, stopping: CancellationToken) -> Gift {
        Gift { courier, stopping }
    }
}

#[tonic::async_trait]
impl GiftV1 for Gift {
    async fn list_gifts(
        &self,
        _: Request<proto::ListGiftsRequest>,
    ) -> Result<Response<proto::ListGiftsResponse>, Status> {
        Ok(Response::new(proto::ListGiftsResponse { gifts: catalogue::all().map(item).collect() }))
    }

    async fn send_gift(
        &self,
        request: Request<proto::SendGiftRequest>,
    ) -> Result<Response<proto::SendGiftResponse>, Status> {
        let left = Deadline::of(&request).left();
        let wait = left.map_or(WAIT, |left| (left - left / FOR_THE_WAY).min(LONGEST_WAIT));
        let order = request::send(request.into_inner())?;
        let sent = self.courier.send(order, Instant::now() + wait).await?;
        // Nobody has received anything or ever will, and no coin has moved: that is no success.
        if sent.receipts.iter().all(|receipt| receipt.state == State::Refused) {
            let why = sent.receipts.into_iter().next().map(|receipt| receipt.reason);
            return Err(Status::failed_precondition(why.unwrap_or_default()));
        }
        Ok(Response::new(proto::SendGiftResponse { sending: Some(sending(sent)) }))
    }

    async fn get_sending(
        &self,
        request: Request<proto::GetSendingRequest>,
    ) -> Result<Response<proto::GetSendingResponse>, Status> {
        let biz_id = request::biz_id(request.into_inner())?;
        let found = self.courier.store().find(&biz_id).await?;
        let found = found.ok_or_else(|| Status::not_found(format!("there is no sending {biz_id:?}")))?;
        Ok(Response::new(proto::GetSendingResponse { sending: Some(sending(found)) }))
    }

    type WatchGiftsStream = BoxStream<'static, Result<proto::WatchGiftsResponse, Status>>;

    async fn watch_gifts(
        &self,
        request: Request<proto::WatchGiftsRequest>,
    ) -> Result<Response<Self::WatchGiftsStream>, Status> {
        let (uid, after) = request::watch(request.get_ref())?;
        let gifts = watching::watch(self.courier.clone(), self.stopping.clone(), uid, after).await?;
        Ok(Response::new(gifts))
    }
}

/// The one place where the codes of errors are decided.
impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let message = error.to_string();
        match error {
            Error::Refused(Refusal::OtherBody { .. }) => Status::already_exists(message),
            Error::Away(_) => Status::unavailable(message),
            Error::Database(_) | Error::Configuration(_) | Error::Internal(_) => {
                // What no caller can help is for the operator to read; the caller is told no more than that.
                tracing::error!("{message}");
                Status::internal("the gift service could not do this; its log says why")
            }
        }
    }
}

impl From<NotSent> for Status {
    fn from(not_sent: NotSent) -> Status {
        match not_sent {
            NotSent::Store(error) => error.into(),
            NotSent::TooMany => Status::resource_exhausted(
                "too many sendings are under way here, and this one was not begun; try again later",
            ),
            NotSent::Late => Status::deadline_exceeded(
                "the sending may have been begun; the same call again, or GetSending, tells",
            ),
        }
    }
}
