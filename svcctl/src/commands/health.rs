//! grpc.health.v1's Check over a connection of its own: whether new connections are taken is a part of the question, and
//! a channel that is kept would wait longer and longer before it dials an instance that was away.

use svc_channel::{Channel, Endpoint};
use svc_registry::record::Address;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Whether the server at `at`, or one of its services, says that it serves; why not, in words.
pub(crate) async fn serving(at: Address, service: String) -> Result<(), String> {
    let endpoint = Endpoint::new(at.as_str()).map_err(|error| error.to_string())?;
    let mut health = HealthClient::new(Channel::fixed([endpoint]));
    let asked = if service.is_empty() { at.to_string() } else { format!("{at}, {service}") };
    match health.check(HealthCheckRequest { service }).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            status => Err(format!("{asked}: health is {}", status.as_str_name())),
        },
        Err(status) => Err(match status.code() {
            Code::Unimplemented => format!("{asked}: it has no grpc.health.v1"),
            Code::NotFound => format!("{asked}: its health service does not know that name"),
            _ => format!("{asked}: {}", status.message()),
        }),
    }
}
