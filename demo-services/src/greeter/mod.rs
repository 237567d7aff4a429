//! The greeter: all four kinds of gRPC call, and the stock `helloworld.Greeter` beside them.
//!
//! Every answer names the instance that gave it, so that a caller sees how its calls are spread. The stock protocol
//! has no field for that: there the name stands in the greeting, and in the metadata [`INSTANCE_HEADER`].

mod args;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use svc_proto::greeter::v1::greeter_server::Greeter as GreeterV1;
use svc_proto::greeter::v1::{HelloReply, HelloRequest, LotsOfGreetingsReply, LotsOfRepliesRequest};
use svc_proto::helloworld;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use crate::validate::Fields;

pub use args::GreeterArgs;

/// The response metadata that names the instance, for protocols without a field for it.
pub const INSTANCE_HEADER: &str = "x-instance";

/// The longest name that is greeted, in bytes.
const LONGEST_NAME: usize = 256;

/// One instance's greeter; cheap to clone, all clones count their calls together.
#[derive(Clone, Debug)]
pub struct Greeter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Settled once the server listens: the default id holds the port.
    instance: OnceLock<String>,
    delay: Duration,
    fail_percent: u8,
    calls: AtomicU64,
}

impl Greeter {
    /// A greeter that waits `delay` before each first answer, and fails `fail_percent` of its calls as UNAVAILABLE
    /// (100 and more: all), evenly spread.
    pub fn new(delay: Duration, fail_percent: u8) -> Greeter {
        let inner = Inner { instance: OnceLock::new(), delay, fail_percent, calls: AtomicU64::new(0) };
        Greeter { inner: Arc::new(inner) }
    }

    /// Says under which name it answers, for all clones; the first one counts.
    pub fn sign_as(&self, instance: &str) {
        // An error means that it has a name already.
        let _ = self.inner.instance.set(instance.to_owned());
    }

    /// Its name; empty before it has one.
    fn instance(&self) -> &str {
        self.inner.instance.get().map_or("", String::as_str)
    }

    /// What every call does first: the delay and the failures that were asked for.
    async fn begin(&self) -> Result<(), Status> {
        let call = self.inner.calls.fetch_add(1, Ordering::Relaxed);
        if !self.inner.delay.is_zero() {
            tokio::time::sleep(self.inner.delay).await;
        }
        if fails(call, self.inner.fail_percent) {
            let instance = self.instance();
            return Err(Status::unavailable(format!("{instance} was told to fail (--fail-percent)")));
        }
        Ok(())
    }

    fn reply(&self, name: &str) -> HelloReply {
        HelloReply { message: hello(name), instance: self.instance().to_owned() }
    }
}

/// Whether the call with this number is one of `percent` in a hundred, spread without luck: 25 is every fourth.
fn fails(call: u64, percent: u8) -> bool {
    let percent = u64::from(percent.min(100));
    let position = call % 100;
    (position + 1) * percent / 100 > position * percent / 100
}

/// Refuses a name that nobody has.
fn check(name: &str) -> Result<(), Status> {
    let mut fields = Fields::new();
    let length = name.len();
    fields.check(
        "name",
        length <= LONGEST_NAME,
        format_args!("has {length} bytes, at most {LONGEST_NAME} are greeted"),
    );
    fields.check("name", !name.contains(char::is_control), "has control characters");
    fields.done()
}

fn hello(name: &str) -> String {
    match name {
        "" => "Hello!".to_owned(),
        name => format!("Hello {name}!"),
    }
}

#[tonic::async_trait]
impl GreeterV1 for Greeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        check(&request.get_ref().name)?;
        self.begin().await?;
        Ok(Response::new(self.reply(&request.get_ref().name)))
    }

    type LotsOfRepliesStream = BoxStream<'static, Result<HelloReply, Status>>;

    async fn lots_of_replies(
        &self,
        request: Request<LotsOfRepliesRequest>,
    ) -> Result<Response<Self::LotsOfRepliesStream>, Status> {
        check(&request.get_ref().name)?;
        self.begin().await?;
        let LotsOfRepliesRequest { name, count, interval_ms } = request.into_inner();
        let reply = self.reply(&name);
        let interval = Duration::from_millis(interval_ms.into());
        // The caller's reading drives this: what it does not read is not made.
        let replies = stream::iter(0u64..).then(move |n| {
            let reply = reply.clone();
            async move {
                if n > 0 && !interval.is_zero() {
                    tokio::time::sleep(interval).await;
                }
                Ok(reply)
            }
        });
        Ok(Response::new(match count {
            0 => replies.boxed(),
            count => replies.take(count as usize).boxed(),
        }))
    }

    async fn lots_of_greetings(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<LotsOfGreetingsReply>, Status> {
        self.begin().await?;
        let mut names = request.into_inner();
        let (mut count, mut last) = (0, String::new());
        while let Some(request) = names.message().await? {
            check(&request.name)?;
            count += 1;
            last = request.name;
        }
        let message = match count {
            0 => "Hello, nobody!".to_owned(),
            1 => hello(&last),
            n => format!("Hello {last} and {} more!", n - 1),
        };
        let instance = self.instance().to_owned();
        Ok(Response::new(LotsOfGreetingsReply { message, instance, count }))
    }

    type BidiHelloStream = BoxStream<'static, Result<HelloReply, Status>>;

    async fn bidi_hello(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::BidiHelloStream>, Status> {
        self.begin().await?;
        let greeter = self.clone();
        let replies = request.into_inner().map(move |request| {
            let name = request?.name;
            check(&name)?;
            Ok(greeter.reply(&name))
        });
        Ok(Response::new(replies.boxed()))
    }
}

#[tonic::async_trait]
impl helloworld::greeter_server::Greeter for Greeter {
    async fn say_hello(
        &self,
        request: Request<helloworld::HelloRequest>,
    ) -> Result<Response<helloworld::HelloReply>, Status> {
        check(&request.get_ref().name)?;
        self.begin().await?;
        let instance = self.instance();
        let message = format!("{} This is {instance}.", hello(&request.get_ref().name));
        let mut response = Response::new(helloworld::HelloReply { message });
        if let Ok(value) = MetadataValue::<Ascii>::try_from(instance) {
            response.metadata_mut().insert(INSTANCE_HEADER, value);
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(instance: &str, fail_percent: u8) -> Greeter {
        let greeter = Greeter::new(Duration::ZERO, fail_percent);
        greeter.sign_as(instance);
        greeter
    }

    #[test]
    fn the_asked_share_of_calls_fails_evenly_spread() {
        for percent in [0u8, 1, 25, 33, 99, 100] {
            let failed = (0..1000).filter(|&call| fails(call, percent)).count();
            assert_eq!(failed, usize::from(percent) * 10, "{percent} %");
        }
        let every_fourth: Vec<u64> = (0..12).filter(|&call| fails(call, 25)).collect();
        assert_eq!(every_fourth, [3, 7, 11]);
        assert!((0..100).all(|call| fails(call, 200)), "more than all is all");
    }

    #[tokio::test]
    async fn every_kind_of_reply_names_the_instance() {
        let greeter = named("g-1", 0);
        let ada = || Request::new(HelloRequest { name: "ada".into() });

        let unary = GreeterV1::say_hello(&greeter, ada()).await.unwrap().into_inner();
        assert_eq!((unary.message.as_str(), unary.instance.as_str()), ("Hello ada!", "g-1"));

        let three = LotsOfRepliesRequest { name: "ada".into(), count: 3, interval_ms: 0 };
        let replies = greeter.lots_of_replies(Request::new(three)).await.unwrap().into_inner();
        let instances: Vec<String> = replies.map(|reply| reply.unwrap().instance).collect().await;
        assert_eq!(instances, ["g-1", "g-1", "g-1"]);

        let stock = Request::new(helloworld::HelloRequest { name: "ada".into() });
        let stock = helloworld::greeter_server::Greeter::say_hello(&greeter, stock).await.unwrap();
        assert_eq!(stock.metadata().get(INSTANCE_HEADER).unwrap(), "g-1");
        assert_eq!(stock.get_ref().message, "Hello ada! This is g-1.");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_refused_by_its_field() {
        for (name, part) in [("x".repeat(257), "257 bytes"), ("a\nb".to_owned(), "control")] {
            let request = Request::new(HelloRequest { name });
            let status = GreeterV1::say_hello(&named("g-1", 0), request).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().starts_with("name ") && status.message().contains(part), "{status}");
        }
    }

    #[tokio::test]
    async fn a_told_failure_says_who_told_it() {
        let greeter = named("g-1", 100);
        let status = GreeterV1::say_hello(&greeter, Request::new(HelloRequest::default())).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("g-1") && status.message().contains("--fail-percent"), "{status}");
    }
}
