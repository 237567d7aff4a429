//! One child process: a binary beside our own, its output in a file of the stage's folder.
//!
//! Whoever owns a [`Child`] owns the process: it is killed when the value is dropped, so that none is left behind
//! when the demo fails, is interrupted or panics.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::exit::{Exit, Failure};

/// The longest that a short command may take.
const RUN: Duration = Duration::from_secs(30);

/// A signal that the story sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    /// Ends the process at once, without a goodbye.
    Kill,
    /// Asks it to stop.
    Terminate,
    /// What ctrl-c sends.
    Interrupt,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a binary that writes what it says to `log`, which is appended to.
    pub(super) fn start<A: AsRef<OsStr>>(
        name: &str,
        binary: &Path,
        log: PathBuf,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Child, Failure> {
        Self::spawn(name, binary, log, arguments, |command, file| {
            command.stdout(file.try_clone()?).stderr(file);
            Ok(())
        })
    }

    /// The same with its output read by us.
    pub(super) fn start_piped<A: AsRef<OsStr>>(
        name: &str,
        binary: &Path,
        log: PathBuf,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(Child, ChildStdout, ChildStderr), Failure> {
        let mut child = Self::spawn(name, binary, log, arguments, |command, _| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            Ok(())
        })?;
        match (child.process.stdout.take(), child.process.stderr.take()) {
            (Some(out), Some(err)) => Ok((child, out, err)),
            _ => Err(Failure::new(Exit::Other, format!("{name} was started without pipes"))),
        }
    }

    fn spawn<A: AsRef<OsStr>>(
        name: &str,
        binary: &Path,
        log: PathBuf,
        arguments: impl IntoIterator<Item = A>,
        output: impl FnOnce(&mut Command, File) -> std::io::Result<()>,
    ) -> Result<Child, Failure> {
        let failed = |error| Failure::new(Exit::Other, format!("cannot start {}: {error}", binary.display()));
        let file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        clean(&mut command);
        output(&mut command, file).map_err(failed)?;
        let process = command.spawn().map_err(failed)?;
        Ok(Child { name: name.to_owned(), process, log })
    }

    /// Its number, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends a signal; nothing happens to a process that has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        let sent = match signal {
            Signal::Kill => self.process.start_kill(),
            Signal::Terminate | Signal::Interrupt => ask(self.process.id(), signal),
        };
        sent.map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", self.name)))
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self, within: Duration) -> Result<ExitStatus, Failure> {
        match timeout(within, self.process.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(Failure::new(Exit::Other, format!("{}: {error}", self.name))),
            Err(_) => {
                Err(Failure::new(Exit::Other, format!("{} has not ended within {within:?}", self.name)))
            }
        }
    }

    /// Fails if it has ended although nobody asked it to.
    pub(super) fn lives(&mut self) -> Result<(), Failure> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let log = self.log.display();
                Err(Failure::new(Exit::Other, format!("{} ended by itself ({status}), see {log}", self.name)))
            }
            Err(error) => Err(Failure::new(Exit::Other, format!("{}: {error}", self.name))),
        }
    }
}

/// The actors know only this stage: what the user's shell says of another etcd must not reach them.
fn clean(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if ["SVC_", "ETCDCTL_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
            command.env_remove(variable);
        }
    }
}

/// Runs a short command to its end; what it prints, or what is wrong with it.
pub(super) async fn run(binary: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Other, format!("{} {}: {why}", binary.display(), arguments.join(" ")))
    };
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    clean(&mut command);
    let ended =
        timeout(RUN, command.output()).await.map_err(|_| failed(&format_args!("no end in {RUN:?}")))?;
    let output = ended.map_err(|error| failed(&error))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(failed(&format_args!("{}\n{}{}", output.status, out.trim_end(), err.trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(unix)]
fn ask(pid: Option<u32>, signal: Signal) -> std::io::Result<()> {
    use nix::sys::signal::{Signal as Unix, kill};
    let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
    let signal = match signal {
        Signal::Interrupt => Unix::SIGINT,
        Signal::Terminate => Unix::SIGTERM,
        Signal::Kill => Unix::SIGKILL,
    };
    kill(nix::unistd::Pid::from_raw(pid), signal).map_err(Into::into)
}

#[cfg(not(unix))]
fn ask(_: Option<u32>, _: Signal) -> std::io::Result<()> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "the demo needs signals, as Linux and macOS have them",
    ))
}
