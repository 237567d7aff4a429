//! `Etcd`: the handle that everything else in this crate talks to etcd through.
//!
//! Made at once, without waiting for a connection; behind it two connections live and heal: one for unary calls
//! and bulk reads, one for watch and keepalive streams, so that a large list never delays an event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, KvClient, LeaseClient, WatchClient};
use futures_util::FutureExt;
use svc_channel::{Channel, Endpoint, KeepAlive, Peer, RoundRobin, ServiceConfig};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::config::EtcdConfig;
use super::error::{classify, etcd_error, stream_error};
use super::members::{Inner, Members};
use super::named::shown;
use super::token::Tokens;
use super::transport::Transport;
use crate::backoff::LONGEST;
use crate::error::{Error, Kind};
use crate::keys::Prefix;

/// The largest answer that we decode. etcd's own limit for a request is 1.5 MiB by default, but a list or a
/// watch catching up may be many times that, and an answer too large to decode would fail for ever.
const RECEIVE_LIMIT: usize = 64 << 20;

/// The longest wait between two attempts to connect to a member. An etcd that comes back gives every lease its full
/// time to live, at least 2 s: it has to be found, and the leases renewed, well within that.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A silent connection with calls or streams on it is found within the sum of these. etcd refuses PINGs that come
/// more often than each 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_LIMIT: Duration = Duration::from_secs(5);

/// etcd's word for a right that the user lacks.
const DENIED: &str = "permission denied";

/// A member that says nothing for so long while calls wait for it is asked by a PING, and where it says nothing for as long
/// again calls go elsewhere, until it answers. Those under way are left to their time: it may only be slow.
const SILENCE: Duration = Duration::from_millis(500);

/// How long [`Etcd::ready`] waits between two attempts.
const READY_PAUSE: Duration = Duration::from_millis(100);

/// A handle on an etcd cluster; cheap to clone.
///
/// Creating one never blocks and never fails because etcd is away: it connects, and connects again, behind.
///
/// ```no_run
/// # async fn example() -> Result<(), svc_registry::Error> {
/// use svc_registry::Etcd;
/// let etcd = Etcd::from_env()?;
/// etcd.ready(std::time::Duration::from_secs(5)).await?; // only for those who want to fail fast
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Etcd {
    inner: Arc<Parts>,
}

struct Parts {
    config: EtcdConfig,
    endpoints: String,
    runtime: Handle,
    bulk: Client,
    /// The same for writes that may be done twice.
    guarded: Client,
    streams: Client,
    /// Under `streams`, for those that want to know where theirs goes.
    streaming: Transport,
    tokens: Option<Arc<Tokens>>,
}

impl Etcd {
    /// A handle for this configuration. Must be called within a tokio runtime, which carries its connections.
    ///
    /// # Errors
    /// Called outside a tokio runtime.
    pub fn new(config: EtcdConfig) -> Result<Etcd, Error> {
        let runtime = Handle::try_current().map_err(|_| {
            Error::config("runtime", "no tokio runtime here; call this inside #[tokio::main]")
        })?;
        let members = config.endpoints().len();
        let limit = config.command_timeout();
        let bulk = Members::new(connect(&config, "etcd", Some(SILENCE))?, members);
        let tokens = config.user().map(|user| Tokens::new(user.clone(), bulk.clone(), limit));
        let unary = Transport::new(bulk, Some(limit), tokens.clone());
        let streams = Members::new(connect(&config, "etcd streams", None)?, members);
        let streams = Transport::new(streams, None, tokens.clone());
        Ok(Etcd {
            inner: Arc::new(Parts {
                endpoints: config.endpoints().join(","),
                runtime,
                guarded: client(unary.guarded())?,
                bulk: client(unary)?,
                streams: client(streams.clone())?,
                streaming: streams,
                tokens,
                config,
            }),
        })
    }

    /// A handle for what the environment says ([`EtcdConfig::from_env`]).
    ///
    /// # Errors
    /// A wrong value in the environment, or no tokio runtime.
    pub fn from_env() -> Result<Etcd, Error> {
        Etcd::new(EtcdConfig::from_env()?)
    }

    /// Waits until etcd answers a linearizable read, at most `within`.
    ///
    /// # Errors
    /// Not answered in time ([`Error::is_unreachable`]); refused credentials at once.
    pub async fn ready(&self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within.min(LONGEST);
        let key = self.prefix().to_string();
        let mut last = None;
        loop {
            let mut kv = self.kv();
            let read = kv.get(key.as_str(), Some(GetOptions::new().with_count_only()));
            match tokio::time::timeout_at(deadline, read).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if classify(&error) == super::Failure::Denied => return Ok(()), // it answers
                Ok(Err(error)) if !classify(&error).is_transient() => {
                    return Err(self.error("waiting for etcd", error));
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => break,
            }
            tokio::time::sleep_until((Instant::now() + READY_PAUSE).min(deadline)).await;
            // A call that fails without waiting never meets the deadline by itself.
            if Instant::now() >= deadline {
                break;
            }
        }
        let doing = format!("waiting {within:?} for etcd");
        Err(match last {
            Some(error) => self.error(&doing, error),
            None => {
                let late = tonic::Status::deadline_exceeded("no answer");
                self.error(&doing, etcd_client::Error::GRpcStatus(late))
            }
        })
    }

    /// The root under which records are kept.
    pub fn prefix(&self) -> &Prefix {
        self.inner.config.prefix()
    }

    /// The configuration that this handle was made from.
    pub fn config(&self) -> &EtcdConfig {
        &self.inner.config
    }

    /// The runtime that carries the connections, and whatever works behind a handle on this etcd.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Which token calls and streams get now. A stream that was opened under another one takes no new watches: etcd judges
    /// them by the token that the stream was opened with.
    pub(crate) fn token_generation(&self) -> u64 {
        self.inner.tokens.as_ref().map_or(0, |tokens| tokens.generation())
    }

    /// A watch on a stream was refused. A read tells whether the user may not, or whether the stream's token is stale: then
    /// the read has renewed it, and the generation is another. Ends within the command timeout.
    pub(crate) async fn check_token(&self) {
        if self.inner.tokens.is_some() {
            let options = GetOptions::new().with_count_only();
            // Whatever it says: what matters is what it did to the token.
            let _ = self.kv().get(self.prefix().as_str(), Some(options)).await;
        }
    }

    /// The members as one text, for messages.
    pub fn endpoints(&self) -> &str {
        &self.inner.endpoints
    }

    /// etcd-client on the connection for unary calls; every call ends within the command timeout.
    ///
    /// For lists use [`Etcd::kv`], which decodes large answers too.
    pub fn bulk(&self) -> Client {
        self.inner.bulk.clone()
    }

    /// etcd-client on the connection for streams, without a default deadline.
    ///
    /// For watches use [`Etcd::watches`], which decodes large answers too.
    pub fn streams(&self) -> Client {
        self.inner.streams.clone()
    }

    /// Reads and writes on the connection for unary calls; decodes answers up to 64 MiB.
    pub fn kv(&self) -> KvClient {
        self.inner.bulk.kv_client().max_decoding_message_size(RECEIVE_LIMIT)
    }

    /// etcd-client on the connection for unary calls, for requests that do no harm when they are done twice: transactions
    /// whose compares fail once they have been applied and that then read back what is true, leases whose ids the caller
    /// has chosen. Such a request goes to another member too where one leaves it without an answer for a second, and is
    /// repeated where its answer was lost. So whoever sends it may find that it met its own work.
    pub fn guarded(&self) -> Client {
        self.inner.guarded.clone()
    }

    /// Grants and revokes on the connection for unary calls.
    pub fn leases(&self) -> LeaseClient {
        self.inner.bulk.lease_client()
    }

    /// Watches on the connection for streams; decodes answers up to 64 MiB.
    pub fn watches(&self) -> WatchClient {
        self.inner.streams.watch_client().max_decoding_message_size(RECEIVE_LIMIT)
    }

    /// The same for one stream, and what tells which member has it.
    pub(crate) fn watch_stream(&self) -> (WatchClient, Peer) {
        let (client, peer) = self.stream();
        (client.watch_client().max_decoding_message_size(RECEIVE_LIMIT), peer)
    }

    /// Keepalives on the connection for streams.
    pub fn keepalives(&self) -> LeaseClient {
        self.inner.streams.lease_client()
    }

    /// etcd-client for one stream, and what tells which member has it.
    pub(crate) fn stream(&self) -> (Client, Peer) {
        let peer = Peer::default();
        // What could be refused was refused when this handle was made.
        let client = client(self.inner.streaming.telling(peer.clone()));
        (client.unwrap_or_else(|_| self.streams()), peer)
    }

    /// What an etcd-client error means here: `doing` says what was tried, such as `"reading /services/greeter/"`. It names
    /// the member that answered or failed, as far as one had the call, and else all endpoints.
    pub fn error(&self, doing: &str, error: etcd_client::Error) -> Error {
        etcd_error(doing, self.endpoints(), error)
    }

    /// The same for a stream of [`Etcd::stream`].
    pub(crate) fn stream_error(&self, doing: &str, peer: &Peer, error: etcd_client::Error) -> Error {
        stream_error(doing, self.endpoints(), peer, error)
    }

    /// A watch on these keys was refused, or ended, for a reason that etcd gives as text.
    pub(crate) fn refused_watch(&self, keys: &str, peer: &Peer, reason: &str) -> Error {
        let reason =
            if reason.contains(DENIED) { format!("{reason} to read {keys}") } else { reason.to_owned() };
        let status = etcd_client::Error::GRpcStatus(tonic::Status::unknown(reason));
        self.stream_error(&format!("watching {keys}"), peer, status)
    }

    /// The member that has the stream, for messages; else all endpoints.
    pub(crate) fn member(&self, peer: &Peer) -> String {
        shown(peer).unwrap_or_else(|| self.endpoints().to_owned())
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// etcd-client over a transport of ours, with a leader required for every call and stream.
fn client(transport: Transport) -> Result<Client, Error> {
    let channel = etcd_client::Channel::Custom(BoxCloneSyncService::new(transport));
    let options = ConnectOptions::new().with_require_leader(true);
    // Without a user nothing is awaited in there; should a later version wait, we say so rather than block.
    match Client::from_channel(channel, Some(options)).now_or_never() {
        Some(Ok(client)) => Ok(client),
        Some(Err(error)) => {
            Err(Error::new(Kind::Config, "etcd-client refused our channel").with_source(error))
        }
        None => Err(Error::new(Kind::Config, "this version of etcd-client connects before it returns")),
    }
}

/// A channel of ours to the members. Refusing or leaderless ones cost no failed call: round robin gives a call that
/// is repeated to the next member.
fn connect(config: &EtcdConfig, what: &str, silence: Option<Duration>) -> Result<Inner, Error> {
    let mut members = Vec::new();
    for address in config.endpoints() {
        members.push(Endpoint::new(address).map_err(|error| Error::config("endpoints", error))?);
    }
    let mut builder = Channel::builder();
    #[cfg(feature = "tls")]
    if let Some(tls) = config.tls()? {
        builder = builder.tls(tls);
    }
    if members.len() > 1 {
        builder = builder.service_config(ask_elsewhere(members.len())?);
    }
    let channel = builder
        .name(what)
        .policy(RoundRobin::new())
        .connector(config.connector())
        .connect_timeout(config.dial_timeout())
        .max_backoff(MAX_BACKOFF)
        .keepalive(KeepAlive { interval: PING_EVERY, timeout: PING_LIMIT, while_idle: false, silence })
        .fixed(members);
    let channel = channel.map_response(|response| response.map(tonic::body::Body::new));
    Ok(BoxCloneSyncService::new(channel.map_err(Into::into)))
}

/// What may be done twice and is left without an answer goes to another member too, and the first answer counts: a frozen or
/// cut off member costs a read half a second instead of the command timeout. So it is with an Authenticate, which takes etcd
/// longer, and with a guarded write, which an etcd whose disk is slow should not have to do twice: two members at most, one
/// second apart. Other writes of these methods say [`SendOnce`](svc_channel::SendOnce).
fn ask_elsewhere(members: usize) -> Result<ServiceConfig, Error> {
    let attempts = members.clamp(2, 5);
    let config = format!(
        r#"{{"methodConfig": [
            {{"name": [
                {{"service": "etcdserverpb.KV", "method": "Range"}},
                {{"service": "etcdserverpb.Lease", "method": "LeaseTimeToLive"}},
                {{"service": "etcdserverpb.Lease", "method": "LeaseLeases"}},
                {{"service": "etcdserverpb.Cluster", "method": "MemberList"}}
            ], "hedgingPolicy": {{"maxAttempts": {attempts}, "hedgingDelay": "0.5s", "nonFatalStatusCodes":
                ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED", "FAILED_PRECONDITION"]}}}},
            {{"name": [{{"service": "etcdserverpb.Auth", "method": "Authenticate"}}],
            "hedgingPolicy": {{"maxAttempts": {attempts}, "hedgingDelay": "1s", "nonFatalStatusCodes":
                ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"]}}}},
            {{"name": [
                {{"service": "etcdserverpb.KV", "method": "Txn"}},
                {{"service": "etcdserverpb.Lease", "method": "LeaseGrant"}},
                {{"service": "etcdserverpb.Lease", "method": "LeaseRevoke"}}
            ], "hedgingPolicy": {{"maxAttempts": 2, "hedgingDelay": "1s", "nonFatalStatusCodes":
                ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"]}}}}
        ]}}"#
    );
    config
        .parse()
        .map_err(|error| Error::new(Kind::Config, "the channel refused our own settings").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_runtime_it_is_refused_rather_than_a_panic() {
        let error = Etcd::new(EtcdConfig::default()).expect_err("refused");
        assert!(error.to_string().contains("runtime"), "{error}");
    }

    #[tokio::test]
    async fn a_watch_that_is_refused_names_its_keys_and_the_remedy() {
        let etcd = Etcd::new(EtcdConfig::new(["10.0.0.1:2379"]).unwrap()).unwrap();
        let error = etcd.refused_watch("/services/*", &Peer::default(), "etcdserver: permission denied");
        assert!(error.is_denied());
        for part in ["watching /services/*", "denied to read /services/*", "10.0.0.1:2379", "grant"] {
            assert!(error.to_string().contains(part), "{error} names {part}");
        }
    }

    #[tokio::test]
    async fn it_is_made_at_once_and_ready_says_when_nobody_answers() {
        // Bound and dropped: a port where nobody listens.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let etcd = Etcd::new(EtcdConfig::new([free.to_string()]).unwrap()).unwrap();
        let error = etcd.ready(Duration::from_millis(300)).await.expect_err("nobody answers");
        assert!(error.is_unreachable(), "{error}");
        assert!(error.to_string().contains(&free.to_string()), "{error}");
    }
}
