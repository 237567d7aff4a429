//! CPU time of one small unary call: the backends in another process, callers with a call each in flight, the client
//! on one worker.

use std::error::Error;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use svc_channel::{Channel, ChannelBuilder, FailurePercentage, OutlierDetection, RoundRobin, SuccessRate};
use svc_proto::greeter::v1::greeter_client::GreeterClient;

use crate::backends::Backends;
use crate::contestants::{BY_HAND, STOCK, by_hand, ours, stock};
use crate::load::{Transport, closed};
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

/// The part that the rows' names share.
pub(crate) const NAME: &str = "cpu_per_call";

/// How often the recorder sorts what it was given: the exporter's default.
const UPKEEP: Duration = Duration::from_secs(5);

/// One that is never reached: what it costs to have one is measured.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs the rows, each on backends of its own.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    for (backends, callers) in [(8, 64), (8, 1), (64, 64), (64, 1)] {
        row(NAME, (backends, callers), None, Channel::builder, effort, report).await?;
    }
    row("cpu_per_call_deadline", (8, 64), Some(DEADLINE), Channel::builder, effort, report).await?;
    row_with_everything(effort, report).await
}

/// Ours alone.
pub(crate) async fn profile(calls: u64) -> Result<(), Box<dyn Error>> {
    let backends = Backends::start(8)?;
    let us = turn(&[ours(&backends.addresses, Channel::builder())?], 64, calls).await?;
    report::say(&format!("{us:.2} us a call"));
    Ok(())
}

/// Everything on: outlier detection with its statistics, a deadline (the row's), metrics.
fn full() -> ChannelBuilder {
    let mut outliers = OutlierDetection::default();
    outliers.success_rate = Some(SuccessRate::default());
    outliers.failure_percentage = Some(FailurePercentage::default());
    Channel::builder().outlier_detection(outliers).metrics()
}

/// The last row, with a recorder that keeps what it is given, as a service's `/metrics` does.
async fn row_with_everything(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0])?.install_recorder()?;
    // Ours, ended by the row's end; it sorts what was recorded into the buckets, as the exporter's own server would.
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    let done = row("cpu_per_call_full", (8, 64), Some(DEADLINE), full, effort, report).await;
    upkeep.abort();
    done
}

async fn row(
    name: &str,
    (backends, callers): (usize, usize),
    deadline: Option<Duration>,
    builder: fn() -> ChannelBuilder,
    effort: Effort,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let full_name = format!("{name}/{backends}x{callers}");
    report::progress(&full_name);
    let backends = Backends::start(backends)?;
    let addresses = &backends.addresses;
    let builder = || match deadline {
        Some(deadline) => builder().deadline(deadline),
        None => builder(),
    };
    let by_us = [ours(addresses, builder())?];
    let by_us_in_turn = [ours(addresses, builder().policy(RoundRobin::new()))?];
    let by_hands = by_hand(addresses, deadline).await?;
    let balanced = [stock(addresses, deadline)?];
    // One caller alone waits for each answer, and its calls cost several times as much.
    let calls = if callers == 1 { effort.calls / 4 } else { effort.calls };

    let (mut us, mut in_turn) = (Samples::of("ours"), Samples::of("ours, round_robin"));
    let (mut hand, mut stock) = (Samples::of(BY_HAND), Samples::of(STOCK));
    for round in 0..=effort.rounds {
        let measured = [
            (&mut us, turn(&by_us, callers, calls).await?),
            (&mut in_turn, turn(&by_us_in_turn, callers, calls).await?),
            (&mut hand, turn(&by_hands, callers, calls).await?),
            (&mut stock, turn(&balanced, callers, calls).await?),
        ];
        // The first round warms up: connections, allocator, branch predictors, the servers.
        if round > 0 {
            for (samples, value) in measured {
                samples.push(value);
            }
        }
    }
    let peers = [&hand, &stock];
    report.compare(&full_name, "us", &us, &peers);
    report.compare(&full_name.replacen('/', "_round_robin/", 1), "us", &in_turn, &peers);
    Ok(())
}

/// CPU microseconds a call.
async fn turn<T: Transport>(
    clients: &[GreeterClient<T>],
    callers: usize,
    calls: u64,
) -> Result<f64, Box<dyn Error>> {
    let spent = closed(clients, callers, calls).await?;
    Ok(spent.cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(calls)?))
}
