//! `greeter`: its flags, and the server that they describe.

use std::time::Duration;

use svc_proto::greeter::v1::greeter_server::{GreeterServer, SERVICE_NAME};
use svc_proto::helloworld;

use super::Greeter;
use crate::config::ServiceArgs;
use crate::error::BoxError;

/// The name under which greeters register.
const SERVICE: &str = "greeter";

/// A service that greets, in every kind of gRPC call, and says who it is.
///
/// Registers in etcd as `greeter`, with health and reflection. SIGTERM and ctrl-c stop it in order.
#[derive(Debug, clap::Parser)]
#[command(name = "greeter", version)]
pub struct GreeterArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Wait this long before each answer, to see what slow services do
    #[arg(long, env = "SVC_DELAY", default_value = "0s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    delay: Duration,

    /// Fail so many of a hundred calls as UNAVAILABLE, to see what clients make of it
    #[arg(long, env = "SVC_FAIL_PERCENT", default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_percent: u8,
}

impl GreeterArgs {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// A wrong configuration; the address cannot be listened on; another process has taken over its id.
    pub async fn run(self) -> Result<(), BoxError> {
        let service = self.service.start(SERVICE, &[]).await?;
        let greeter = Greeter::new(self.delay, self.fail_percent);
        let signer = greeter.clone();
        let largest = service.max_message_size();
        let stock = helloworld::greeter_server::GreeterServer::new(greeter.clone());
        service
            .serve()
            .add_service(GreeterServer::new(greeter).max_decoding_message_size(largest))
            .add_service(stock.max_decoding_message_size(largest))
            .add_service(service.reflection(&[SERVICE_NAME, helloworld::greeter_server::SERVICE_NAME])?)
            .started(move |instance| signer.sign_as(instance.id().as_str()))
            .run()
            .await?;
        Ok(())
    }
}
