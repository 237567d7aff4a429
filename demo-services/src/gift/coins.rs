//! The steps that the balance service takes, and what its answers mean for a sending.
//!
//! Every call may be made again: it is known by the sending and the receiver. So an answer that says nothing certain is
//! no outcome, and the courier asks again.

use svc_proto::balance::v1::balance_client::BalanceClient;
use svc_proto::balance::v1::{CompleteTransactionRequest, FreezeUserCoinForGiftRequest, Outcome as End};
use svc_resolver::Channel;
use tonic::{Code, Status};

use super::receipt::{Outcome, Receipt, deliver_by};
use super::store::Sending;
use crate::time::{now_ms, of_timestamp};

/// What kind of business a gift is to the ledger.
const BIZ_TYPE: i32 = 1;

/// The one client of the process; clones share its channel.
#[derive(Clone, Debug)]
pub(super) struct Coins(BalanceClient<Channel>);

impl Coins {
    pub(super) fn new(balance: Channel) -> Coins {
        Coins(BalanceClient::new(balance))
    }

    /// Freezes what the gift costs.
    ///
    /// # Errors
    /// Nothing is certain.
    pub(super) async fn freeze(&self, sending: &Sending, to: i64) -> Result<Outcome, Status> {
        let request = FreezeUserCoinForGiftRequest {
            from_uid: sending.from,
            to_uid: to,
            coin: sending.item.coin,
            biz_type: BIZ_TYPE,
            biz_id: biz_id(sending, to),
            scene_id: sending.scene_id,
        };
        match self.0.clone().freeze_user_coin_for_gift(request).await {
            Ok(frozen) => {
                let frozen = frozen.into_inner();
                let expires_ms = frozen.expire_time.as_ref().map_or(i64::MAX, of_timestamp);
                let deliver_by_ms = deliver_by(now_ms(), expires_ms);
                Ok(Outcome::Frozen { tx_id: frozen.tx_id, deliver_by_ms })
            }
            Err(status) => refused(status).map(Outcome::NotFrozen),
        }
    }

    /// Has the coins paid out.
    ///
    /// # Errors
    /// Nothing is certain.
    pub(super) async fn confirm(&self, receipt: &Receipt) -> Result<Outcome, Status> {
        match self.complete(&receipt.tx_id, End::Confirm).await {
            Ok(()) => Ok(Outcome::Paid),
            Err(status) => refused(status).map(Outcome::NotPaid),
        }
    }

    /// Has the coins given back; coins that have gone back by themselves are back.
    ///
    /// # Errors
    /// Nothing is certain.
    pub(super) async fn refund(&self, receipt: &Receipt) -> Result<Outcome, Status> {
        match self.complete(&receipt.tx_id, End::Refund).await {
            Ok(()) => Ok(Outcome::Back),
            Err(status) => {
                let why = refused(status)?;
                // A ledger or a database of ours that somebody has put back to an older state.
                tracing::error!(tx_id = receipt.tx_id, why, "the ledger has no such coins to give back");
                Ok(Outcome::NotBack(why))
            }
        }
    }

    async fn complete(&self, tx_id: &str, outcome: End) -> Result<(), Status> {
        let request = CompleteTransactionRequest { tx_id: tx_id.to_owned(), outcome: outcome.into() };
        self.0.clone().complete_transaction(request).await.map(drop)
    }
}

/// The ledger's name for what one receiver is paid: the same however often it is asked. The receiver's number has no
/// slash, so that no two of them are alike.
fn biz_id(sending: &Sending, to: i64) -> String {
    format!("gift/{}/{to}", sending.biz_id)
}

/// Why balance refuses; a refused call leaves nothing behind there. All other codes say nothing about what was done.
fn refused(status: Status) -> Result<String, Status> {
    match status.code() {
        Code::FailedPrecondition
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists
        | Code::InvalidArgument => Ok(status.message().to_owned()),
        _ => Err(status),
    }
}
