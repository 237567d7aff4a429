//! Heap allocations of one small unary call, the caller's and the connections' together: 8 backends, 64 callers. They
//! are counted for one thread, so the row runs on a thread and a runtime of its own.

use std::error::Error;

use svc_channel::Channel;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tokio::runtime::{Builder, Runtime};

use crate::backends::Backends;
use crate::contestants::{BY_HAND, STOCK, by_hand, ours, stock};
use crate::load::{Transport, closed};
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

pub(crate) const NAME: &str = "allocations/8x64";

const BACKENDS: usize = 8;
const CALLERS: usize = 64;

/// Runs the row.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    // Awaited here; ends with its calls.
    let counted = tokio::task::spawn_blocking(move || -> Result<_, String> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        count(&runtime, effort).map_err(|e| e.to_string())
    });
    let [us, hand, stock] = counted.await??;
    report.compare(NAME, "allocations", &us, &[&hand, &stock]);
    Ok(())
}

fn count(runtime: &Runtime, effort: Effort) -> Result<[Samples; 3], Box<dyn Error>> {
    let backends = Backends::start(BACKENDS)?;
    let addresses = &backends.addresses;
    let (by_us, by_hands, balanced) = runtime.block_on(async {
        let by_us = [ours(addresses, Channel::builder())?];
        let by_hands = by_hand(addresses, None).await?;
        Ok::<_, Box<dyn Error>>((by_us, by_hands, [stock(addresses, None)?]))
    })?;
    let (mut us, mut hand, mut stock) = (Samples::of("ours"), Samples::of(BY_HAND), Samples::of(STOCK));
    for round in 0..=effort.rounds {
        let measured = [
            (&mut us, turn(runtime, &by_us, effort.calls / 4)?),
            (&mut hand, turn(runtime, &by_hands, effort.calls / 4)?),
            (&mut stock, turn(runtime, &balanced, effort.calls / 4)?),
        ];
        // The first round connects.
        if round > 0 {
            for (samples, value) in measured {
                samples.push(value);
            }
        }
    }
    // Tasks of the channels may be dropped only with their runtime.
    drop((by_us, by_hands, balanced));
    Ok([us, hand, stock])
}

/// Allocations a call.
fn turn<T: Transport>(
    runtime: &Runtime,
    clients: &[GreeterClient<T>],
    calls: u64,
) -> Result<f64, Box<dyn Error>> {
    let mut outcome = Ok(());
    let counted = allocation_counter::measure(|| {
        outcome = runtime.block_on(closed(clients, CALLERS, calls)).map(drop);
    });
    outcome?;
    Ok(f64::from(u32::try_from(counted.count_total)?) / f64::from(u32::try_from(calls)?))
}
