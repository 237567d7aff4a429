//! What a backend answers, both as `greeter.v1.Greeter` and as the stock `helloworld.Greeter`, and what it counts.
//! The counts are a `watch`, so that a test awaits them instead of sleeping.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use svc_proto::greeter::v1::greeter_server::Greeter as GreeterV1;
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use svc_proto::helloworld;
use svc_proto::helloworld::greeter_server::Greeter as Helloworld;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// What a backend has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Unary calls that have begun.
    pub calls: u64,
    /// Streaming calls, of any kind, that have begun.
    pub streams: u64,
    /// Calls of every kind that have not ended.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that are up.
    pub connections: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

/// The greeter of one backend. Clones share everything.
#[derive(Debug, Clone)]
pub struct Greeter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    delay_us: AtomicU64,
    fail_percent: AtomicU32,
    held: watch::Sender<bool>,
    counts: watch::Sender<Counts>,
}

impl Greeter {
    /// A greeter that answers as `name`, for servers of a test's own.
    pub fn named(name: &str) -> Self {
        Greeter(Arc::new(Shared {
            name: name.to_owned(),
            delay_us: AtomicU64::new(0),
            fail_percent: AtomicU32::new(0),
            held: watch::Sender::new(false),
            counts: watch::Sender::new(Counts::default()),
        }))
    }

    /// The name that its answers carry.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Makes every call from now on wait before it is answered.
    pub fn set_delay(&self, delay: Duration) {
        self.0.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Makes this share of the unary calls fail with UNAVAILABLE, evenly spread.
    pub fn set_fail_percent(&self, percent: u32) {
        self.0.fail_percent.store(percent, Relaxed);
    }

    /// Calls that have arrived, and that arrive from now on, are not answered until [`Greeter::release`].
    pub fn hold(&self) {
        self.0.held.send_replace(true);
    }

    /// Lets held calls go on.
    pub fn release(&self) {
        self.0.held.send_replace(false);
    }

    /// The counts as they are now.
    pub fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    /// Waits until the counts are as the test needs them.
    ///
    /// # Panics
    /// With the counts, if they are not after half a minute.
    pub async fn until(&self, mut wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.0.counts.subscribe();
        match tokio::time::timeout(PATIENCE, counts.wait_for(|counts| wanted(counts))).await {
            Ok(counts) => *counts.expect("we hold the sender"),
            Err(_) => panic!("{} never got there: {:?}", self.name(), self.counts()),
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.0.counts.send_modify(change);
    }

    fn open(&self, begin: impl FnOnce(&mut Counts)) -> OpenCall {
        self.count(|counts| {
            begin(counts);
            counts.open += 1;
        });
        OpenCall(self.clone())
    }

    async fn pause(&self) {
        let delay = self.0.delay_us.load(Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        let mut held = self.0.held.subscribe();
        held.wait_for(|held| !held).await.expect("we hold the sender");
    }

    async fn unary(&self, name: &str) -> Result<String, Status> {
        let mut number = 0;
        let _open = self.open(|counts| {
            counts.calls += 1;
            number = counts.calls;
        });
        self.pause().await;
        let percent = u64::from(self.0.fail_percent.load(Relaxed));
        if number * percent / 100 != (number - 1) * percent / 100 {
            return Err(Status::unavailable(format!("{} fails on purpose", self.name())));
        }
        Ok(greeting(name))
    }

    fn reply(&self, name: &str) -> HelloReply {
        HelloReply { message: greeting(name), instance: self.name().to_owned() }
    }
}

/// What a caller is told.
fn greeting(name: &str) -> String {
    format!("Hello {name}!")
}

/// One call that has not ended: dropped by the answer's end, by an error, by the caller's cancel, by a panic.
#[must_use]
struct OpenCall(Greeter);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.count(|counts| {
            counts.open -= 1;
            counts.panics += u64::from(std::thread::panicking());
        });
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl GreeterV1 for Greeter {
    type LotsOfRepliesStream = Replies;
    type BidiHelloStream = Replies;

    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let message = self.unary(&request.get_ref().name).await?;
        Ok(Response::new(HelloReply { message, instance: self.name().to_owned() }))
    }

    async fn lots_of_replies(
        &self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Replies>, Status> {
        let LotsOfRepliesRequest { name, count, interval_ms } = request.into_inner();
        let open = self.open(|counts| counts.streams += 1);
        self.pause().await;
        let wanted = if count == 0 { u64::MAX } else { count.into() };
        let replies = stream::unfold((0, open), move |(sent, open)| {
            let name = name.clone();
            async move {
                if sent == wanted {
                    return None;
                }
                if sent > 0 && interval_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(interval_ms.into())).await;
                }
                Some((Ok(open.0.reply(&name)), (sent + 1, open)))
            }
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn lots_of_greetings(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        let _open = self.open(|counts| counts.streams += 1);
        let mut names = request.into_inner();
        let (mut count, mut last) = (0, String::new());
        while let Some(request) = names.message().await? {
            count += 1;
            last = request.name;
        }
        self.pause().await;
        let message = format!("Hello {last} and all others!");
        Ok(Response::new(LotsOfGreetingsReply { message, instance: self.name().to_owned(), count }))
    }

    async fn bidi_hello(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let open = self.open(|counts| counts.streams += 1);
        let replies = request.into_inner().then(move |request| {
            let greeter = open.0.clone();
            async move {
                let name = request?.name;
                greeter.pause().await;
                Ok(greeter.reply(&name))
            }
        });
        Ok(Response::new(replies.boxed()))
    }
}

#[tonic::async_trait]
impl Helloworld for Greeter {
    async fn say_hello(
        &self,
        request: Request<helloworld::HelloRequest>,
    ) -> Result<Response<helloworld::HelloReply>, Status> {
        let message = self.unary(&request.get_ref().name).await?;
        Ok(Response::new(helloworld::HelloReply { message }))
    }
}
