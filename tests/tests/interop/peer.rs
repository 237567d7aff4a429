//! A server of the cases, of either kind, and the run of one case on it.

use std::path::PathBuf;
use std::process::Stdio;

use svc_channel::{Channel, Endpoint};
use svc_tests::backends::PATIENCE;
use svc_tests::tools;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::tonic_peer::{self, TonicPeer};

/// Whose server a case runs against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tonic,
    Grpcio,
}

/// A running server. Its drop ends it.
pub(crate) enum Peer {
    Tonic(TonicPeer),
    Grpcio(Box<PythonPeer>),
}

/// `server.py` in a process of its own.
pub(crate) struct PythonPeer {
    said: Lines<BufReader<ChildStdout>>,
    port: String,
    /// It ends when this does, in whatever way we end.
    _stdin: ChildStdin,
    _child: Child,
}

impl Peer {
    /// Starts one; `None` where the machine has not what it takes.
    async fn start(kind: Kind) -> Option<Peer> {
        match kind {
            Kind::Tonic => Some(Peer::Tonic(tonic_peer::start().await)),
            Kind::Grpcio => Some(Peer::Grpcio(Box::new(PythonPeer::start().await?))),
        }
    }

    fn address(&self) -> String {
        match self {
            Peer::Tonic(peer) => peer.address.to_string(),
            Peer::Grpcio(peer) => format!("127.0.0.1:{}", peer.port),
        }
    }

    /// Waits until a call of `method` is with its handler.
    pub(crate) async fn until_begun(&mut self, method: &str) {
        self.until(&format!("began {method}")).await;
    }

    /// Waits until the handler of `method` has seen that its client has gone.
    pub(crate) async fn until_left(&mut self, method: &str) {
        self.until(&format!("left {method}")).await;
    }

    async fn until(&mut self, wanted: &str) {
        let mut heard = vec![];
        let found = patiently(async {
            loop {
                let said = match self {
                    Peer::Tonic(peer) => peer.said.recv().await,
                    Peer::Grpcio(peer) => peer.said.next_line().await.expect("its stdout can be read"),
                };
                match said {
                    Some(said) if said == wanted => return true,
                    Some(said) => heard.push(said),
                    None => return false,
                }
            }
        });
        assert!(found.await, "the server ended without saying {wanted:?}; it said {heard:?}");
    }
}

impl PythonPeer {
    async fn start() -> Option<PythonPeer> {
        let python = tools::folder().join("python").join("bin").join("python");
        if !python.exists() {
            return None;
        }
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/server.py");
        let mut child = Command::new(&python)
            .arg(script)
            .arg(concat!(env!("OUT_DIR"), "/grpc_testing.bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Python of `make tools` can be started");
        let stdin = child.stdin.take().expect("it is piped");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let port = patiently(said.next_line()).await.expect("its stdout can be read");
        let port = port.expect("server.py ended before it said its port: its stderr says why");
        Some(PythonPeer { said, port, _stdin: stdin, _child: child })
    }
}

/// Awaits what the case has caused.
///
/// # Panics
/// If that takes more than half a minute.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what the case waits for comes")
}

/// Runs a case against a server of its own.
///
/// # Panics
/// When the case does, and where the server cannot be had with `CI=true`.
pub(crate) fn run(kind: Kind, case: impl AsyncFnOnce(&Channel, &mut Peer)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    // Boxed, since a whole case is a large future.
    runtime.block_on(Box::pin(async {
        let Some(mut peer) = Peer::start(kind).await else {
            return tools::missing(
                "no Python with grpcio here: run `make tools`, which says why if it cannot be had",
            );
        };
        let channel =
            Channel::fixed([Endpoint::new(peer.address()).expect("an address that can be dialled")]);
        case(&channel, &mut peer).await;
        let idle = patiently(async {
            while channel.dump().endpoints.iter().any(|endpoint| endpoint.in_flight > 0) {
                tokio::task::yield_now().await;
            }
        });
        idle.await; // no case leaves a call behind
    }));
}
