//! A database for each test, instances over it, and calls with little writing.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use demo_services::balance::ledger::Share;
use demo_services::balance::{Balance, Store, Sweeper, Terms};
use svc_proto::balance::v1::balance_client::BalanceClient;
use svc_proto::balance::v1::balance_server::BalanceServer;
use svc_proto::balance::v1::{
    AddUserCoinOperation, BatchAddUserCoinRequest, CompleteTransactionRequest, CompleteTransactionResponse,
    FreezeUserCoinForGiftRequest, GetBalanceRequest, ListTransactionsRequest, Outcome, Transaction,
};
pub(crate) use svc_tests::database::Database;
pub(crate) use svc_tests::database_tests;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::{Channel, Server};

/// What the receiver of a gift is paid of it here, in percent.
pub(crate) const SHARE: i64 = 70;

/// Runs one law on one database; what has to be built first is no part of its time.
pub(crate) fn run<F: Future<Output = ()>>(is_postgres: bool, law: impl FnOnce(Database) -> F) {
    crate::crashes::balance_binary();
    svc_tests::database::run(is_postgres, law);
}

/// The seed of a test that draws: `BALANCE_SEED`, or a new one; printed, so that it can be played again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("BALANCE_SEED").ok();
    let seed =
        given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("BALANCE_SEED is a number"));
    eprintln!("BALANCE_SEED={seed}");
    seed
}

/// Terms under which nothing expires during a test.
pub(crate) fn terms() -> Terms {
    limited(Duration::from_secs(600))
}

/// Terms with a limit.
pub(crate) fn limited(limit: Duration) -> Terms {
    Terms { share: Share::percent(70).expect("a share"), limit }
}

/// A balance in this process, with a store of its own; its drop ends it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    _server: AbortOnDropHandle<()>,
    _sweeper: Sweeper,
}

impl Instance {
    pub(crate) async fn start(database: &Database) -> Instance {
        Instance::start_with(database, terms(), Duration::from_secs(1)).await
    }

    pub(crate) async fn start_with(database: &Database, terms: Terms, sweep: Duration) -> Instance {
        let store = Store::open(&database.url()).await.expect("it opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let service = BalanceServer::new(Balance::new(store.clone(), terms));
        let serving = Server::builder().add_service(service);
        let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            serving.await.expect("it serves");
        }));
        let sweeper = Sweeper::start(store.clone(), sweep);
        Instance { store, client: Client::to(address), address, _server: server, _sweeper: sweeper }
    }
}

/// Repeats a call while the answer is UNAVAILABLE, which says that it is to be repeated: a busy machine is no fault.
macro_rules! patiently {
    ($call:expr) => {
        loop {
            match $call.await {
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                answer => break answer,
            }
        }
    };
}

/// Calls of one instance, each repeated until it has an answer; the `stub` shows every answer.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) stub: BalanceClient<Channel>,
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Client {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        Client { stub: BalanceClient::new(channel) }
    }

    /// Issues coins to one user.
    pub(crate) async fn add(&self, uid: i64, coin: i64, biz_id: &str) -> Result<String, Status> {
        Ok(self.add_all(vec![operation(uid, coin, biz_id)]).await?.remove(0))
    }

    pub(crate) async fn add_all(&self, operations: Vec<AddUserCoinOperation>) -> Result<Vec<String>, Status> {
        let request = BatchAddUserCoinRequest { operations };
        Ok(patiently!(self.stub.clone().batch_add_user_coin(request.clone()))?.into_inner().tx_ids)
    }

    pub(crate) async fn freeze(&self, from: i64, to: i64, coin: i64, biz_id: &str) -> Result<String, Status> {
        self.freeze_again(&freeze(from, to, coin, biz_id)).await
    }

    pub(crate) async fn freeze_again(
        &self,
        request: &FreezeUserCoinForGiftRequest,
    ) -> Result<String, Status> {
        Ok(patiently!(self.stub.clone().freeze_user_coin_for_gift(request.clone()))?.into_inner().tx_id)
    }

    pub(crate) async fn confirm(&self, tx_id: &str) -> Result<CompleteTransactionResponse, Status> {
        self.complete(tx_id, Outcome::Confirm).await
    }

    pub(crate) async fn refund(&self, tx_id: &str) -> Result<CompleteTransactionResponse, Status> {
        self.complete(tx_id, Outcome::Refund).await
    }

    pub(crate) async fn complete(
        &self,
        tx_id: &str,
        outcome: Outcome,
    ) -> Result<CompleteTransactionResponse, Status> {
        let request = CompleteTransactionRequest { tx_id: tx_id.to_owned(), outcome: outcome.into() };
        Ok(patiently!(self.stub.clone().complete_transaction(request.clone()))?.into_inner())
    }

    /// What a user can spend, and what is frozen.
    pub(crate) async fn balance(&self, uid: i64) -> (i64, i64) {
        let response = patiently!(self.stub.clone().get_balance(GetBalanceRequest { uid }));
        let response = response.expect("it answers");
        (response.get_ref().coin, response.get_ref().frozen_coin)
    }

    /// All transactions of a user, the newest first, in pages of this size.
    pub(crate) async fn transactions(&self, uid: i64, page_size: i32) -> Vec<Transaction> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListTransactionsRequest { uid, page_size, page_token };
            let page = patiently!(self.stub.clone().list_transactions(request.clone()));
            let page = page.expect("it answers").into_inner();
            assert!(page.transactions.len() <= page_size as usize, "a page is no longer than asked for");
            all.extend(page.transactions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}

pub(crate) fn operation(to_uid: i64, coin: i64, biz_id: &str) -> AddUserCoinOperation {
    AddUserCoinOperation { to_uid, coin, biz_type: 1, biz_id: biz_id.to_owned(), scene_id: 9 }
}

pub(crate) fn freeze(from_uid: i64, to_uid: i64, coin: i64, biz_id: &str) -> FreezeUserCoinForGiftRequest {
    FreezeUserCoinForGiftRequest {
        from_uid,
        to_uid,
        coin,
        biz_type: 2,
        biz_id: biz_id.to_owned(),
        scene_id: 9,
    }
}

/// A time, to be compared.
pub(crate) fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<(i64, i32)> {
    timestamp.map(|timestamp| (timestamp.seconds, timestamp.nanos))
}
