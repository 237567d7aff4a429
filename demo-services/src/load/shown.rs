//! How a load shows its progress and its result: what the flags of every load have in common.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::Report;

/// The flags.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ShownArgs {
    /// How the result is printed, on stdout: table or json
    #[arg(short, long, env = "SVC_OUTPUT", value_enum, default_value_t = Output::Table, value_name = "FORMAT",
          hide_possible_values = true)]
    output: Output,

    /// How the progress is shown, on stderr: auto (a line, on a terminal), json (a line of what -o json would print
    /// now, twice a second) or none
    #[arg(long, env = "SVC_PROGRESS", value_enum, default_value_t = Progress::Auto, value_name = "KIND",
          hide_possible_values = true)]
    progress: Progress,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Progress {
    /// A line that is kept up to date on a terminal; nothing elsewhere
    Auto,
    /// A line of JSON twice a second: what -o json would print if the run ended now
    Json,
    /// Nothing
    None,
}

impl ShownArgs {
    /// The progress, as it was asked for.
    pub(super) fn progress(self) -> Shown {
        Shown::new(self.progress)
    }

    /// Prints the result.
    pub(super) fn result(self, report: &Report) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let text = match self.output {
            Output::Table => report.to_string(),
            Output::Json => serde_json::to_string(report)? + "\n",
        };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

/// The progress, as it was asked for; the line goes with the value.
pub(super) enum Shown {
    Line(ProgressBar),
    Json,
    Nothing,
}

impl Shown {
    fn new(progress: Progress) -> Shown {
        match progress {
            Progress::Auto if std::io::stderr().is_terminal() => {
                let line = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {msg}") {
                    line.set_style(style);
                }
                Shown::Line(line)
            }
            Progress::Auto | Progress::None => Shown::Nothing,
            Progress::Json => Shown::Json,
        }
    }

    pub(super) fn report(&mut self, report: &Report) {
        match self {
            Shown::Line(line) => {
                let instances: Vec<String> =
                    report.by_instance.iter().map(|(id, n)| format!("{} {n}", id.escape_debug())).collect();
                let (calls, failed) = (report.calls, report.failed);
                line.set_message(format!("{calls} calls, {failed} failed   {}", instances.join("   ")));
                line.tick();
            }
            Shown::Json => {
                // Nobody listening to the progress is no reason to end the run.
                if let Ok(json) = serde_json::to_string(report) {
                    let _ = writeln!(std::io::stderr(), "{json}");
                }
            }
            Shown::Nothing => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Shown::Line(line) = self {
            line.finish_and_clear();
        }
    }
}
