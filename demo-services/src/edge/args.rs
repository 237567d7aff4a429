//! `edge`: its flags, and the server that they describe.

use std::time::Duration;

use super::Edge;
use super::protocol::Protocols;
use crate::config::ServiceArgs;
use crate::error::BoxError;

/// The name under which edges register.
const SERVICE: &str = "edge";

/// HTTP and JSON outside, gRPC inside: POST /v1/greeter/SayHello, and a page on / to try it.
///
/// Registers in etcd as `edge`; answers health checks by gRPC on the same port. SIGTERM and ctrl-c stop it in order.
#[derive(Debug, clap::Parser)]
#[command(name = "edge", version)]
pub struct EdgeArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Longest that a caller waits for an answer; a request-timeout header may say less
    #[arg(long, env = "SVC_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Event streams that are open at once; one more is refused
    #[arg(long, env = "SVC_MAX_EVENT_STREAMS", default_value_t = 10_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_event_streams: u32,
}

impl EdgeArgs {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// A wrong configuration; the address cannot be listened on; another process has taken over its id.
    pub async fn run(self) -> Result<(), BoxError> {
        let protocols = Protocols::load()?;
        let callees: Vec<&str> = protocols.services().collect();
        let service = self.service.start(SERVICE, &callees).await?;
        let edge = Edge::new(&service, protocols, self.timeout, self.max_event_streams)?;
        service.serve_http(edge.routes()).run().await?;
        Ok(())
    }
}
