//! The members of etcd behind one channel: a call goes to one of them, and where it is safe to another. What may be done twice,
//! a read or a guarded write, is repeated at each other member when a member cannot answer. Any other write is repeated only
//! when it certainly was not carried out ([`Failure::is_not_processed`]); an I/O error is never proof.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::Full;
use svc_channel::Peer;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::error::{Failure, classify_status};
use super::named::named;

/// What etcd-client takes as `Channel::Custom`.
pub(super) type Inner = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The members behind one channel: a call goes to one of them, and where it is safe to another.
#[derive(Clone)]
pub(super) struct Members {
    pub(super) inner: Inner,
    /// How many members a call may try.
    count: usize,
}

impl Members {
    pub(super) fn new(inner: Inner, count: usize) -> Members {
        Members { inner, count: count.max(1) }
    }

    /// One call, its body whole and in memory. What is refused, or not answered in time, is a status that names the member.
    pub(super) async fn ask(
        &self,
        head: &Parts,
        body: &Bytes,
        twice: bool,
        limit: Option<Limit>,
    ) -> Result<Response<Body>, BoxError> {
        let mut inner = self.inner.clone();
        let mut member = 1;
        loop {
            let peer = Peer::default();
            let mut request = Request::from_parts(head.clone(), in_memory(body.clone()));
            request.extensions_mut().insert(peer.clone());
            let asked = async { inner.ready().await?.call(request).await };
            let answer = within(limit, asked).await.unwrap_or_else(|late| Err(late.into()));
            let Some(failure) = failure_of(&answer) else { return answer };
            if member < self.count && repeatable(failure, twice) && !limit.is_some_and(Limit::is_over) {
                member += 1;
                continue;
            }
            return match refusal_of(&answer) {
                Some((status, _)) => Err(named(status, &peer).into()),
                None => answer,
            };
        }
    }
}

/// How long a call may take with all that it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    of: Duration,
    until: Instant,
}

impl Limit {
    /// From now on.
    pub(super) fn new(of: Duration) -> Limit {
        Limit { of, until: Instant::now() + of }
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.until
    }
}

/// What the future gives, or what is to be said when the limit is over.
pub(super) async fn within<T>(limit: Option<Limit>, future: impl Future<Output = T>) -> Result<T, Status> {
    match limit {
        None => Ok(future.await),
        Some(Limit { of, until }) => tokio::time::timeout_at(until, future).await.map_err(|_| {
            Status::deadline_exceeded(format!("no answer within the command timeout of {of:?}"))
        }),
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("count", &self.count).finish_non_exhaustive()
    }
}

/// The failure of an answer: of the transport, or of etcd, whose unary refusals are trailers-only.
pub(super) fn failure_of(answer: &Result<Response<Body>, BoxError>) -> Option<Failure> {
    match (refusal_of(answer), answer) {
        (Some((_, failure)), _) => Some(failure),
        (None, Err(_)) => Some(Failure::Unreachable),
        (None, Ok(_)) => None,
    }
}

/// The status of an answer that has one other than OK, and what it means.
pub(super) fn refusal_of(answer: &Result<Response<Body>, BoxError>) -> Option<(Status, Failure)> {
    let status = match answer {
        Ok(response) => Status::from_header_map(response.headers())?,
        Err(error) => error.downcast_ref::<Status>()?.clone(),
    };
    let failure = classify_status(&status);
    (status.code() != tonic::Code::Ok).then_some((status, failure))
}

fn repeatable(failure: Failure, twice: bool) -> bool {
    failure.is_not_processed() || (twice && failure.is_transient())
}

pub(super) fn in_memory(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}
