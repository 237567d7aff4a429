//! A balance and a gift service that do as little as they can, so that a test may have them behave, and go away, as it
//! wants. They register like real ones.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use svc_proto::balance::v1 as balance;
use svc_proto::balance::v1::balance_server::{Balance, BalanceServer};
use svc_proto::gift::v1 as gift;
use svc_proto::gift::v1::gift_server::{Gift, GiftServer};
use svc_registry::{Etcd, EtcdConfig, InstanceId, Serve};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

/// Both, under one address. Gifts are delivered by [`Double::deliver`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Double(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many gifts everybody has received.
    delivered: watch::Sender<i64>,
    /// The deadline that the last ListGifts came with.
    deadline: Mutex<Option<String>>,
}

/// One that is registered; its stop takes it away in order.
pub(crate) struct Registered {
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), svc_registry::Error>>,
}

impl Registered {
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.served.await.expect("it does not panic").expect("an orderly stop");
    }
}

impl Double {
    /// Registers as `service`.
    pub(crate) fn register(&self, etcd: &str, service: &str) -> Registered {
        let etcd = Etcd::new(EtcdConfig::new([etcd]).expect("valid")).expect("a runtime");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Serve::new(&etcd, service)
            .listen("127.0.0.1:0")
            .add_service(GiftServer::new(self.clone()))
            .add_service(BalanceServer::new(self.clone()))
            .instance(|instance| instance.with_id(InstanceId::new("double").expect("a valid id")))
            .shutdown(async move { drop(stopped.await) });
        Registered { stop, served: tokio::spawn(server.run()) }
    }

    /// Everybody receives one more.
    pub(crate) fn deliver(&self) {
        self.0.delivered.send_modify(|count| *count += 1);
    }

    /// The deadline that the last ListGifts came with.
    pub(crate) fn deadline(&self) -> Option<String> {
        self.0.deadline.lock().unwrap().clone()
    }
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not of this double"))
}

#[tonic::async_trait]
impl Gift for Double {
    async fn list_gifts(
        &self,
        request: Request<gift::ListGiftsRequest>,
    ) -> Result<Response<gift::ListGiftsResponse>, Status> {
        let deadline = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        *self.0.deadline.lock().unwrap() = deadline.map(ToOwned::to_owned);
        let gifts = vec![gift::GiftItem { gift_id: 1, name: "Rose".into(), coin: 10 }];
        Ok(Response::new(gift::ListGiftsResponse { gifts }))
    }

    async fn send_gift(
        &self,
        _: Request<gift::SendGiftRequest>,
    ) -> Result<Response<gift::SendGiftResponse>, Status> {
        Err(Status::failed_precondition("user 1 has too few coins"))
    }

    async fn get_sending(
        &self,
        _: Request<gift::GetSendingRequest>,
    ) -> Result<Response<gift::GetSendingResponse>, Status> {
        Err(Status::not_found("no such sending"))
    }

    type WatchGiftsStream = BoxStream<'static, Result<gift::WatchGiftsResponse, Status>>;

    async fn watch_gifts(
        &self,
        request: Request<gift::WatchGiftsRequest>,
    ) -> Result<Response<Self::WatchGiftsStream>, Status> {
        let delivered = self.0.delivered.subscribe();
        let mut seen = request.get_ref().after.unwrap_or(*delivered.borrow());
        let one = |position| gift::WatchGiftsResponse { position, from_uid: 1, ..Default::default() };
        let gifts = WatchStream::new(delivered).flat_map(move |count| {
            let new: Vec<_> = (seen + 1..=count).map(|position| Ok(one(position))).collect();
            seen = seen.max(count);
            futures_util::stream::iter(new)
        });
        Ok(Response::new(gifts.boxed()))
    }
}

#[tonic::async_trait]
impl Balance for Double {
    async fn freeze_user_coin_for_gift(
        &self,
        _: Request<balance::FreezeUserCoinForGiftRequest>,
    ) -> Result<Response<balance::FreezeUserCoinForGiftResponse>, Status> {
        none()
    }

    async fn complete_transaction(
        &self,
        _: Request<balance::CompleteTransactionRequest>,
    ) -> Result<Response<balance::CompleteTransactionResponse>, Status> {
        none()
    }

    async fn batch_add_user_coin(
        &self,
        _: Request<balance::BatchAddUserCoinRequest>,
    ) -> Result<Response<balance::BatchAddUserCoinResponse>, Status> {
        none()
    }

    async fn get_balance(
        &self,
        _: Request<balance::GetBalanceRequest>,
    ) -> Result<Response<balance::GetBalanceResponse>, Status> {
        Ok(Response::new(balance::GetBalanceResponse { coin: 9_007_199_254_740_991, frozen_coin: 0 }))
    }

    async fn list_transactions(
        &self,
        _: Request<balance::ListTransactionsRequest>,
    ) -> Result<Response<balance::ListTransactionsResponse>, Status> {
        Err(Status::internal("connect to 10.0.0.3:5432 refused"))
    }
}
