//! Small messages on streams: one backend, a few streams at once, the client on one worker; messages a second, from
//! the server and to it. Ours against a stock tonic `Channel`.

use std::error::Error;

use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::backends::Backends;
use crate::load::Transport;
use crate::report::Report;
use crate::rounds::{Meter, Samples};
use crate::{Effort, report};

/// The part that the rows' names share.
pub(crate) const NAME: &str = "stream_messages";
const FROM_SERVER: &str = "stream_messages_down/1x4";
const TO_SERVER: &str = "stream_messages_up/1x4";

const STREAMS: u32 = 4;

/// A turn takes milliseconds, and single ones differ by a third: with so many times the rounds the medians hold still.
const MORE_ROUNDS: u32 = 6;

/// Runs the rows.
pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report::progress(NAME);
    let backends = Backends::start(1)?;
    let address = &backends.addresses[0];
    let stock = GreeterClient::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?);
    let ours = GreeterClient::new(svc_channel::Channel::fixed([svc_channel::Endpoint::new(address)?]));
    // A small message costs a hundredth of a call.
    let messages = u32::try_from(effort.calls * 10)?;

    let (mut our_down, mut our_up) = (Samples::of("ours"), Samples::of("ours"));
    let (mut stock_down, mut stock_up) = (Samples::of("tonic Channel"), Samples::of("tonic Channel"));
    for round in 0..=effort.rounds * MORE_ROUNDS {
        let measured = [
            (&mut our_down, down(&ours, messages).await?),
            (&mut stock_down, down(&stock, messages).await?),
            (&mut our_up, up(&ours, messages).await?),
            (&mut stock_up, up(&stock, messages).await?),
        ];
        // The first round warms up.
        if round > 0 {
            for (samples, value) in measured {
                samples.push(value);
            }
        }
    }
    report.compare(FROM_SERVER, "messages/s", &our_down, &[&stock_down]);
    report.compare(TO_SERVER, "messages/s", &our_up, &[&stock_up]);
    Ok(())
}

/// `messages` from the server on each stream.
async fn down<T: Transport>(client: &GreeterClient<T>, messages: u32) -> Result<f64, Box<dyn Error>> {
    let meter = Meter::start()?;
    // Each ends with its stream; the first error ends the run.
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut client = client.clone();
        streams.spawn(async move {
            let request = LotsOfRepliesRequest { name: String::new(), count: messages, interval_ms: 0 };
            let mut replies = client.lots_of_replies(request).await?.into_inner();
            let mut count = 0;
            while replies.message().await?.is_some() {
                count += 1;
            }
            if count == messages { Ok(()) } else { Err(Status::data_loss("messages are missing")) }
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    Ok(f64::from(messages * STREAMS) / meter.stop()?.wall.as_secs_f64())
}

/// `messages` to the server on each stream.
async fn up<T: Transport>(client: &GreeterClient<T>, messages: u32) -> Result<f64, Box<dyn Error>> {
    let meter = Meter::start()?;
    // Each ends with its stream; the first error ends the run.
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut client = client.clone();
        streams.spawn(async move {
            // Not tokio_stream's iterator: that one pauses after every 32 items, and what was encoded till then becomes a
            // frame, so small that h2's servers end the connection when they read too slowly.
            let requests =
                futures_util::stream::iter((0..messages).map(|_| HelloRequest { name: String::new() }));
            let count = client.lots_of_greetings(requests).await?.into_inner().count;
            if count == messages { Ok(()) } else { Err(Status::data_loss("messages are missing")) }
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    Ok(f64::from(messages * STREAMS) / meter.stop()?.wall.as_secs_f64())
}
