//! The wrapped command: a child in a process group of its own, so that it hears of a ctrl-c only through us, once, and so
//! that a shell's children hear of it too.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal};
use std::process::{ExitStatus, Stdio};

use super::signals::Signal;
use crate::exit::{Exit, Failure};

/// What shells end with where a command cannot be run, and where there is none.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A command that was started; it is killed when this is dropped before it has ended.
#[derive(Debug)]
pub(super) struct Command {
    name: String,
    process: tokio::process::Child,
}

impl Command {
    /// Starts the command, if there is one. It has our stdin unless that is a terminal, our stdout and our stderr.
    pub(super) fn start(words: &[OsString]) -> Result<Option<Command>, Failure> {
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        let name = program.to_string_lossy().into_owned();
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).kill_on_drop(true);
        // A group in the background that reads from its terminal is stopped by it.
        if std::io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        #[cfg(unix)]
        command.process_group(0);
        match command.spawn() {
            Ok(process) => Ok(Some(Command { name, process })),
            Err(error) => {
                let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
                Err(Failure::new(Exit::Command(code), format!("cannot start {name}: {error}")))
            }
        }
    }

    /// Sends a signal to it and to those that it started; nothing happens where they have ended.
    pub(super) fn send(&mut self, signal: Signal) -> Result<(), Failure> {
        self.signal(signal)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot signal {}: {error}", self.name)))
    }

    #[cfg(unix)]
    fn signal(&mut self, signal: Signal) -> std::io::Result<()> {
        use nix::errno::Errno;
        use nix::sys::signal::Signal as Unix;
        let signal = match signal {
            Signal::Terminate => Unix::SIGTERM,
            Signal::Interrupt => Unix::SIGINT,
            Signal::Hangup => Unix::SIGHUP,
            Signal::Quit => Unix::SIGQUIT,
            Signal::User1 => Unix::SIGUSR1,
            Signal::User2 => Unix::SIGUSR2,
        };
        match self.group(signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => sent.map_err(Into::into),
        }
    }

    /// The group has the child's pid, which is ours as long as we have not waited for the child.
    #[cfg(unix)]
    fn group(&self, signal: nix::sys::signal::Signal) -> nix::Result<()> {
        let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), signal)
    }

    /// Where there are no signals, whoever asks for an end gets one.
    #[cfg(not(unix))]
    fn signal(&mut self, signal: Signal) -> std::io::Result<()> {
        if signal.stops() { self.process.start_kill() } else { Ok(()) }
    }

    /// Waits until it has ended; its code, as a shell tells it. Cancel safe.
    pub(super) async fn ended(&mut self) -> Result<u8, Failure> {
        match self.process.wait().await {
            Ok(status) => Ok(code(status)),
            Err(error) => Err(Failure::new(Exit::Other, format!("cannot wait for {}: {error}", self.name))),
        }
    }
}

#[cfg(unix)]
impl Drop for Command {
    fn drop(&mut self) {
        // Whom it started too; without an id it has ended, and what it left running was meant to run on.
        let _ = self.group(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Its own code, or 128 and the signal that killed it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(signal).unwrap_or_default().saturating_add(128);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
