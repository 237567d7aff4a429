//! An etcd for each test: the embedded one, a real 3.4 and a real 3.5, behind one type.
//!
//! [`etcd_tests!`](crate::etcd_tests) turns one `async fn law(etcd: TestEtcd)` into a module with a test
//! for each of them. A real etcd is a child process in a folder of its own; at most
//! [`REAL_AT_ONCE`] run at a time, however many tests there are. Next: `etcd/real.rs`, and
//! `etcd/binaries.rs`, which finds what `tests/tools/etcd.sh` unpacked.

mod binaries;
mod cluster;
mod peers;
mod real;
mod scrape;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use nix::sys::signal::Signal;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use binaries::{Binary, find};
pub use cluster::Cluster;
use real::Real;
pub use scrape::counted;

use crate::ports::free_port;

/// How many real etcds run at once in one test binary. Each costs about 30 MB and some CPU.
pub const REAL_AT_ONCE: usize = 4;

/// How long one test may take, its turn for a real etcd not counted. A test that hangs fails by this.
const TEST_LIMIT: Duration = Duration::from_secs(180);

static TURNS: Semaphore = Semaphore::const_new(REAL_AT_ONCE);

/// Which etcd a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The in-memory one, on a TCP port.
    Embedded,
    /// A real 3.4.
    Etcd34,
    /// A real 3.5 or newer.
    Etcd35,
    /// A real 3.5.1, known for its faults: a judge of the conformance suite alone, and never owed.
    Etcd351,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Embedded => "embedded etcd",
            Kind::Etcd34 => "etcd 3.4",
            Kind::Etcd35 => "etcd 3.5",
            Kind::Etcd351 => "etcd 3.5.1",
        })
    }
}

/// One running etcd. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct TestEtcd {
    kind: Kind,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Embedded { etcd: EmbeddedEtcd, address: SocketAddr },
    Real { etcd: Box<Real>, _turn: SemaphorePermit<'static> },
}

impl TestEtcd {
    /// The smallest lease TTL, in seconds, that every one of these etcds grants as it is asked for.
    pub const MIN_TTL: i64 = 1;

    /// Starts one and waits until it answers. `None` where the machine has no such etcd.
    pub async fn start_kind(kind: Kind) -> Option<TestEtcd> {
        Self::start_with(kind, &Options::default()).await
    }

    /// The same with options.
    pub async fn start_with(kind: Kind, options: &Options) -> Option<TestEtcd> {
        let node = if kind == Kind::Embedded {
            let builder = EmbeddedEtcd::builder()
                .min_lease_ttl(Self::MIN_TTL)
                .progress_interval(options.progress_interval)
                .token_ttl(options.token_ttl);
            let builder = match options.quota_bytes {
                Some(bytes) => builder.quota_bytes(bytes),
                None => builder,
            };
            let etcd = builder.start().await;
            let address = listen(&etcd).await;
            Node::Embedded { etcd, address }
        } else {
            let binary = find(kind)?;
            let turn = TURNS.acquire().await.expect("the semaphore is never closed");
            Node::Real { etcd: Box::new(Real::start(binary, options).await), _turn: turn }
        };
        Some(TestEtcd { kind, node })
    }

    /// Which one this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The version of a real one as minor and patch, such as (5, 30); `None` for the embedded one, which does as the
    /// newest.
    pub fn version(&self) -> Option<(u32, u32)> {
        match &self.node {
            Node::Embedded { .. } => None,
            Node::Real { etcd, .. } => Some(etcd.version()),
        }
    }

    /// Where it listens, as `host:port`. It stays the same over restarts.
    pub fn address(&self) -> String {
        match &self.node {
            Node::Embedded { address, .. } => address.to_string(),
            Node::Real { etcd, .. } => format!("127.0.0.1:{}", etcd.port()),
        }
    }

    /// Where it listens, as `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where a real one that was started with [`Options::tls`] speaks TLS, as `https://127.0.0.1:port`.
    ///
    /// # Panics
    /// On the embedded etcd, or without that option.
    pub fn tls_url(&self) -> String {
        match &self.node {
            Node::Embedded { .. } => panic!("the embedded etcd has no TLS"),
            Node::Real { etcd, .. } => format!("https://127.0.0.1:{}", etcd.tls_port().expect("asked for")),
        }
    }

    /// The embedded etcd, if this is one, for its hooks.
    pub fn embedded(&self) -> Option<&EmbeddedEtcd> {
        match &self.node {
            Node::Embedded { etcd, .. } => Some(etcd),
            Node::Real { .. } => None,
        }
    }

    /// A client of etcd-client's own making, for tests to look at etcd from outside our code.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.url()], None).await.expect("etcd is up")
    }

    /// Ends it without a goodbye, as SIGKILL does. Its data stay.
    pub async fn kill(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => etcd.stop().await,
            Node::Real { etcd, .. } => etcd.kill(),
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`wipe`](Self::wipe), on its port, and waits until it
    /// answers.
    pub async fn start(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => restart(etcd).await,
            Node::Real { etcd, .. } => etcd.start_again().await,
        }
    }

    /// Kills it, if it runs, and throws its data away. What starts next is empty and, which is the hard
    /// case for clients, has the same cluster id.
    pub async fn wipe(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => etcd.wipe().await,
            Node::Real { etcd, .. } => etcd.wipe(false),
        }
    }

    /// As [`wipe`](Self::wipe), but what starts next has another cluster id.
    pub async fn wipe_to_another_cluster(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => etcd.wipe_to_another_cluster().await,
            Node::Real { etcd, .. } => etcd.wipe(true),
        }
    }

    /// Stops it as SIGSTOP does: connections stay and are silent, new ones get no answer.
    pub fn freeze(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => etcd.hooks().freeze(),
            Node::Real { etcd, .. } => etcd.signal(Signal::SIGSTOP),
        }
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        match &self.node {
            Node::Embedded { etcd, .. } => etcd.hooks().thaw(),
            Node::Real { etcd, .. } => etcd.signal(Signal::SIGCONT),
        }
    }
}

/// How often a port that another process took in between is tried again, and how long apart.
const PORT_TRIES: u32 = 10;
const PORT_PAUSE: Duration = Duration::from_millis(200);

async fn listen(etcd: &EmbeddedEtcd) -> SocketAddr {
    for _ in 0..PORT_TRIES {
        // Not port 0: the system may give such a port to another connection while the etcd is down.
        if let Ok(address) = etcd.listen(([127, 0, 0, 1], free_port()).into()).await {
            return address;
        }
    }
    panic!("no free port for an embedded etcd")
}

async fn restart(etcd: &EmbeddedEtcd) {
    for _ in 0..PORT_TRIES {
        if etcd.restart().await.is_ok() {
            return;
        }
        tokio::time::sleep(PORT_PAUSE).await;
    }
    panic!("the embedded etcd's port was taken")
}

/// What a test may ask of its etcd.
///
/// # Defaults
/// As etcd's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How often quiet watchers that want progress notices get one.
    pub progress_interval: Duration,
    /// Another port of a real etcd, which speaks TLS.
    pub tls: Option<ServerTls>,
    /// Further arguments for a real etcd.
    pub arguments: Vec<String>,
    /// How long a token lives after its last use, in whole seconds.
    pub token_ttl: Duration,
    /// What the store may hold.
    pub quota_bytes: Option<u64>,
}

/// What a real etcd shows on its TLS port, and whose client certificates it demands there: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Its certificate.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// Clients have to show a certificate that this CA has signed.
    pub clients: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_secs(600),
            tls: None,
            arguments: Vec::new(),
            token_ttl: Duration::from_secs(300),
            quota_bytes: None,
        }
    }
}

/// Runs one law on one kind of etcd; what [`etcd_tests!`](crate::etcd_tests) expands to.
///
/// # Panics
/// When the law does, when it takes too long, or when there is no such etcd and `CI=true`.
pub fn run<F>(kind: Kind, options: &Options, law: impl FnOnce(TestEtcd) -> F)
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(async {
        let Some(etcd) = TestEtcd::start_with(kind, options).await else {
            let why = format!("no {kind} here: run `make tools`, or name one in ETCD_BINS");
            if kind == Kind::Etcd351 {
                return eprintln!("not tested: {why}");
            }
            return crate::tools::missing(&why);
        };
        // Boxed, since a whole test is a large future.
        let law = Box::pin(law(etcd));
        tokio::time::timeout(TEST_LIMIT, law).await.expect("the test hangs");
    });
}

/// Runs one law on a cluster of three.
///
/// # Panics
/// As [`run`].
pub fn run_cluster<F>(kind: Kind, law: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    run_cluster_within(TEST_LIMIT, kind, law);
}

/// The same for a law that takes longer.
///
/// # Panics
/// As [`run`], by this limit.
pub fn run_cluster_within<F>(limit: Duration, kind: Kind, law: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(async {
        let Some(cluster) = Cluster::start(kind).await else {
            return crate::tools::missing(&format!(
                "no {kind} here: run `make tools`, or name one in ETCD_BINS"
            ));
        };
        let law = Box::pin(law(cluster));
        tokio::time::timeout(limit, law).await.expect("the test hangs");
    });
}

/// Makes, of each `async fn name(etcd: TestEtcd) { .. }`, a module of that name with a test for each etcd:
/// `name::embedded`, `name::etcd_3_4` and `name::etcd_3_5`.
///
/// A real etcd that the machine does not have is named on stderr and passes, except with `CI=true`.
///
/// ```no_run
/// use svc_tests::etcd::TestEtcd;
///
/// svc_tests::etcd_tests! {
///     async fn what_is_put_is_read(etcd: TestEtcd) {
///         etcd.client().await.put("k", "v", None).await.unwrap();
///     }
/// }
/// ```
#[macro_export]
macro_rules! etcd_tests {
    ($($(#[$meta:meta])* async fn $name:ident($etcd:ident: $type:ty) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "a law may need nothing from around it")]
            use super::*;

            async fn law($etcd: $type) $body

            #[test]
            fn embedded() {
                $crate::etcd::run($crate::etcd::Kind::Embedded, &Default::default(), law);
            }

            #[test]
            fn etcd_3_4() {
                $crate::etcd::run($crate::etcd::Kind::Etcd34, &Default::default(), law);
            }

            #[test]
            fn etcd_3_5() {
                $crate::etcd::run($crate::etcd::Kind::Etcd35, &Default::default(), law);
            }
        }
    )*};
}
