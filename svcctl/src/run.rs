//! From arguments to exit code.

use std::ffi::OsString;
use std::process::ExitCode;
#[cfg(unix)]
use std::task::Poll;

use futures_util::stream::{self, Stream};
use svc_registry::Etcd;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::commands;
use crate::context::{Cancelled, Context};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Printer, escape};

/// Runs the process: its arguments, its stdout and stderr, ctrl-c and SIGTERM.
pub fn main() -> ExitCode {
    // Libraries log to stderr, and only what an operator must know unless RUST_LOG asks for more.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let mut printer = Printer::new(Format::Table);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(printer.colors_notes()).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.note(&format!("error: the runtime cannot start: {error}"));
            return Exit::Other.into();
        }
    };
    let exit = runtime.block_on(run(std::env::args_os(), printer, signalled()));
    // What still runs behind, such as a connection attempt, is of no use any more.
    runtime.shutdown_background();
    exit.into()
}

/// Runs one command line, the first word of which is the program's name, until it ends or is `cancelled`, each item of
/// which is one wish of the user's to end it.
///
/// Results and messages go to `printer`, whose format the command line overrides.
pub async fn run<I>(
    arguments: I,
    printer: Printer,
    cancelled: impl Stream<Item = ()> + Send + 'static,
) -> Exit
where
    I: IntoIterator<Item: Into<OsString>>,
{
    let cli: Cli = match svc_registry::cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, printer),
    };
    let mut printer = printer.with_format(cli.output);
    match Box::pin(dispatch(cli, &mut printer, Cancelled::new(cancelled))).await {
        Ok(exit) => exit,
        // Whoever closed the pipe, such as `head`, has what it wanted.
        Err(failure) if failure.is_broken_pipe() => Exit::Ok,
        Err(failure) => {
            printer.note(&format!("error: {}", escape(&failure.to_string())));
            failure.exit
        }
    }
}

async fn dispatch(cli: Cli, printer: &mut Printer, cancelled: Cancelled) -> Result<Exit, Failure> {
    // These have an etcd of their own, or none.
    match &cli.command {
        Command::Dev(args) => return commands::dev::run(printer, cancelled, args).await,
        Command::Demo(args) => return crate::demo::run(printer, cancelled, args).await,
        Command::Probe(args) => return commands::probe::run(printer, args).await,
        _ => {}
    }
    let mut context = Context { etcd: Etcd::new(cli.etcd.config()?)?, printer, cancelled };
    match &cli.command {
        Command::Services => commands::services::run(&mut context).await,
        Command::Get(args) => commands::get::run(&mut context, args).await,
        Command::Watch(args) => commands::watch::run(&mut context, args).await,
        Command::Drain(args) => commands::drain::run(&mut context, args).await,
        Command::Undrain(args) => commands::undrain::run(&mut context, args).await,
        Command::Set(args) => commands::set::run(&mut context, args).await,
        Command::Register(args) => Box::pin(commands::register::run(&mut context, args)).await,
        Command::Deregister(args) => commands::deregister::run(&mut context, args).await,
        Command::Resolve(args) => commands::resolve::run(&mut context, args).await,
        Command::Probe(_) | Command::Dev(_) | Command::Demo(_) => Ok(Exit::Ok),
    }
}

/// Help and version are results; the rest is a wrong command line.
fn explain(error: &clap::Error, mut printer: Printer) -> Exit {
    let text = error.render();
    if error.use_stderr() {
        printer.note(text.to_string().trim_end());
        Exit::Usage
    } else {
        match printer.text(text.to_string().trim_end()) {
            Ok(()) => Exit::Ok,
            Err(_) => Exit::Other,
        }
    }
}

/// Ctrl-c and SIGTERM, an item each. It listens from when it is first asked: a command that does not ask leaves them as
/// they are.
#[cfg(unix)]
fn signalled() -> impl Stream<Item = ()> + Send {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    // Either ends the wait; without a handler for one there is still the other.
    let listen = || -> Vec<Signal> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect()
    };
    let mut signals = None;
    stream::poll_fn(move |cx| {
        let signals = signals.get_or_insert_with(listen);
        match signals.iter_mut().any(|signal| matches!(signal.poll_recv(cx), Poll::Ready(Some(())))) {
            true => Poll::Ready(Some(())),
            false => Poll::Pending,
        }
    })
}

/// Ctrl-c, an item each.
#[cfg(not(unix))]
fn signalled() -> impl Stream<Item = ()> + Send {
    stream::unfold((), |()| async { tokio::signal::ctrl_c().await.is_ok().then_some(((), ())) })
}
