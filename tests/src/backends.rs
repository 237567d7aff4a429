//! Greeters for channel tests: each [`Backend`] is a real tonic server on a loopback port, in the test's process,
//! that a test can slow down, hold, stop, start again on its port, or make say GOAWAY, and whose counts it can
//! await. Next: `backends/greeter.rs` (what it answers, and the counts), `backends/serve.rs` (its accept loop).

mod greeter;
mod serve;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use greeter::{Counts, Greeter};
use serve::Control;

/// How long a test waits for something that it has caused. Far more than it takes: a busy machine must not fail it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Limits and timers of the tonic server, set before each start.
type Configure = Arc<dyn Fn(Server) -> Server + Send + Sync>;

/// One greeter. Dropping it cuts its connections and frees its port, and panics if a handler of it has panicked.
pub struct Backend {
    address: SocketAddr,
    greeter: Greeter,
    configure: Configure,
    tls: Acceptor,
    running: Option<Running>,
    /// Bound and never listening: the port is ours from the first bind to the drop, so that no other test is given it
    /// while we are stopped, and whoever connects is refused.
    _port: TcpSocket,
}

/// What new connections are greeted with: TLS, or none.
type Acceptor = Arc<Mutex<Option<Arc<ServerConfig>>>>;

struct Running {
    control: mpsc::Sender<Control>,
    cut: CancellationToken,
    /// Ends by `control` or `cut`.
    task: JoinHandle<()>,
}

impl Backend {
    /// Starts a greeter that answers as `name`.
    pub async fn start(name: &str) -> Backend {
        Self::start_with(name, |server| server).await
    }

    /// The same, with limits and timers of the server set by `configure`.
    pub async fn start_with(
        name: &str,
        configure: impl Fn(Server) -> Server + Send + Sync + 'static,
    ) -> Backend {
        let mut backend = Self::refusing(name);
        backend.configure = Arc::new(configure);
        backend.restart().await;
        backend
    }

    /// Starts a greeter that speaks TLS.
    pub async fn start_tls(name: &str, tls: Arc<ServerConfig>) -> Backend {
        let mut backend = Self::refusing(name);
        backend.set_tls(tls);
        backend.restart().await;
        backend
    }

    /// New connections are greeted with this; those that are up stay.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    /// A backend that has a port and refuses connections, until [`Backend::restart`].
    pub fn refusing(name: &str) -> Backend {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a loopback port");
        Backend {
            address: socket.local_addr().expect("a bound socket has an address"),
            greeter: Greeter::named(name),
            configure: Arc::new(|server| server),
            tls: Acceptor::default(),
            running: None,
            _port: socket,
        }
    }

    /// The name that its answers carry.
    pub fn name(&self) -> &str {
        self.greeter.name()
    }

    /// Where it listens, as `host:port`; the same over restarts.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Listens again on its port. Counts go on where they were.
    ///
    /// # Panics
    /// If it is serving.
    pub async fn restart(&mut self) {
        assert!(self.running.is_none(), "{} is serving already", self.name());
        let listener = self.listen().await;
        let (control, commands) = mpsc::channel(1);
        let cut = CancellationToken::new();
        let configure = self.configure.clone();
        let tls = self.tls.clone();
        let serving = serve::serve(listener, self.greeter.clone(), commands, cut.clone(), tls, move || {
            configure(Server::builder())
        });
        self.running = Some(Running { control, cut, task: tokio::spawn(serving) });
    }

    async fn listen(&self) -> TcpListener {
        let begun = Instant::now();
        loop {
            match bind(self.address).and_then(|socket| socket.listen(1024)) {
                Ok(listener) => return listener,
                // A child that is being started by another test has our former listener until it executes its program.
                Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => panic!("{} cannot listen: {error}", self.name()),
            }
        }
    }

    /// Cuts every connection and refuses new ones: what its peers see when the process dies.
    pub async fn stop(&mut self) {
        let running = self.running();
        running.cut.cancel();
        running.task.await.expect("the accept loop does not panic");
    }

    /// Refuses new connections, sends GOAWAY on all and returns when the last has ended by itself.
    pub async fn stop_gracefully(&mut self) {
        let running = self.running();
        running.control.send(Control::Drain).await.expect("it was serving");
        running.task.await.expect("the accept loop does not panic");
    }

    /// Sends GOAWAY on every connection and goes on accepting new ones.
    pub async fn goaway(&self) {
        let Some(running) = &self.running else { panic!("{} is stopped", self.name()) };
        running.control.send(Control::Goaway).await.expect("it is serving");
    }

    fn running(&mut self) -> Running {
        let Some(running) = self.running.take() else { panic!("{} is stopped already", self.name()) };
        running
    }
}

/// What it does and what it has counted: see [`Greeter`].
impl Deref for Backend {
    type Target = Greeter;

    fn deref(&self) -> &Greeter {
        &self.greeter
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {:?}", self.name(), self.address, self.counts())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.cut.cancel();
            running.task.abort();
        }
        let panicked = self.counts().panics;
        if !std::thread::panicking() {
            assert_eq!(panicked, 0, "handlers of {} panicked", self.name());
        }
    }
}

/// Several backends, named `b0`, `b1` and so on.
#[derive(Debug)]
pub struct Fleet(Vec<Backend>);

impl Fleet {
    /// Starts `count` of them.
    pub async fn start(count: usize) -> Fleet {
        Self::start_with(count, |server| server).await
    }

    /// The same, each with limits and timers set by `configure`.
    pub async fn start_with(
        count: usize,
        configure: impl Fn(Server) -> Server + Send + Sync + Clone + 'static,
    ) -> Fleet {
        let mut fleet = Vec::with_capacity(count);
        for number in 0..count {
            fleet.push(Backend::start_with(&format!("b{number}"), configure.clone()).await);
        }
        Fleet(fleet)
    }

    /// These, as a fleet.
    pub fn of(backends: Vec<Backend>) -> Fleet {
        Fleet(backends)
    }

    /// Their addresses, in order.
    pub fn addresses(&self) -> Vec<String> {
        self.0.iter().map(Backend::address).collect()
    }

    /// How many unary calls each has had, in order.
    pub fn calls(&self) -> Vec<u64> {
        self.0.iter().map(|backend| backend.counts().calls).collect()
    }

    /// How many connections they have accepted, all together.
    pub fn accepted(&self) -> u64 {
        self.0.iter().map(|backend| backend.counts().accepted).sum()
    }
}

impl Deref for Fleet {
    type Target = [Backend];

    fn deref(&self) -> &[Backend] {
        &self.0
    }
}

impl std::ops::DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut [Backend] {
        &mut self.0
    }
}

/// Binds without listening. With `SO_REUSEADDR` a port may be bound twice so long as nobody listens on it yet; connections
/// of an earlier start that are in TIME_WAIT do not stand in the way either.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    // What Linux grants for SO_REUSEADDR others grant for this.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}
