//! A ledger, gift services over a database of their own, in this process or as processes, and calls with little
//! writing.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use demo_services::balance::ledger::{MAX, Share};
use demo_services::balance::{self, Balance};
use demo_services::gift::{Courier, Gift, Store, Sweeper, Terms};
use demo_services::telemetry::Observe;
use svc_channel::{Channel, Endpoint};
use svc_proto::balance::v1::balance_client::BalanceClient;
use svc_proto::balance::v1::balance_server::BalanceServer;
use svc_proto::balance::v1::{AddUserCoinOperation, BatchAddUserCoinRequest, GetBalanceRequest};
use svc_proto::gift::v1::gift_client::GiftClient;
use svc_proto::gift::v1::gift_server::GiftServer;
use svc_proto::gift::v1::{
    GetSendingRequest, ListGiftsRequest, ReceiptState, SendGiftRequest, Sending, SendingState,
    WatchGiftsRequest, WatchGiftsResponse,
};
use svc_tests::ports::free_port;
use svc_tests::process::Process;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Code, Request, Status, Streaming};

pub(crate) use svc_tests::database::Database;
pub(crate) use svc_tests::database_tests;

use crate::binaries::folder;

/// Longer than anything that is waited for here.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The gift that is sent here, and what it costs: seven go to the receiver, three to the house.
pub(crate) const ROSE: i64 = 1;
pub(crate) const PRICE: i64 = 10;

/// Has enough coins to begin with.
pub(crate) const RICH: i64 = 1;
/// Receives.
pub(crate) const ADA: i64 = 2;
/// Has an account that is full: it can be delivered to, and not paid.
pub(crate) const FULL: i64 = 3;
/// Has nothing.
pub(crate) const POOR: i64 = 4;

/// What [`RICH`] has to begin with.
pub(crate) const COINS: i64 = 100_000;

/// Runs one law on one database; what has to be built first is no part of its time.
pub(crate) fn run<F: Future<Output = ()>>(is_postgres: bool, law: impl FnOnce(Database) -> F) {
    folder();
    svc_tests::database::run(is_postgres, law);
}

/// A ledger, and a balance over it in this process; its drop ends both.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) database: Database,
    pub(crate) address: SocketAddr,
    stub: BalanceClient<tonic::transport::Channel>,
    _serving: Serving,
}

/// A balance that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    _server: AbortOnDropHandle<()>,
    _sweeper: balance::Sweeper,
}

/// Serves the ledger in this database; what is frozen expires after `limit`.
pub(crate) async fn serve_balance(database: &Database, listener: TcpListener, limit: Duration) -> Serving {
    let store = balance::Store::open(&database.url()).await.expect("it opens");
    let terms = balance::Terms { share: Share::percent(70).expect("a share"), limit };
    let service = BalanceServer::new(Balance::new(store.clone(), terms));
    let serving = Server::builder().add_service(service);
    let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
    let server = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.expect("it serves") }));
    Serving { _server: server, _sweeper: balance::Sweeper::start(store, Duration::from_millis(20)) }
}

impl Ledger {
    /// With [`RICH`] and [`FULL`] as they are said to be.
    pub(crate) async fn start() -> Ledger {
        Ledger::limited(Duration::from_secs(600)).await
    }

    /// The same; what is frozen expires after `limit`.
    pub(crate) async fn limited(limit: Duration) -> Ledger {
        let database = Database::sqlite();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let serving = serve_balance(&database, listener, limit).await;
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}"));
        let stub = BalanceClient::new(channel.expect("an address").connect_lazy());
        let ledger = Ledger { database, address, stub, _serving: serving };
        ledger.add(RICH, COINS).await;
        ledger.add(FULL, MAX).await;
        ledger
    }

    /// Issues coins to a user, once.
    pub(crate) async fn add(&self, to_uid: i64, coin: i64) {
        let biz_id = format!("in/{to_uid}/{coin}");
        let operations = vec![AddUserCoinOperation { to_uid, coin, biz_type: 0, biz_id, scene_id: 0 }];
        let added = self.stub.clone().batch_add_user_coin(BatchAddUserCoinRequest { operations }).await;
        added.expect("they are issued");
    }

    /// What a user can spend, and what is frozen.
    pub(crate) async fn has(&self, uid: i64) -> (i64, i64) {
        let has = self.stub.clone().get_balance(GetBalanceRequest { uid }).await.expect("it answers");
        (has.get_ref().coin, has.get_ref().frozen_coin)
    }

    /// No coin is lost or made, none is frozen any more, and exactly `roses` have been paid for.
    pub(crate) async fn has_paid_for(&self, roses: i64) {
        let figures = self.database.is_sound().await;
        assert_eq!((figures.frozen, figures.house), (0, i128::from(roses * 3)), "{figures}");
        assert_eq!(self.has(RICH).await, (COINS - roses * PRICE, 0));
    }
}

/// A channel to this balance alone, as gift services have one.
pub(crate) fn channel(balance: SocketAddr) -> Channel {
    Channel::fixed([Endpoint::new(balance.to_string()).expect("an address")])
}

/// Terms whose claims are over soon.
pub(crate) fn soon() -> Terms {
    Terms { claim: Duration::from_millis(500), ..Terms::default() }
}

/// A gift service in this process. Its drop ends what is served and swept; what it carries goes on.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) client: Client,
    pub(crate) courier: Courier,
    pub(crate) stopping: CancellationToken,
    _server: AbortOnDropHandle<()>,
    sweeper: Option<Sweeper>,
}

impl Instance {
    pub(crate) async fn start(database: &Database, balance: SocketAddr) -> Instance {
        Instance::start_with(database, balance, soon()).await
    }

    pub(crate) async fn start_with(database: &Database, balance: SocketAddr, terms: Terms) -> Instance {
        let store = Store::open(&database.url()).await.expect("it opens");
        let courier = Courier::new(store, channel(balance), terms);
        let stopping = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let service = GiftServer::new(Gift::new(courier.clone(), stopping.clone()));
        // The layer that reads the caller's deadline.
        let serving = Server::builder().layer(Observe::new()).add_service(service);
        let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
        let server = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.expect("it serves") }));
        let sweeper = Sweeper::start(courier.clone());
        Instance { client: Client::to(address), courier, stopping, _server: server, sweeper: Some(sweeper) }
    }

    /// The same, which from here on takes nothing over.
    pub(crate) fn without_sweeper(mut self) -> Instance {
        self.sweeper = None;
        self
    }
}

/// A gift service as a process, without an etcd: it is told where balance is.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) process: Process,
    pub(crate) client: Client,
    arguments: Vec<String>,
}

impl Program {
    /// Starts one; with `abort_at` it dies there.
    pub(crate) async fn start(database: &Database, balance: SocketAddr, abort_at: Option<&str>) -> Program {
        let port = free_port();
        let clients = format!(r#"[{{"name": "balance", "target": "static:///{balance}"}}]"#);
        let arguments = [
            ["--listen".to_owned(), format!("127.0.0.1:{port}")],
            ["--database".to_owned(), database.address()],
            ["--grpc-clients".to_owned(), clients],
            ["--claim-limit".to_owned(), "500ms".to_owned()],
            // Where nobody listens.
            ["--endpoints".to_owned(), "127.0.0.1:1".to_owned()],
        ];
        let arguments = arguments.concat();
        let dying = abort_at.map(|point| ["--abort-at".to_owned(), point.to_owned()]);
        let all: Vec<String> = arguments.iter().cloned().chain(dying.into_iter().flatten()).collect();
        let client = Client::to(([127, 0, 0, 1], port).into());
        let program = Program { process: spawn(&all), client, arguments };
        program.serves().await;
        program
    }

    /// Starts it again, without dying anywhere.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.arguments);
        self.serves().await;
    }

    async fn serves(&self) {
        let serves = async {
            while self.client.stub.clone().list_gifts(ListGiftsRequest {}).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, serves).await.expect("it serves");
    }
}

fn spawn(arguments: &[String]) -> Process {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::spawn_unheard(&folder().join("gift"), &arguments)
}

/// Calls of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) stub: GiftClient<tonic::transport::Channel>,
}

impl Client {
    fn to(address: SocketAddr) -> Client {
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}"));
        Client { stub: GiftClient::new(channel.expect("an address").connect_lazy()) }
    }

    /// Sends, and waits for the end however long a busy machine takes for it.
    pub(crate) async fn send(&self, request: SendGiftRequest) -> Result<Sending, Status> {
        self.send_within(request, LIMIT).await
    }

    /// Sends, and has an answer before `limit` is over.
    pub(crate) async fn send_within(
        &self,
        request: SendGiftRequest,
        limit: Duration,
    ) -> Result<Sending, Status> {
        let mut request = Request::new(request);
        request.set_timeout(limit);
        let sent = self.stub.clone().send_gift(request).await?;
        Ok(sent.into_inner().sending.expect("there is one"))
    }

    pub(crate) async fn sending(&self, biz_id: &str) -> Result<Sending, Status> {
        let request = GetSendingRequest { biz_id: biz_id.to_owned() };
        let found = self.stub.clone().get_sending(request).await?;
        Ok(found.into_inner().sending.expect("there is one"))
    }

    /// The sending, once it has ended.
    pub(crate) async fn ended(&self, biz_id: &str) -> Sending {
        let ended = async {
            loop {
                match self.sending(biz_id).await {
                    Ok(sending) if sending.state() == SendingState::Ended => return sending,
                    Err(status) if status.code() != Code::Unavailable => panic!("{status}"),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, ended).await.unwrap_or_else(|_| panic!("{biz_id} does not end"))
    }

    pub(crate) async fn watch(&self, uid: i64, after: Option<i64>) -> Result<Watch, Status> {
        let watch = self.stub.clone().watch_gifts(WatchGiftsRequest { uid, after }).await?;
        Ok(Watch(watch.into_inner()))
    }
}

/// What a user receives.
#[derive(Debug)]
pub(crate) struct Watch(Streaming<WatchGiftsResponse>);

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<WatchGiftsResponse, Status> {
        let next = tokio::time::timeout(LIMIT, self.0.message()).await.expect("something happens");
        Ok(next?.expect("a watch has no end of its own"))
    }

    /// The next gift's position and sending.
    pub(crate) async fn gift(&mut self) -> (i64, String) {
        let gift = self.next().await.expect("it goes on");
        (gift.position, gift.biz_id)
    }
}

/// A rose from one to another.
pub(crate) fn rose(from_uid: i64, to_uid: i64, biz_id: &str) -> SendGiftRequest {
    roses(from_uid, vec![to_uid], biz_id)
}

pub(crate) fn roses(from_uid: i64, to_uids: Vec<i64>, biz_id: &str) -> SendGiftRequest {
    SendGiftRequest { gift_id: ROSE, from_uid, to_uids, biz_id: biz_id.to_owned(), scene_id: 9 }
}

/// How each receiver fared.
pub(crate) fn states(sending: &Sending) -> Vec<ReceiptState> {
    sending.receipts.iter().map(|receipt| receipt.state()).collect()
}

/// How many gifts lie in inboxes, and how many of them that were ever put there.
pub(crate) async fn delivered(gifts: &Database) -> (i64, i64) {
    let stay = gifts.count("SELECT COUNT(*) FROM received WHERE taken_back = 0").await;
    (stay, gifts.count("SELECT COUNT(*) FROM received").await)
}
