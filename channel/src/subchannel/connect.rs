//! How bytes reach an endpoint: [`Connect`] makes one transport to one address. TCP and unix sockets by default;
//! tests and simulations bring their own. Next is `connection.rs`, which speaks HTTP/2 over it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::endpoint::Address;

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A transport, of whatever kind.
pub type BoxIo = Box<dyn Io>;

/// A connect attempt under way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxIo>> + Send>>;

/// The look-up of a name under way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<Address>>> + Send>>;

/// Makes transports. Called by the channel's owner, once per attempt, never on the path of a request; it must not
/// block. The attempt is dropped when its part of the channel's connect timeout is over.
///
/// ```
/// use svc_channel::{BoxIo, Channel, connector_fn};
/// // An in-memory transport for tests: hand `server` to a tonic server's `serve_with_incoming`.
/// let connector = connector_fn(|_address| async {
///     let (client, server) = tokio::io::duplex(64 * 1024);
///     drop(server);
///     Ok(Box::new(client) as BoxIo)
/// });
/// let builder = Channel::builder().connector(connector);
/// # drop(builder);
/// ```
pub trait Connect: Send + Sync + 'static {
    /// Starts an attempt to reach `address`.
    fn connect(&self, address: &Address) -> Connecting;

    /// The addresses that stand behind one, to be tried in this order, each with a fair part of the time; asked before
    /// each attempt. The address itself by default.
    fn resolve(&self, address: &Address) -> Resolving {
        Box::pin(std::future::ready(Ok(vec![address.clone()])))
    }
}

/// A [`Connect`] from a closure.
pub fn connector_fn<F, Fut>(connect: F) -> impl Connect
where
    F: Fn(Address) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<BoxIo>> + Send + 'static,
{
    ConnectorFn(connect)
}

struct ConnectorFn<F>(F);

impl<F, Fut> Connect for ConnectorFn<F>
where
    F: Fn(Address) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<BoxIo>> + Send + 'static,
{
    fn connect(&self, address: &Address) -> Connecting {
        Box::pin((self.0)(address.clone()))
    }
}

impl<F> fmt::Debug for ConnectorFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connector_fn")
    }
}

/// Between keepalive probes that nobody answers.
#[cfg(any(target_os = "linux", target_os = "macos", windows))]
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// TCP and unix sockets: the default.
///
/// # Defaults
/// `TCP_NODELAY` on (a call is a small write that waits for an answer); keepalive probes after 30 s of silence (they
/// keep NAT entries alive), then every 10 s, so that a dead path is known within a minute rather than in two hours;
/// `TCP_USER_TIMEOUT` 20 s on Linux (data, or probes, that stay unacknowledged for so long end the connection, gRFC
/// A18). They are set on TCP alone: behind a unix socket is no path that could die.
#[derive(Clone, Debug)]
pub struct SocketConnector {
    /// How long the path may be silent before the kernel probes it.
    pub keepalive: Option<Duration>,
    /// How long sent data may stay unacknowledged (Linux).
    pub user_timeout: Option<Duration>,
}

impl Default for SocketConnector {
    fn default() -> Self {
        Self { keepalive: Some(Duration::from_secs(30)), user_timeout: Some(Duration::from_secs(20)) }
    }
}

impl Connect for SocketConnector {
    fn connect(&self, address: &Address) -> Connecting {
        let options = self.clone();
        match address.clone() {
            Address::Tcp(authority) => Box::pin(async move {
                let stream = TcpStream::connect(authority.as_str()).await?;
                options.apply(&stream)?;
                Ok(Box::new(stream) as BoxIo)
            }),
            #[cfg(unix)]
            Address::Unix(path) => {
                Box::pin(async move { Ok(Box::new(tokio::net::UnixStream::connect(path).await?) as BoxIo) })
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Box::pin(async {
                Err(io::Error::new(io::ErrorKind::Unsupported, "unix sockets exist on unix only"))
            }),
        }
    }

    /// Asks the system's resolver for host names, and keeps its order.
    fn resolve(&self, address: &Address) -> Resolving {
        let address = address.clone();
        Box::pin(async move {
            let Address::Tcp(authority) = &address else { return Ok(vec![address]) };
            let host = authority.host();
            if host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok() {
                return Ok(vec![address]);
            }
            let mut found: Vec<Address> = Vec::new();
            for socket in tokio::net::lookup_host(authority.as_str()).await? {
                // One that cannot be written as an authority (a scoped IPv6 address) cannot be told from the name.
                let one = socket.to_string().parse().unwrap_or_else(|_| address.clone());
                if !found.contains(&one) {
                    found.push(one);
                }
            }
            Ok(found)
        })
    }
}

impl SocketConnector {
    fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(stream);
        if let Some(idle) = self.keepalive {
            let keepalive = socket2::TcpKeepalive::new().with_time(idle);
            #[cfg(any(target_os = "linux", target_os = "macos", windows))]
            let keepalive = keepalive.with_interval(PROBE_INTERVAL);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_options_of_a_socket_are_as_documented() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connected = async |connector: SocketConnector| {
            let stream = TcpStream::connect(address).await.expect("a connection");
            connector.apply(&stream).expect("the options are known here");
            stream
        };
        let stream = connected(SocketConnector::default()).await;
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(30));
            assert_eq!(socket.tcp_keepalive_interval().expect("an option"), PROBE_INTERVAL);
            assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(20)));
        }
        let stream = connected(SocketConnector { keepalive: None, user_timeout: None }).await;
        let socket = socket2::SockRef::from(&stream);
        assert!(!socket.keepalive().expect("an option"));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("an option").unwrap_or_default(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_literal_address_is_not_looked_up_and_a_name_is() {
        let resolved = async |text: &str| {
            let address: Address = text.parse().expect("an address");
            SocketConnector::default().resolve(&address).await.expect("addresses")
        };
        for literal in ["127.0.0.1:1", "[::1]:1", "unix:/a"] {
            assert_eq!(resolved(literal).await, [literal.parse().expect("an address")]);
        }
        let found = resolved("localhost:1").await;
        assert!(found.iter().all(|a| ["127.0.0.1:1", "[::1]:1"].contains(&&*a.to_string())), "{found:?}");
        assert!(!found.is_empty());
    }
}
