//! The gifts, registered in etcd; see `--help`.

use demo_services::gift::GiftArgs;
use demo_services::{config, telemetry};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: GiftArgs = config::parse();
    telemetry::exit_code(args.run().await)
}
