//! Load on clients of any transport: [`closed`] (a fixed number of calls, each must succeed), [`during`] (for some time,
//! failures are counted) and [`offered`] (calls at a fixed rate, however long the answers take).

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;

use crate::rounds::{Meter, Spent};

/// What generated clients ask of a transport, and a bench of its clones.
pub(crate) trait Transport:
    GrpcService<
        Body,
        Future: Send,
        Error: Into<StdError>,
        ResponseBody: tonic::transport::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Future: Send,
            Error: Into<StdError>,
            ResponseBody: tonic::transport::Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// `calls` calls by `callers`, each with one in flight, on the clients in turn; the first error ends the run.
pub(crate) async fn closed<T: Transport>(
    clients: &[GreeterClient<T>],
    callers: usize,
    calls: u64,
) -> Result<Spent, Box<dyn Error>> {
    let left = Arc::new(AtomicI64::new(calls.try_into()?));
    let next = Arc::new(AtomicUsize::new(0));
    let meter = Meter::start()?;
    // Callers end when no calls are left.
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let (mut clients, left, next) = (clients.to_vec(), left.clone(), next.clone());
        set.spawn(async move {
            while left.fetch_sub(1, Relaxed) > 0 {
                let client = next.fetch_add(1, Relaxed) % clients.len();
                clients[client].say_hello(HelloRequest { name: String::new() }).await?;
            }
            Ok::<(), tonic::Status>(())
        });
    }
    while let Some(caller) = set.join_next().await {
        caller??;
    }
    meter.stop()
}

/// What came of the calls of [`during`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
}

/// Calls by `callers` until `end`, each caller with one in flight.
pub(crate) async fn during<T: Transport>(client: &GreeterClient<T>, callers: usize, end: Instant) -> Tally {
    // Callers end at `end`, or when their last call does.
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let mut client = client.clone();
        set.spawn(async move {
            let mut tally = Tally::default();
            while Instant::now() < end {
                let answer = client.say_hello(HelloRequest { name: String::new() }).await;
                tally.calls += 1;
                if answer.is_err() {
                    tally.failed += 1;
                    // A client that fails at once must not spin.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            tally
        });
    }
    set.join_all()
        .await
        .into_iter()
        .fold(Tally::default(), |a, b| Tally { calls: a.calls + b.calls, failed: a.failed + b.failed })
}

/// The latencies in microseconds of `rate` calls a second for `time`, each from the moment at which it was due: a
/// client that falls behind is not spared the wait.
pub(crate) async fn offered<T: Transport>(
    client: &GreeterClient<T>,
    rate: u32,
    time: Duration,
) -> Result<Histogram<u64>, Box<dyn Error>> {
    // As many calls each millisecond as make the rate: tokio's timer has no finer ticks.
    let each_tick = (rate / 1_000).max(1);
    let mut ticks = interval(Duration::from_secs(u64::from(each_tick)) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst); // what is due stays due
    let mut set: JoinSet<Result<Duration, tonic::Status>> = JoinSet::new();
    let mut latencies = Histogram::new(3)?;
    let end = Instant::now() + time;
    loop {
        let due = ticks.tick().await;
        if due >= end {
            break;
        }
        for _ in 0..each_tick {
            let mut client = client.clone();
            // Ends with its call; awaited below.
            set.spawn(async move {
                client.say_hello(HelloRequest { name: String::new() }).await?;
                Ok(due.elapsed())
            });
        }
        while let Some(done) = set.try_join_next() {
            latencies.record(u64::try_from(done??.as_micros())?)?;
        }
    }
    while let Some(done) = set.join_next().await {
        latencies.record(u64::try_from(done??.as_micros())?)?;
    }
    Ok(latencies)
}
