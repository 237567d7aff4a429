//! Our channel under etcd-client: a call of its generated stubs comes in, goes to a member, and where it is safe
//! to another; the answer goes back up.
//!
//! `members.rs` repeats what may be repeated. Streams are passed through.
//! One deadline covers a unary call with its repetitions; streams have none. Where there is a user, its token (`token.rs`)
//! goes along, and a call whose token was refused takes a new one: etcd looks at the token before it does anything.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::BodyExt;
use svc_channel::{Peer, SendOnce};
use tonic::Status;
use tonic::body::Body;
use tower::{BoxError, Service, ServiceExt};

use super::error::Failure;
use super::members::{Limit, Members, failure_of, refusal_of, within};
use super::named::reworded;
use super::request_keys::keys_of;
use super::token::{Token, Tokens};

/// The service between etcd-client and the channel; see the module.
#[derive(Clone)]
pub(super) struct Transport {
    members: Members,
    /// The limit of a unary call; `None` leaves it to the caller.
    timeout: Option<Duration>,
    /// Where calls have a user.
    tokens: Option<Arc<Tokens>>,
    /// Whoever opens one stream, and wants to know where it goes.
    peer: Option<Peer>,
    /// Writes do no harm when they are done twice: the caller says so.
    guarded: bool,
}

/// How often a call takes a new token: the first may have been renewed by another call that met the same refusal late.
const RENEWALS: u32 = 2;

/// A call without an answer for so long may wait for its token; see [`Tokens::doubt`].
const DOUBT_AFTER: Duration = Duration::from_secs(1);

impl Transport {
    pub(super) fn new(members: Members, timeout: Option<Duration>, tokens: Option<Arc<Tokens>>) -> Transport {
        Transport { members, timeout, tokens, peer: None, guarded: false }
    }

    /// The same for one stream, where the peer tells who has it.
    pub(super) fn telling(&self, peer: Peer) -> Transport {
        Transport { peer: Some(peer), ..self.clone() }
    }

    /// The same for writes that may be done twice, which are repeated as reads are.
    pub(super) fn guarded(&self) -> Transport {
        Transport { guarded: true, ..self.clone() }
    }

    async fn unary(self, request: Request<Body>, read: bool) -> Result<Response<Body>, BoxError> {
        let limit = self.timeout.map(Limit::new);
        let repeatable = read || self.guarded;
        let (mut head, body) = request.into_parts();
        if !repeatable {
            head.extensions.insert(SendOnce);
        }
        // etcd-client's unary bodies are one small frame in memory; keeping it is what makes repeating possible.
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path().to_owned();
        let answer = self.identified(head, &body, repeatable, limit).await;
        let Some((status, Failure::Denied)) = refusal_of(&answer) else { return answer };
        match keys_of(&path, &body) {
            keys if keys.is_empty() => answer,
            keys => Err(reworded(&status, format!("{} to {keys}", status.message())).into()),
        }
    }

    /// With a token where there is a user.
    async fn identified(
        &self,
        mut head: Parts,
        body: &Bytes,
        repeatable: bool,
        limit: Option<Limit>,
    ) -> Result<Response<Body>, BoxError> {
        let Some(tokens) = &self.tokens else {
            return self.members.ask(&head, body, repeatable, limit).await;
        };
        let mut renewals = 0;
        loop {
            let token = within(limit, tokens.current()).await??;
            put(&token, &mut head.headers);
            let mut asked = pin!(self.members.ask(&head, body, repeatable, limit));
            let answer = match tokio::time::timeout(self.doubt_after(), &mut asked).await {
                Ok(answer) => answer,
                // A write goes on: it may be under way all the same. The calls after it have the new token.
                Err(_) if tokens.doubt(&token) && repeatable => continue,
                Err(_) => asked.await,
            };
            // Refused before anything was done, so that a write is safe too.
            if failure_of(&answer) != Some(Failure::StaleToken) || renewals == RENEWALS {
                return answer;
            }
            renewals += 1;
            tokens.stale(token.generation);
        }
    }

    /// Well within the call's own limit.
    fn doubt_after(&self) -> Duration {
        self.timeout.map_or(DOUBT_AFTER, |limit| DOUBT_AFTER.min(limit / 2))
    }

    /// Opens a stream; etcd's head comes with its first message. What is sent on it cannot be repeated here: where the token is
    /// stale or doubtful the stream fails, and its owner opens the next one with a new token.
    async fn stream(self, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let Some(tokens) = &self.tokens else { return self.members.inner.oneshot(request).await };
        let token = tokens.current().await?;
        put(&token, request.headers_mut());
        let mut opened = pin!(self.members.inner.oneshot(request));
        let answer = match tokio::time::timeout(DOUBT_AFTER, &mut opened).await {
            Ok(answer) => answer,
            Err(_) if tokens.doubt(&token) => {
                let text = format!("no answer within {DOUBT_AFTER:?} to a token that may be stale");
                return Err(Status::unauthenticated(text).into());
            }
            Err(_) => opened.await,
        };
        if failure_of(&answer) == Some(Failure::StaleToken) {
            tokens.stale(token.generation);
        }
        answer
    }
}

/// In place of one that is there: etcd takes the first.
fn put(token: &Token, headers: &mut HeaderMap) {
    match &token.header {
        Some(header) => drop(headers.insert(TOKEN, header.clone())),
        None => drop(headers.remove(TOKEN)),
    }
}

const TOKEN: HeaderName = HeaderName::from_static("token");

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    /// Always ready: the channel queues within its own limits, and errors come from `call`.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        match Method::of(request.uri().path()) {
            Method::Stream => Box::pin(this.stream(request)),
            method => Box::pin(this.unary(request, method == Method::Read)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Read,
    Write,
    Stream,
}

impl Method {
    /// Unknown methods count as writes: repeated only on proof.
    fn of(path: &str) -> Method {
        match path {
            "/etcdserverpb.KV/Range"
            | "/etcdserverpb.Lease/LeaseTimeToLive"
            | "/etcdserverpb.Lease/LeaseLeases"
            | "/etcdserverpb.Cluster/MemberList"
            | "/etcdserverpb.Maintenance/Status" => Method::Read,
            "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/v3electionpb.Election/Observe" => Method::Stream,
            _ => Method::Write,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower::util::BoxCloneSyncService;

    use super::super::error::classify_status;
    use super::super::members::in_memory;
    use super::*;

    /// A transport over three members, each answering with `status`; returns how many were asked.
    async fn asked(path: &str, status: Status) -> usize {
        count(path, status, false).await
    }

    async fn count(path: &str, status: Status, guarded: bool) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let inner = tower::service_fn(move |request: Request<Body>| {
            let (seen, status) = (Arc::clone(&seen), status.clone());
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                assert_eq!(&body[..], b"request", "every member gets the whole body");
                seen.fetch_add(1, Ordering::SeqCst);
                Ok::<_, BoxError>(status.into_http::<Body>())
            }
        });
        let transport = Transport::new(Members::new(BoxCloneSyncService::new(inner), 3), None, None);
        let mut transport = if guarded { transport.guarded() } else { transport };
        let request = Request::builder().uri(path).body(in_memory(Bytes::from_static(b"request"))).unwrap();
        // Refused in any case; here counts by how many.
        let _ = transport.call(request).await;
        count.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_read_moves_to_another_member() {
        assert_eq!(asked("/etcdserverpb.KV/Range", Status::unavailable("connection refused")).await, 3);
        assert_eq!(asked("/etcdserverpb.KV/Range", Status::permission_denied("no")).await, 1);
    }

    #[tokio::test]
    async fn a_write_is_repeated_only_when_it_was_not_processed() {
        let txn = "/etcdserverpb.KV/Txn";
        assert_eq!(asked(txn, Status::unavailable("connection reset")).await, 1, "may have been applied");
        assert_eq!(asked(txn, Status::unavailable("etcdserver: request timed out")).await, 1);
        assert_eq!(asked(txn, Status::unavailable("etcdserver: no leader")).await, 3);
        assert_eq!(asked(txn, Status::resource_exhausted("etcdserver: too many requests")).await, 3);
    }

    #[tokio::test]
    async fn a_guarded_write_moves_on_as_a_read_does() {
        let txn = "/etcdserverpb.KV/Txn";
        assert_eq!(count(txn, Status::unavailable("connection reset"), true).await, 3);
        assert_eq!(count(txn, Status::unavailable("etcdserver: request timed out"), true).await, 3);
        assert_eq!(count(txn, Status::not_found("etcdserver: requested lease not found"), true).await, 1);
    }

    #[tokio::test]
    async fn a_stream_is_never_repeated() {
        assert_eq!(asked("/etcdserverpb.Watch/Watch", Status::unavailable("etcdserver: no leader")).await, 1);
    }

    #[tokio::test]
    async fn what_was_refused_is_passed_up_as_etcd_said_it() {
        let inner = tower::service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Status::not_found("etcdserver: requested lease not found").into_http::<Body>())
        });
        let mut transport = Transport::new(Members::new(BoxCloneSyncService::new(inner), 3), None, None);
        let request = Request::builder().uri("/etcdserverpb.KV/Put").body(in_memory(Bytes::new())).unwrap();
        let error = transport.call(request).await.unwrap_err();
        let status = error.downcast_ref::<Status>().expect("a status");
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert_eq!(classify_status(status), Failure::LeaseNotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn one_deadline_covers_the_call() {
        let inner =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        let timeout = Some(Duration::from_secs(5));
        let mut transport = Transport::new(Members::new(BoxCloneSyncService::new(inner), 3), timeout, None);
        let request = Request::builder().uri("/etcdserverpb.KV/Range").body(in_memory(Bytes::new())).unwrap();
        let error = transport.call(request).await.unwrap_err();
        let status = error.downcast_ref::<Status>().expect("a status");
        assert_eq!(classify_status(status), Failure::TimedOut);
    }
}
