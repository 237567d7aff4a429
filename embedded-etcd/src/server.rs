//! The server as its users see it: started, listened on, dialled, stopped, restarted, wiped.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};

use crate::hooks::Hooks;
use crate::journal::Journal;
use crate::line::{Io, Line};
use crate::member::Member;
use crate::node::{Identity, Node};
use crate::service::Api;
use crate::settings::Settings;

/// What an in-memory connection holds in each direction before its writer waits.
const MEMORY_BUFFER: usize = 64 * 1024;
/// Connections that were made and wait for the server to take them.
const BACKLOG: usize = 128;
/// How long a listener rests after an accept failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Options of an [`EmbeddedEtcd`].
///
/// # Defaults
/// As a real etcd's: a smallest lease TTL of 2 s, tokens for 5 min, requests of up to 1.5 MiB, transactions of up to
/// 128 operations, a quota of 2 GiB, progress notices every 10 min; random ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    settings: Settings,
    progress_interval: Duration,
    identity: Option<Identity>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { settings: Settings::default(), progress_interval: Duration::from_secs(600), identity: None }
    }
}

impl Builder {
    /// The smallest TTL that is granted, in seconds; shorter wishes are raised to it.
    #[must_use]
    pub fn min_lease_ttl(mut self, seconds: i64) -> Self {
        self.settings.min_ttl = seconds;
        self
    }

    /// How long a token lives after it was used last, as `--auth-token-ttl`.
    #[must_use]
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.settings.token_ttl = ttl.min(Duration::from_secs(365 * 24 * 3600));
        self
    }

    /// The largest write, in bytes, as `--max-request-bytes`; 512 KiB more is too large for a message.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_request_bytes = bytes;
        self
    }

    /// The most compares, and operations in each branch, of a transaction, as `--max-txn-ops`.
    #[must_use]
    pub fn max_txn_ops(mut self, operations: usize) -> Self {
        self.settings.max_txn_ops = operations;
        self
    }

    /// What the store may hold, in bytes, as `--quota-backend-bytes`: a write beyond raises the alarm NOSPACE, which
    /// refuses puts and grants until it is disarmed.
    #[must_use]
    pub fn quota_bytes(mut self, bytes: u64) -> Self {
        self.settings.quota_bytes = bytes;
        self
    }

    /// How often watchers that asked for progress notices and heard nothing else get one; 1 ms at least.
    #[must_use]
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        // No interval at all, and one that overflows the clock, would panic each stream's task.
        self.progress_interval =
            interval.clamp(Duration::from_millis(1), Duration::from_secs(365 * 24 * 3600));
        self
    }

    /// The ids that the server gives itself in every answer.
    #[must_use]
    pub fn identity(mut self, cluster_id: u64, member_id: u64) -> Self {
        self.identity = Some(Identity { cluster_id, member_id });
        self
    }

    /// Starts the server. It is reached by [`EmbeddedEtcd::dial`], and over TCP after [`EmbeddedEtcd::listen`].
    pub async fn start(self) -> EmbeddedEtcd {
        tracing::warn!("embedded etcd: in memory only, for demos and tests; use a real etcd in production");
        let node = Node::new(self.identity.unwrap_or_else(Identity::random), self.settings.clone());
        self.start_with(node, None)
    }

    /// Starts the server with what a folder holds, which is made if it is not there, and keeps all that changes in
    /// it. As after a restart of a real etcd every lease has its full TTL again, and watchers may start in the past.
    ///
    /// # Errors
    /// When the folder cannot be read or written, another process has it, or its file is damaged. A record that a
    /// crash tore is no damage: it is cut off, and the log says so.
    pub async fn open(mut self, folder: impl AsRef<Path>) -> io::Result<EmbeddedEtcd> {
        tracing::warn!("embedded etcd: a single node for demos and tests; use a real etcd in production");
        self.settings.kept = true;
        let (mut journal, records) = Journal::open(folder.as_ref())?;
        let mut node = Node::new(self.identity.unwrap_or_else(Identity::random), self.settings.clone());
        let now = tokio::time::Instant::now().into_std();
        node.restore(records, now).map_err(|misfit| io::Error::new(io::ErrorKind::InvalidData, misfit))?;
        if let Some(identity) = self.identity {
            node.identity = identity;
        }
        journal.rewrite(&node.dump())?;
        Ok(self.start_with(node, Some(journal)))
    }

    fn start_with(self, node: Node, journal: Option<Journal>) -> EmbeddedEtcd {
        let member = Arc::new(Member::new(node, self.settings, self.progress_interval, journal));
        let shared = Arc::new(Shared { member, run: Mutex::new(None) });
        let etcd = EmbeddedEtcd { shared };
        etcd.run();
        etcd
    }
}

/// An etcd in this process. Dropping it ends it.
#[derive(Debug)]
pub struct EmbeddedEtcd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    member: Arc<Member>,
    run: Mutex<Option<Run>>,
}

/// From one start to the next stop: its number, its tasks, and where its connections come in.
#[derive(Debug, Clone)]
struct Run {
    number: u64,
    incoming: mpsc::Sender<Line>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl EmbeddedEtcd {
    /// Starts one with the default options. Must be called within a tokio runtime.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Options first.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Listens on a TCP address too; port 0 takes a free one. Gives the address, which is kept over restarts.
    ///
    /// # Errors
    /// When the address cannot be bound, or the server is stopped.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let run = self.shared.run().clone().ok_or_else(stopped)?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        lock(&self.shared.member.addresses).push(address);
        self.accept(&run, listener);
        Ok(address)
    }

    /// Connects without a socket: the client's end of a connection.
    ///
    /// # Errors
    /// `ConnectionRefused` while the server is stopped.
    pub async fn dial(&self) -> io::Result<DuplexStream> {
        self.shared.dial().await
    }

    /// The same as a value of its own, for connectors that outlive this borrow.
    pub fn dialer(&self) -> Dialer {
        Dialer { shared: self.shared.clone() }
    }

    /// A tonic channel over in-memory connections, which connects again when it must.
    pub fn channel(&self) -> Channel {
        let dialer = self.dialer();
        Endpoint::from_static("http://embedded.etcd").connect_with_connector_lazy(tower::service_fn(
            move |_: http::Uri| {
                let dialer = dialer.clone();
                async move { dialer.dial().await.map(TokioIo::new) }
            },
        ))
    }

    /// An `etcd_client::Client` over in-memory connections.
    ///
    /// # Errors
    /// Whatever etcd-client refuses.
    pub async fn client(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        etcd_client::Client::from_channel(etcd_client::Channel::Tonic(self.channel()), None).await
    }

    /// What can be made to go wrong.
    pub fn hooks(&self) -> Hooks {
        Hooks::new(self.shared.member.clone())
    }

    /// Ends all connections at once, as a killed process does, and waits until nothing of it runs. The data
    /// stay for [`restart`](Self::restart).
    ///
    /// # Cancel safety
    /// When dropped early the server is stopped all the same; only the waiting ends.
    pub async fn stop(&self) {
        if let Some(run) = self.shared.cut() {
            run.tasks.wait().await;
        }
    }

    /// Stops, if it runs, and starts again with the data it has, on the addresses it had. As after a restart of a
    /// real etcd the raft term is higher and every lease has its full TTL again.
    ///
    /// # Errors
    /// When an address cannot be bound again; the others are served.
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        let run = self.run();
        let addresses = lock(&self.shared.member.addresses).clone();
        let mut result = Ok(());
        for address in addresses {
            match TcpListener::bind(address).await {
                Ok(listener) => self.accept(&run, listener),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Throws all data away; stops first, if it runs. What [`restart`](Self::restart) then starts is empty and
    /// has the same ids, as a real etcd on a new disk.
    pub async fn wipe(&self) {
        self.stop().await;
        let member = &self.shared.member;
        member.with(|node, _| *node = Node::new(node.identity, member.settings.clone()));
        member.save_all();
    }

    /// As [`wipe`](Self::wipe), but with other cluster and member ids.
    pub async fn wipe_to_another_cluster(&self) {
        self.wipe().await;
        self.shared.member.with(|node, _| node.identity = Identity::random());
        self.shared.member.save_all();
    }

    /// Becomes leader and starts the tasks of one run.
    fn run(&self) -> Run {
        let (incoming, lines) = mpsc::channel(BACKLOG);
        let member = self.shared.member.clone();
        member.with(|node, now| node.lead(now));
        member.faults.send_modify(|faults| faults.running = true);
        let run = Run {
            number: member.faults.borrow().run,
            incoming,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        // Both tasks below are owned by the run's tracker and end with its token.
        let expiry = member.clone();
        run.tasks
            .spawn(run.stop.clone().run_until_cancelled_owned(async move { expiry.expire_leases().await }));
        let router = Api { member, streams: run.tasks.clone() }.router();
        let lines = ReceiverStream::new(lines).map(io::Result::Ok);
        run.tasks.spawn(run.stop.clone().run_until_cancelled_owned(async move {
            if let Err(error) = router.serve_with_incoming(lines).await {
                tracing::error!(%error, "embedded etcd stopped serving");
            }
        }));
        *self.shared.run() = Some(run.clone());
        run
    }

    fn accept(&self, run: &Run, listener: TcpListener) {
        // Owned by the run's tracker, ends with its token; what it accepts waits in a bounded backlog.
        let (shared, owned) = (self.shared.clone(), run.clone());
        run.tasks.spawn(run.stop.clone().run_until_cancelled_owned(async move {
            let mut faults = shared.member.faults.subscribe();
            loop {
                // Fails only once the sender is gone, and the member holds it.
                let _ = faults.wait_for(|faults| !faults.frozen).await;
                match listener.accept().await {
                    Ok((stream, _)) => shared.take(&owned, stream).await,
                    Err(error) => {
                        tracing::warn!(%error, "embedded etcd cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }));
    }
}

impl Drop for EmbeddedEtcd {
    fn drop(&mut self) {
        self.shared.cut();
        // Tasks may still be on their way to their ends; nobody hears of what they do.
        self.shared.member.close();
    }
}

impl Shared {
    fn run(&self) -> MutexGuard<'_, Option<Run>> {
        lock(&self.run)
    }

    /// Stops what runs: its lines are cut, its tasks told to end.
    fn cut(&self) -> Option<Run> {
        let run = self.run().take()?;
        self.member.faults.send_modify(|faults| {
            faults.run += 1;
            faults.running = false;
        });
        run.stop.cancel();
        run.tasks.close();
        Some(run)
    }

    async fn dial(&self) -> io::Result<DuplexStream> {
        let run = self.run().clone().ok_or_else(stopped)?;
        let (client, server) = tokio::io::duplex(MEMORY_BUFFER);
        run.incoming.send(self.line(&run, Io::Memory(server))).await.map_err(|_| stopped())?;
        Ok(client)
    }

    async fn take(&self, run: &Run, stream: TcpStream) {
        // A connection that is lost already is found out by its first read.
        let _ = stream.set_nodelay(true);
        // Fails only when the run has ended, and with it the connection.
        let _ = run.incoming.send(self.line(run, Io::Tcp(stream))).await;
    }

    fn line(&self, run: &Run, io: Io) -> Line {
        let faults = WatchStream::new(self.member.faults.subscribe());
        Line::new(io, run.number, faults, run.tasks.token())
    }
}

/// Makes in-memory connections to an [`EmbeddedEtcd`]. Cheap to clone; it does not keep the server alive.
#[derive(Debug, Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
}

impl Dialer {
    /// As [`EmbeddedEtcd::dial`].
    ///
    /// # Errors
    /// `ConnectionRefused` while the server is stopped.
    pub async fn dial(&self) -> io::Result<DuplexStream> {
        self.shared.dial().await
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "the embedded etcd is stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
