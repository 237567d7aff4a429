//! 1 MB messages, there and back: one backend, a few callers, the client on one worker. Ours against a stock tonic
//! `Channel`: throughput on the clock, and CPU time a call.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::backends::{Backends, ECHO_PATH, Payload};
use crate::load::Transport;
use crate::report::Report;
use crate::rounds::{Meter, Samples, Spent};
use crate::{Effort, report};

pub(crate) const NAME: &str = "echo_1mb/1x4";
const CPU_NAME: &str = "echo_1mb_cpu/1x4";

const CALLERS: usize = 4;
const MEGABYTE: usize = 1024 * 1024;

/// Runs the row.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let backends = Backends::start(1)?;
    let address = &backends.addresses[0];
    let stock = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let ours = svc_channel::Channel::fixed([svc_channel::Endpoint::new(address)?]);
    let payload = Payload { data: Bytes::from(vec![b'x'; MEGABYTE]) };
    let calls = u32::try_from(effort.calls / 200)?;

    let (mut our_rate, mut our_cpu) = (Samples::of("ours"), Samples::of("ours"));
    let (mut stock_rate, mut stock_cpu) = (Samples::of("tonic Channel"), Samples::of("tonic Channel"));
    for round in 0..=effort.rounds {
        let measured = [
            (&mut our_rate, &mut our_cpu, turn(&ours, &payload, calls).await?),
            (&mut stock_rate, &mut stock_cpu, turn(&stock, &payload, calls).await?),
        ];
        // The first round warms up.
        if round > 0 {
            for (rate, cpu, spent) in measured {
                rate.push(f64::from(calls) / spent.wall.as_secs_f64());
                cpu.push(spent.cpu.as_secs_f64() * 1e6 / f64::from(calls));
            }
        }
    }
    report.compare(NAME, "MB/s", &our_rate, &[&stock_rate]);
    report.compare(CPU_NAME, "us", &our_cpu, &[&stock_cpu]);
    Ok(())
}

async fn turn<T: Transport>(channel: &T, payload: &Payload, calls: u32) -> Result<Spent, Box<dyn Error>> {
    let left = Arc::new(AtomicI64::new(calls.into()));
    let meter = Meter::start()?;
    // Callers end when no calls are left; the first error ends the run.
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (left, payload) = (left.clone(), payload.clone());
        let mut client = Grpc::new(channel.clone()).max_decoding_message_size(8 * MEGABYTE);
        callers.spawn(async move {
            while left.fetch_sub(1, Relaxed) > 0 {
                client.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
                let codec = ProstCodec::<Payload, Payload>::default();
                let path = PathAndQuery::from_static(ECHO_PATH);
                let reply = client.unary(Request::new(payload.clone()), path, codec).await?;
                if reply.get_ref().data.len() != MEGABYTE {
                    return Err(Status::data_loss("the echo is not what was sent"));
                }
            }
            Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    meter.stop()
}
