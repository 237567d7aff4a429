//! Calls that fail when backends do: one of eight that refuses connections, one of three killed, one of three stopped
//! and resumed. Sixteen callers, each backend a process of its own.

use std::error::Error;
use std::time::Duration;

use nix::sys::signal::Signal;
use svc_channel::{Channel, ChannelBuilder, ServiceConfig};
use svc_proto::greeter::v1::HelloRequest;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::backends::Backends;
use crate::contestants::{STOCK, ours, stock};
use crate::load::{Tally, Transport, closed, during};
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

/// The part that the rows' names share.
pub(crate) const NAME: &str = "failed";

const CALLERS: usize = 16;

/// Of the calls on a stopped backend; they are what finds it.
const DEADLINE: Duration = Duration::from_millis(500);

/// Failures need fewer rounds than times do.
const ROUNDS: u32 = 3;

/// Runs the rows.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let rounds = effort.rounds.min(ROUNDS);
    one_dead(rounds, effort.calls, report).await?;
    killed(rounds, report).await?;
    stopped(rounds, report).await
}

/// One of eight refuses connections from the start.
async fn one_dead(rounds: u32, calls: u64, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("failed_one_dead/8x16");
    let backends = Backends::start(7)?;
    // Bound and not listening: whoever connects is refused, and nobody else is given the port.
    let dead = TcpSocket::new_v4()?;
    dead.bind(([127, 0, 0, 1], 0).into())?;
    let mut addresses = backends.addresses.clone();
    addresses.push(dead.local_addr()?.to_string());
    let (by_us, by_stock) = (ours(&addresses, Channel::builder())?, stock(&addresses, None)?);
    let (mut us, mut peer) = (Samples::of("ours"), Samples::of(STOCK));
    let time = Duration::from_millis(calls / 40);
    for _ in 0..rounds {
        us.push(percent(during(&by_us, CALLERS, Instant::now() + time).await));
        peer.push(percent(during(&by_stock, CALLERS, Instant::now() + time).await));
    }
    report.compare("failed_one_dead/8x16", "% of calls", &us, &[&peer]);
    Ok(())
}

/// One of three is killed: what was in flight on it may fail, nothing else.
async fn killed(rounds: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("failed_sigkill/3x16");
    let retrying: ServiceConfig = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3,
        "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#
        .parse()?;
    let (mut us, mut retried) = (Samples::of("ours"), Samples::of("ours, retryPolicy"));
    let mut peer = Samples::of(STOCK);
    for _ in 0..rounds {
        us.push(kill_one(|a| ours(a, Channel::builder())).await?);
        retried.push(kill_one(|a| ours(a, Channel::builder().service_config(retrying.clone()))).await?);
        peer.push(kill_one(|a| stock(a, None)).await?);
    }
    report.compare("failed_sigkill/3x16", "calls", &us, &[&peer]);
    report.compare("failed_sigkill_retry/3x16", "calls", &retried, &[&peer]);
    Ok(())
}

async fn kill_one<T: Transport>(
    client: impl FnOnce(&[String]) -> Result<GreeterClient<T>, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let (mut fleet, addresses) = fleet()?;
    let client = client(&addresses)?;
    closed(std::slice::from_ref(&client), CALLERS, 1_000).await?;
    let victim = fleet.remove(0);
    let load = during(&client, CALLERS, Instant::now() + Duration::from_secs(2));
    let (tally, ()) = tokio::join!(load, async {
        sleep(Duration::from_millis(500)).await;
        drop(victim); // SIGKILL
    });
    Ok(count(tally.failed))
}

/// One of three is stopped for ten seconds, then resumed.
async fn stopped(rounds: u32, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("failed_sigstop/3x16");
    let builder = || -> ChannelBuilder { Channel::builder().deadline(DEADLINE) };
    let (mut us, mut peer) = (Samples::of("ours"), Samples::of(STOCK));
    for _ in 0..rounds {
        us.push(stop_one(|a| ours(a, builder()), true).await?);
        peer.push(stop_one(|a| stock(a, Some(DEADLINE)), false).await?);
    }
    report.compare("failed_sigstop/3x16", "calls", &us, &[&peer]);
    Ok(())
}

async fn stop_one<T: Transport>(
    client: impl FnOnce(&[String]) -> Result<GreeterClient<T>, Box<dyn Error>>,
    comes_back: bool,
) -> Result<f64, Box<dyn Error>> {
    let (fleet, addresses) = fleet()?;
    let client = client(&addresses)?;
    closed(std::slice::from_ref(&client), CALLERS, 1_000).await?;
    let load = during(&client, CALLERS, Instant::now() + Duration::from_secs(11));
    let (tally, stopped) = tokio::join!(load, async {
        sleep(Duration::from_millis(500)).await;
        fleet[0].signal(Signal::SIGSTOP)?;
        sleep(Duration::from_secs(10)).await;
        fleet[0].signal(Signal::SIGCONT)
    });
    stopped?;
    if comes_back {
        timeout(Duration::from_secs(60), answered_by(&client, &addresses[0]))
            .await
            .map_err(|_| "the resumed backend was given no calls for a minute")??;
    }
    Ok(count(tally.failed))
}

/// Calls until the backend at `address` answers.
async fn answered_by<T: Transport>(client: &GreeterClient<T>, address: &str) -> Result<(), tonic::Status> {
    let mut client = client.clone();
    while client.say_hello(HelloRequest { name: String::new() }).await?.into_inner().instance != address {
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Three backends, each a process of its own.
fn fleet() -> Result<(Vec<Backends>, Vec<String>), Box<dyn Error>> {
    let fleet = (0..3).map(|_| Backends::start(1)).collect::<Result<Vec<_>, _>>()?;
    let addresses = fleet.iter().flat_map(|b| b.addresses.clone()).collect();
    Ok((fleet, addresses))
}

fn percent(tally: Tally) -> f64 {
    100.0 * count(tally.failed) / count(tally.calls)
}

fn count(calls: u64) -> f64 {
    u32::try_from(calls).map_or(f64::INFINITY, f64::from)
}
