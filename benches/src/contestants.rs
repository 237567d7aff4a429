//! Who is compared: our channel, tonic's `balance_channel`, and round robin by hand over tonic's channels.

use std::error::Error;
use std::time::Duration;

use svc_channel::ChannelBuilder;
use svc_proto::greeter::v1::greeter_client::GreeterClient;
use tonic::transport::{Channel, Endpoint};

/// The names of the peers in the report.
pub(crate) const BY_HAND: &str = "by-hand round robin";
pub(crate) const STOCK: &str = "balance_channel";

/// Ours, as the builder makes it.
pub(crate) fn ours(
    addresses: &[String],
    builder: ChannelBuilder,
) -> Result<GreeterClient<svc_channel::Channel>, Box<dyn Error>> {
    let endpoints: Result<Vec<_>, _> = addresses.iter().map(svc_channel::Endpoint::new).collect();
    Ok(GreeterClient::new(builder.fixed(endpoints?)))
}

/// tonic's own balancer. Its deadline covers the response's head only: tonic has none for the rest.
pub(crate) fn stock(
    addresses: &[String],
    deadline: Option<Duration>,
) -> Result<GreeterClient<Channel>, Box<dyn Error>> {
    Ok(GreeterClient::new(Channel::balance_list(endpoints(addresses, deadline)?.into_iter())))
}

/// A client for each address, to be taken in turn.
pub(crate) async fn by_hand(
    addresses: &[String],
    deadline: Option<Duration>,
) -> Result<Vec<GreeterClient<Channel>>, Box<dyn Error>> {
    let mut clients = Vec::new();
    for endpoint in endpoints(addresses, deadline)? {
        clients.push(GreeterClient::new(endpoint.connect().await?));
    }
    Ok(clients)
}

fn endpoints(
    addresses: &[String],
    deadline: Option<Duration>,
) -> Result<Vec<Endpoint>, tonic::transport::Error> {
    let endpoint = |address| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(match deadline {
            Some(deadline) => endpoint.timeout(deadline),
            None => endpoint,
        })
    };
    addresses.iter().map(endpoint).collect()
}
