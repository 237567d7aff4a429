//! The one watch stream, as the task holds it: nothing, being opened, or open with what is to be said on it.
//!
//! In come [`Request`]s; out come the session's events, one at a time.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;

use etcd_client::{WatchRequestSender, WatchResponseStream, WatchStream};
use svc_channel::Peer;

use super::session::{Create, Event, Refusal, Response};
use super::wire;
use crate::etcd::{Etcd, Failure};

pub(super) type Opening = Pin<Box<dyn Future<Output = Result<(WatchStream, Peer), Refusal>> + Send>>;

pub(super) enum Stream {
    None,
    Opening { number: u64, stream: Opening, generation: u64 },
    Open(Box<Open>),
}

pub(super) struct Open {
    number: u64,
    /// Where it goes.
    peer: Peer,
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    requests: VecDeque<Request>,
    /// The token that the stream was opened with.
    generation: u64,
    /// A watch was refused, and a read tells whether the stream's token is to blame.
    doubt: Option<Doubt>,
}

struct Doubt {
    check: Pin<Box<dyn Future<Output = ()> + Send>>,
    response: Option<Response>,
}

/// What is said on an open stream; sent when etcd takes it, in order. No more than there are ranges.
pub(super) enum Request {
    Create(Create),
    Cancel(i64),
    Progress,
}

impl Stream {
    pub(super) fn say(&mut self, request: Request) {
        if let Self::Open(open) = self {
            open.requests.push_back(request);
        }
    }

    /// What happens next on the stream; for ever pending without one.
    ///
    /// Cancel safe: a request leaves its queue only once it was sent, and a message is returned as it is received.
    pub(super) async fn next(&mut self, etcd: &Etcd) -> Event {
        match self {
            Self::None => pending().await,
            Self::Opening { number, stream, generation } => {
                let number = *number;
                match stream.as_mut().await {
                    Ok((stream, peer)) => {
                        let (sender, responses) = stream.split();
                        let (requests, generation) = (VecDeque::new(), *generation);
                        let member = etcd.member(&peer).into();
                        let open =
                            Open { number, peer, sender, responses, requests, generation, doubt: None };
                        *self = Self::Open(Box::new(open));
                        Event::Opened { stream: number, member }
                    }
                    Err(refusal) => self.ended(number, refusal),
                }
            }
            Self::Open(open) => {
                let Open { number, peer, sender, responses, requests, generation, doubt } = &mut **open;
                let (number, generation) = (*number, *generation);
                loop {
                    if let Some(Doubt { check, response }) = doubt {
                        check.await;
                        let response = response.take();
                        *doubt = None;
                        if etcd.token_generation() != generation {
                            return self.outlived(number);
                        }
                        if let Some(response) = response {
                            return Event::Response { stream: number, response };
                        }
                    }
                    if etcd.token_generation() != generation
                        && matches!(requests.front(), Some(Request::Create(_)))
                    {
                        return self.outlived(number);
                    }
                    tokio::select! {
                        message = responses.message() => match message {
                            Ok(Some(message)) => {
                                let response = wire::response(etcd, peer, message);
                                if !refused(&response) {
                                    return Event::Response { stream: number, response };
                                }
                                let etcd = etcd.clone();
                                let check = Box::pin(async move { etcd.check_token().await });
                                *doubt = Some(Doubt { check, response: Some(response) });
                            }
                            Ok(None) => {
                                let reason = format!("etcd at {} ended the watch stream", etcd.member(peer)).into();
                                return self.ended(number, Refusal { failure: Failure::Unreachable, reason });
                            }
                            Err(error) => {
                                let refusal = wire::stream_refusal(etcd, "watching", peer, error);
                                return self.ended(number, refusal);
                            }
                        },
                        // What cannot be sent any more is answered by the end of the stream, which comes next.
                        _ = send(sender, requests.front(), etcd), if !requests.is_empty() => {
                            requests.pop_front();
                        }
                    }
                }
            }
        }
    }

    /// The stream keeps the token that it was opened with, and the user has another one now.
    fn outlived(&mut self, number: u64) -> Event {
        let reason = "the user has a new token, which needs a new watch stream".into();
        self.ended(number, Refusal { failure: Failure::StaleToken, reason })
    }

    fn ended(&mut self, number: u64, refusal: Refusal) -> Event {
        *self = Self::None;
        Event::Ended { stream: number, refusal }
    }
}

/// A watch that is refused although the user may have it looks like one that the user may not have.
fn refused(response: &Response) -> bool {
    let Some(canceled) = &response.canceled else { return false };
    !canceled.compacted
        && matches!(canceled.refusal.failure, Failure::Denied | Failure::StaleToken | Failure::AuthFailed)
}

async fn send(
    sender: &mut WatchRequestSender,
    request: Option<&Request>,
    etcd: &Etcd,
) -> Result<(), etcd_client::Error> {
    match request {
        Some(Request::Create(create)) => {
            let (key, options) = wire::watch(etcd, create);
            sender.watch(key, Some(options)).await
        }
        Some(Request::Cancel(id)) => sender.cancel(*id).await,
        Some(Request::Progress) => sender.request_progress().await,
        None => Ok(()),
    }
}
