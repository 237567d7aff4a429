//! The greeter, registered in etcd; see `--help`.

use demo_services::greeter::GreeterArgs;
use demo_services::{config, telemetry};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: GreeterArgs = config::parse();
    telemetry::exit_code(args.run().await)
}
