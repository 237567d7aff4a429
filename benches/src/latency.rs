//! The 99th percentile at the same offered load: all backends well, and one of them slower by 100 ms. Calls are due at
//! a fixed rate, and a latency counts from when its call was due.

use std::error::Error;
use std::time::Duration;

use svc_channel::Channel;
use svc_proto::greeter::v1::greeter_client::GreeterClient;

use crate::backends::Backends;
use crate::contestants::{STOCK, ours, stock};
use crate::load::{Transport, closed, offered};
use crate::report::Report;
use crate::rounds::Samples;
use crate::{Effort, report};

/// The part that the rows' names share.
pub(crate) const NAME: &str = "p99";

const BACKENDS: usize = 8;
const RATE: u32 = 5_000;
const TIME: Duration = Duration::from_secs(2);

/// Runs the rows.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress("p99, all well and one slower by 100 ms");
    let well = Backends::start(BACKENDS)?;
    let ill = Backends::start_with_a_slow_one(BACKENDS, Duration::from_millis(100))?;
    let (ours_well, stock_well) = (ours(&well.addresses, Channel::builder())?, stock(&well.addresses, None)?);
    let (ours_ill, stock_ill) = (ours(&ill.addresses, Channel::builder())?, stock(&ill.addresses, None)?);

    let (mut us, mut peer) = (Samples::of("ours"), Samples::of(STOCK));
    let (mut us_ill, mut peer_ill) = (Samples::of("ours"), Samples::of(STOCK));
    for round in 0..=effort.rounds {
        let measured = [
            (&mut us, p99(&ours_well).await?),
            (&mut peer, p99(&stock_well).await?),
            (&mut us_ill, p99(&ours_ill).await?),
            (&mut peer_ill, p99(&stock_ill).await?),
        ];
        // The first round warms up.
        if round > 0 {
            for (samples, value) in measured {
                samples.push(value);
            }
        }
    }
    report.compare("p99/8 at 5000/s", "us", &us, &[&peer]);
    us.rename("ours, all well");
    report.compare("p99_one_slow/8 at 5000/s", "us", &us_ill, &[&us, &peer_ill]);
    Ok(())
}

async fn p99<T: Transport>(client: &GreeterClient<T>) -> Result<f64, Box<dyn Error>> {
    // Averages are fresh, as those of a service at work are.
    closed(std::slice::from_ref(client), BACKENDS, 1_000).await?;
    let latencies = offered(client, RATE, TIME).await?;
    Ok(f64::from(u32::try_from(latencies.value_at_quantile(0.99))?))
}
