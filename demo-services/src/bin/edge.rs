//! The edge, registered in etcd; see `--help`.

use demo_services::edge::EdgeArgs;
use demo_services::{config, telemetry};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: EdgeArgs = config::parse();
    telemetry::exit_code(args.run().await)
}
