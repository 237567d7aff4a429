//! The gRPC service: each method checks its request, asks the store, and says what came of it.

use svc_proto::balance::v1 as proto;
use svc_proto::balance::v1::balance_server::Balance as BalanceV1;
use tonic::{Request, Response, Status};

use super::ledger::{Refusal, State, Transaction};
use super::page::Page;
use super::request;
use super::store::{Error, Store, Terms};
use crate::time::{now_ms, timestamp};

/// The service over a store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Balance {
    store: Store,
    terms: Terms,
}

impl Balance {
    /// Serves what is in `store`; coins are frozen on these terms.
    pub fn new(store: Store, terms: Terms) -> Balance {
        Balance { store, terms }
    }
}

#[tonic::async_trait]
impl BalanceV1 for Balance {
    async fn freeze_user_coin_for_gift(
        &self,
        request: Request<proto::FreezeUserCoinForGiftRequest>,
    ) -> Result<Response<proto::FreezeUserCoinForGiftResponse>, Status> {
        let order = request::freeze(request.into_inner())?;
        let done = self.store.freeze(order, self.terms, now_ms()).await?;
        let expire_time = done.expires_ms.map(timestamp);
        Ok(Response::new(proto::FreezeUserCoinForGiftResponse { tx_id: done.tx_id, expire_time }))
    }

    async fn complete_transaction(
        &self,
        request: Request<proto::CompleteTransactionRequest>,
    ) -> Result<Response<proto::CompleteTransactionResponse>, Status> {
        let (tx_id, end) = request::complete(request.into_inner())?;
        let done = self.store.complete(&tx_id, end, now_ms()).await?;
        let (receiver_coin, house_coin) = done.paid();
        let state = state(done.state).into();
        Ok(Response::new(proto::CompleteTransactionResponse {
            tx_id: done.tx_id,
            state,
            receiver_coin,
            house_coin,
        }))
    }

    async fn batch_add_user_coin(
        &self,
        request: Request<proto::BatchAddUserCoinRequest>,
    ) -> Result<Response<proto::BatchAddUserCoinResponse>, Status> {
        let orders = request::batch(request.into_inner())?;
        let done = self.store.add(orders, now_ms()).await?;
        let tx_ids = done.into_iter().map(|done| done.tx_id).collect();
        Ok(Response::new(proto::BatchAddUserCoinResponse { tx_ids }))
    }

    async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Result<Response<proto::GetBalanceResponse>, Status> {
        let uid = request::uid(request.get_ref().uid)?;
        let (coin, frozen_coin) = self.store.balance(uid).await?;
        Ok(Response::new(proto::GetBalanceResponse { coin, frozen_coin }))
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        let page = Page::new(request.get_ref())?;
        // One more than the page tells whether there is another.
        let mut found = self.store.page(page.uid, page.before, page.size + 1).await?;
        let next_page_token = page.next(&mut found);
        let transactions = found.into_iter().map(shown).collect();
        Ok(Response::new(proto::ListTransactionsResponse { transactions, next_page_token }))
    }
}

/// The one place where codes are decided.
impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let message = error.to_string();
        match error {
            Error::Refused(refusal) => match refusal {
                Refusal::TooFew { .. } | Refusal::Ended { .. } => Status::failed_precondition(message),
                Refusal::Full { .. } => Status::out_of_range(message),
                Refusal::Unknown { .. } => Status::not_found(message),
                Refusal::OtherBody { .. } => Status::already_exists(message),
                Refusal::Broken { .. } => logged(&message),
            },
            Error::Away(_) => Status::unavailable(message),
            Error::Database(_) | Error::Configuration(_) | Error::Internal(_) => logged(&message),
        }
    }
}

/// What no caller can help is for the operator to read; the caller is told no more than that.
fn logged(message: &str) -> Status {
    tracing::error!("{message}");
    Status::internal("the ledger could not do this; its log says why")
}

fn shown(transaction: Transaction) -> proto::Transaction {
    let (receiver_coin, house_coin) = transaction.paid();
    let Transaction { tx_id, order, created_ms, expires_ms, completed_ms, .. } = transaction;
    proto::Transaction {
        tx_id,
        state: state(transaction.state).into(),
        from_uid: order.from.map_or(0, |uid| uid.get()),
        to_uid: order.to.get(),
        coin: order.coin.get(),
        biz_type: order.biz_type,
        biz_id: order.biz_id,
        scene_id: order.scene_id,
        receiver_coin,
        house_coin,
        create_time: Some(timestamp(created_ms)),
        expire_time: expires_ms.map(timestamp),
        complete_time: completed_ms.map(timestamp),
    }
}

fn state(state: State) -> proto::State {
    match state {
        State::Frozen => proto::State::Frozen,
        State::Confirmed => proto::State::Confirmed,
        State::Refunded => proto::State::Refunded,
        State::Expired => proto::State::Expired,
        State::Added => proto::State::Added,
    }
}
