//! What a program tells of itself: `tracing` events as lines on stderr, so that stdout holds results only; the trace
//! context of calls; metrics for Prometheus.
//!
//! `log` writes lines, `observe` is the layer around a server's calls, `sizes` measures their messages, `prometheus`
//! serves what was measured.

mod log;
mod observe;
mod prometheus;
mod sizes;

use std::process::ExitCode;

use opentelemetry::global;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::error::BoxError;

pub use log::LogFormat;
pub use observe::{Observe, Observed, ObservedBody};

/// The variable of `--log-level`.
pub(crate) const LOG_LEVEL: &str = "SVC_LOG_LEVEL";

/// What is logged unless somebody says otherwise.
const INFO: &str = "info";

/// The flags of what a service tells of itself.
#[derive(Clone, Debug, clap::Args)]
pub struct TelemetryArgs {
    /// How lines are written, on stderr: text, for people, or json, for programs
    #[arg(long, env = "SVC_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT",
          hide_possible_values = true, help_heading = "telemetry")]
    log_format: LogFormat,

    /// What is logged: a level, or levels by target, such as info,svc_channel=debug [default: what RUST_LOG says, else
    /// info]
    #[arg(long, env = LOG_LEVEL, value_name = "FILTER", value_parser = log::filter, overrides_with = "log_level",
          help_heading = "telemetry")]
    log_level: Option<String>,

    /// Where Prometheus reads /metrics; keep it off the network at large [default: nowhere]
    #[arg(long, env = "SVC_METRICS_LISTEN", value_name = "ADDR", help_heading = "telemetry")]
    metrics_listen: Option<String>,
}

impl TelemetryArgs {
    /// Begins to log, to pass the trace context on, and to serve metrics, as these flags say.
    ///
    /// # Errors
    /// The metrics' address cannot be listened on.
    pub(crate) async fn start(&self, service: &'static str) -> Result<(), BoxError> {
        log::start(service, self.log_format, self.log_level.as_deref().unwrap_or(INFO));
        global::set_text_map_propagator(TraceContextPropagator::new());
        if let Some(address) = &self.metrics_listen {
            prometheus::start(address).await?;
        }
        Ok(())
    }

    /// Whether anybody reads what is measured.
    pub(crate) fn has_metrics(&self) -> bool {
        self.metrics_listen.is_some()
    }
}

/// Starts logging of a program that is no service, as text; `RUST_LOG` chooses what is written, `info` and above unless
/// it is set.
///
/// A second call changes nothing, so that tests may call it too.
pub fn init() {
    let filter = std::env::var(tracing_subscriber::EnvFilter::DEFAULT_ENV);
    let filter = filter.ok().filter(|filter| log::filter(filter).is_ok());
    log::start("", LogFormat::Text, filter.as_deref().unwrap_or(INFO));
}

/// The exit code of a binary that ended so; an error is logged.
pub fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
