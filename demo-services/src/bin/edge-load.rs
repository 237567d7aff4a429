//! Sends gifts, or asks for greetings, through the edge and says what came of it; see `--help`.

use demo_services::load::EdgeLoadArgs;
use demo_services::telemetry;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    telemetry::init();
    let args: EdgeLoadArgs = svc_registry::cli::parse();
    telemetry::exit_code(args.run().await)
}
