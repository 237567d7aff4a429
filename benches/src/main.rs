//! Side-by-side benchmarks: ours against what a user has without us, in one run, against the same servers, by turns.
//! Prints a table and writes `bench/report.json` into the target folder.
//!
//! The rows, a group a file: [`cpu_per_call`] and [`allocations`] (small unary calls), [`echo`] (1 MB messages),
//! [`streaming`], [`latency`] (the 99th percentile), [`failures`] (backends that die) and [`scale`] (many endpoints). They take
//! the backends of [`backends`], which run in other processes, and the clients of [`contestants`], put [`load`] on
//! them, and give rows to [`report`]. The rows of [`registration`] run on a real [`etcd`], against etcd-client by hand.

mod allocations;
mod backends;
mod contestants;
mod cpu_per_call;
mod echo;
mod etcd;
mod failures;
mod latency;
mod load;
mod registration;
mod report;
mod rounds;
mod scale;
mod streaming;

use std::error::Error;
use std::time::Duration;

use clap::{Parser, Subcommand};

use report::Report;

/// Benchmarks ours against stock tonic, side by side, and writes bench/report.json into the target folder.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,

    /// Only one group of rows: cpu_per_call, allocations, echo, stream_messages, p99, failed, endpoints, or, with a real
    /// etcd, registrations_per_second, register_to_visible, keepalives or whole_after_restart.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// How often each contestant has its turn; five or more for numbers that are to be believed.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Calls of each turn; rows with large messages make a two-hundredth of it.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    calls: u64,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The backends, in a process of their own: prints their addresses and serves until its stdin ends.
    #[command(hide = true)]
    Serve {
        /// How many there are.
        backends: usize,
        /// By how many milliseconds the first is slower than the others.
        #[arg(default_value_t = 0)]
        delay_ms: u64,
    },
    /// Small unary calls by ours alone, for a profiler: perf record -g svc-bench profile
    Profile {
        /// How many calls.
        #[arg(default_value_t = 1_000_000)]
        calls: u64,
    },
}

/// How much of each row is run.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u32,
    calls: u64,
}

// One worker, as the rows say; a client that shares its core with nobody but the kernel.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Serve { backends, delay_ms }) => {
            return backends::serve(backends, Duration::from_millis(delay_ms)).await;
        }
        Some(Part::Profile { calls }) => return cpu_per_call::profile(calls).await,
        None => {}
    }
    let effort = Effort { rounds: arguments.rounds, calls: arguments.calls };
    let wanted =
        |name: &str| arguments.only.as_deref().is_none_or(|only| name.contains(only) || only.contains(name));
    let mut report = Report::default();
    if wanted(cpu_per_call::NAME) {
        cpu_per_call::run(effort, &mut report).await?;
    }
    if wanted(allocations::NAME) {
        allocations::run(effort, &mut report).await?;
    }
    if wanted(echo::NAME) {
        echo::run(effort, &mut report).await?;
    }
    if wanted(streaming::NAME) {
        streaming::run(effort, &mut report).await?;
    }
    if wanted(latency::NAME) {
        latency::run(effort, &mut report).await?;
    }
    if wanted(failures::NAME) {
        failures::run(effort, &mut report).await?;
    }
    if wanted(scale::NAME) {
        scale::run(effort, &mut report).await?;
    }
    registration::run(effort, wanted, &mut report).await?;
    report.finish()
}
