//! Calls a greeter steadily and says what came of it; see `--help`.

use demo_services::load::LoadArgs;
use demo_services::telemetry;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    telemetry::init();
    let args: LoadArgs = svc_registry::cli::parse();
    telemetry::exit_code(args.run().await)
}
