//! The ledger of coins, registered in etcd; see `--help`.

use demo_services::balance::BalanceArgs;
use demo_services::{config, telemetry};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: BalanceArgs = config::parse();
    telemetry::exit_code(args.run().await)
}
