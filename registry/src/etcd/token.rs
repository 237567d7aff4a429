//! The token by which etcd knows our user: fetched when it is first needed, kept, and renewed when etcd says that it is
//! stale. `transport.rs` asks for it at each call, tells when it was refused, and sends it along; the sessions on watch
//! streams compare its generation, since a stream keeps the token that it was opened with.
//!
//! An Authenticate costs etcd a bcrypt and an entry in its log: however many calls wait, one is under way (single flight),
//! a renewal waits a random moment first so that many processes do not come at once, and refused credentials are not
//! tried again for a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::HeaderValue;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::authenticate::authenticate;
use super::error::{Failure, classify_status};
use super::members::Members;
use super::user::User;

/// The longest wait before a renewal. All clients of an etcd learn in the same instant that users were changed.
const SPREAD: Duration = Duration::from_millis(100);

/// How long refused credentials are not tried again: the answer is the same for all calls in between.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How soon a token may be doubted again. It doubles with each doubt, up to [`DOUBT_MOST`]: an etcd that is slow for other
/// reasons must not be burdened with bcrypts, yet one that was slow and is then wiped must not be waited for.
const DOUBT_FIRST: Duration = Duration::from_secs(2);

/// The longest pause between two doubts; so long without any, and the next pause is the first again.
const DOUBT_MOST: Duration = Duration::from_secs(60);

/// A token, or the knowledge that etcd wants none.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Which fetch it is from; what to say to [`Tokens::stale`].
    pub(super) generation: u64,
    /// Marked as sensitive. `None`: authentication is not enabled.
    pub(super) header: Option<HeaderValue>,
}

/// The user's token, shared by all calls and streams of a handle.
#[derive(Debug)]
pub(super) struct Tokens {
    user: User,
    members: Members,
    /// The longest an Authenticate may take with its repetitions.
    timeout: Duration,
    /// Raised whenever the token in use turns out to be stale.
    generation: AtomicU64,
    state: Mutex<State>,
    doubts: Mutex<Doubts>,
}

/// When a token may be doubted, and how long it may then not be.
#[derive(Debug)]
struct Doubts {
    not_before: Instant,
    pause: Duration,
}

impl Doubts {
    fn none_yet() -> Doubts {
        Doubts { not_before: Instant::now(), pause: DOUBT_FIRST }
    }

    fn allow(&mut self, now: Instant) -> bool {
        if now < self.not_before {
            return false;
        }
        if now > self.not_before + DOUBT_MOST {
            self.pause = DOUBT_FIRST;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(DOUBT_MOST);
        true
    }
}

type Fetch = Shared<BoxFuture<'static, Result<Token, Status>>>;

#[derive(Debug)]
enum State {
    /// Nothing is known; after a stale one the next fetch waits a moment.
    None {
        spread: bool,
    },
    Fetching(Fetch),
    Known(Token),
    Refused {
        until: Instant,
        status: Status,
    },
}

impl Tokens {
    pub(super) fn new(user: User, members: Members, timeout: Duration) -> Arc<Tokens> {
        let state = Mutex::new(State::None { spread: false });
        Arc::new(Tokens {
            user,
            members,
            timeout,
            generation: AtomicU64::new(1),
            state,
            doubts: Mutex::new(Doubts::none_yet()),
        })
    }

    /// The token in use; fetched where there is none.
    ///
    /// # Errors
    /// Refused credentials, or what an unreachable etcd gives.
    ///
    /// # Cancel safety
    /// Whoever still waits carries the fetch on.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Token, Status> {
        let fetch = {
            let mut state = self.state();
            let spread = match &*state {
                State::Known(token) => return Ok(token.clone()),
                State::Refused { until, status } if Instant::now() < *until => return Err(status.clone()),
                State::Fetching(fetch) => Err(fetch.clone()),
                State::None { spread } => Ok(*spread),
                State::Refused { .. } => Ok(false),
            };
            match spread {
                Err(under_way) => under_way,
                Ok(spread) => {
                    let fetch = self.fetch(spread);
                    *state = State::Fetching(fetch.clone());
                    fetch
                }
            }
        };
        fetch.await
    }

    /// etcd refused the token of this generation. Older news is passed over.
    pub(super) fn stale(&self, generation: u64) {
        let mut state = self.state();
        if matches!(&*state, State::Known(token) if token.generation == generation) {
            self.generation.fetch_add(1, Ordering::Relaxed);
            *state = State::None { spread: true };
        }
    }

    /// A call with this token has no answer for a while; `true`: the token counts as stale now. A simple token names an index
    /// of etcd's log, and etcd lets a call wait until it has got so far: for an etcd that was wiped or restored that is
    /// never, or much later.
    pub(super) fn doubt(&self, token: &Token) -> bool {
        let simple = token.header.as_ref().is_some_and(is_simple);
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = simple && doubts.allow(Instant::now());
        drop(doubts);
        if allowed {
            self.stale(token.generation);
        }
        allowed
    }

    /// Changes as soon as a token is known to be stale: what was opened under another one is to be opened anew before
    /// anything new is asked on it.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn fetch(self: &Arc<Self>, spread: bool) -> Fetch {
        // Weak: the future lies in our own state.
        let (this, members, user, limit) =
            (Arc::downgrade(self), self.members.clone(), self.user.clone(), self.timeout);
        let generation = self.generation();
        let fetch = async move {
            if spread {
                let most = u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX);
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=most))).await;
            }
            let asked = tokio::time::timeout(limit, authenticate(&members, &user, limit)).await;
            let answer = asked.unwrap_or_else(|_| {
                let text =
                    format!("no answer to the authentication of user {:?} within {limit:?}", user.name);
                Err(Status::deadline_exceeded(text))
            });
            let answer = match answer {
                Ok(header) => Ok(Token { generation, header: Some(header) }),
                Err(status) if status.message().contains(NOT_ENABLED) => {
                    Ok(Token { generation, header: None })
                }
                Err(status) => Err(status),
            };
            if let Some(this) = this.upgrade() {
                this.fetched(&answer);
            }
            answer
        };
        fetch.boxed().shared()
    }

    fn fetched(&self, answer: &Result<Token, Status>) {
        *self.state() = match answer {
            Ok(token) => {
                let enabled = token.header.is_some();
                tracing::debug!(user = %self.user.name, enabled, "authenticated with etcd");
                State::Known(token.clone())
            }
            Err(status) if is_refusal(status) => {
                // At most one a second, by the time that it is then believed.
                tracing::warn!(user = %self.user.name, reason = %status.message(), "etcd refuses user and password");
                State::Refused { until: Instant::now() + REFUSED_FOR, status: status.clone() }
            }
            Err(_) => State::None { spread: false },
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `letters.index`; a JWT has two dots.
fn is_simple(header: &HeaderValue) -> bool {
    header.as_bytes().iter().filter(|byte| **byte == b'.').count() == 1
}

/// etcd's way to say that nobody needs a token; some clients take it for an error.
const NOT_ENABLED: &str = "authentication is not enabled";

fn is_refusal(status: &Status) -> bool {
    classify_status(status) == Failure::AuthFailed || status.code() == Code::FailedPrecondition
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;
    use http::Request;
    use tonic::body::Body;
    use tower::BoxError;
    use tower::util::BoxCloneSyncService;

    use super::*;
    use crate::etcd::EtcdConfig;

    /// An etcd that answers every Authenticate with this status, after a moment; and how often it was asked.
    fn tokens(status: Status) -> (Arc<Tokens>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let inner = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/etcdserverpb.Auth/Authenticate");
            count.fetch_add(1, Ordering::SeqCst);
            let status = status.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, BoxError>(status.into_http::<Body>())
            }
        });
        let config = EtcdConfig::default().with_user("me", "hunter2").unwrap();
        let members = Members::new(BoxCloneSyncService::new(inner), 1);
        (Tokens::new(config.user().unwrap().clone(), members, Duration::from_secs(5)), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_wait_one_authenticate_is_under_way() {
        let (tokens, asked) =
            tokens(Status::failed_precondition("etcdserver: authentication is not enabled"));
        for answer in join_all((0..50).map(|_| tokens.current())).await {
            assert!(answer.unwrap().header.is_none(), "no authentication means no token");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let token = tokens.current().await.unwrap();
        tokens.stale(token.generation);
        tokens.stale(token.generation);
        assert_ne!(tokens.generation(), token.generation, "streams see that it is over");
        let next = tokens.current().await.unwrap();
        tokens.stale(token.generation); // late news of the old one
        assert_eq!(tokens.current().await.unwrap().generation, next.generation);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_tried_once_a_second() {
        let refusal = "etcdserver: authentication failed, invalid user ID or password";
        let (tokens, asked) = tokens(Status::invalid_argument(refusal));
        for _ in 0..100 {
            let status = tokens.current().await.expect_err("refused");
            assert_eq!(classify_status(&status), Failure::AuthFailed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let asked = asked.load(Ordering::SeqCst);
        assert!((3..=6).contains(&asked), "{asked} in five seconds");
    }

    /// Several wipes in a row are healed within seconds, and an etcd that is slow for an hour authenticates us once a minute.
    #[tokio::test(start_paused = true)]
    async fn doubts_are_soon_again_at_first_and_rare_at_last() {
        let mut doubts = Doubts::none_yet();
        let begin = Instant::now();
        let mut at = Vec::new();
        for second in 0..3600 {
            if doubts.allow(begin + Duration::from_secs(second)) {
                at.push(second);
            }
        }
        assert_eq!(at[..6], [0, 2, 6, 14, 30, 62]);
        assert_eq!(at.len(), 6 + (3600 - 62) / 60);
        assert!(doubts.allow(begin + Duration::from_secs(4000)));
        assert!(
            doubts.allow(begin + Duration::from_secs(4002)),
            "after a quiet time the pauses are short again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_whose_callers_left_is_carried_on_by_the_next() {
        let (tokens, asked) =
            tokens(Status::failed_precondition("etcdserver: authentication is not enabled"));
        let left = tokio::time::timeout(Duration::from_millis(10), tokens.current()).await;
        assert!(left.is_err());
        tokens.current().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
