//! How a command ended: the exit codes that scripts rely on, and the one error that carries them.

use std::error::Error as _;
use std::fmt;

/// The exit codes of `svcctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Something that has no code of its own.
    Other,
    /// The command line or a configuration value is wrong.
    Usage,
    /// There is no such service or instance.
    NotFound,
    /// No member of etcd answered within the command timeout.
    Unreachable,
    /// etcd refused the operation for want of permission.
    Denied,
    /// What was waited for did not happen in time; what was written stays.
    TimedOut,
    /// Refused as harmful; needs `--force` or another command, which the message names.
    Refused,
    /// What the command that `register` wraps has ended with.
    Command(u8),
}

impl Exit {
    /// What the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unreachable => 4,
            Self::Denied => 5,
            Self::TimedOut => 6,
            Self::Refused => 7,
            Self::Command(code) => code,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed: its exit code, and a message that names the remedy.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    message: String,
    broken_pipe: bool,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), broken_pipe: false }
    }

    /// Whoever read our output has stopped reading.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<svc_registry::Error> for Failure {
    fn from(error: svc_registry::Error) -> Self {
        Failure::new(exit_of(&error), error.to_string())
    }
}

impl From<svc_resolver::Error> for Failure {
    fn from(error: svc_resolver::Error) -> Self {
        let etcd = error.source().and_then(|source| source.downcast_ref::<svc_registry::Error>());
        let exit = match etcd {
            _ if error.is_target() => Exit::Usage,
            Some(etcd) => exit_of(etcd),
            None => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    }
}

fn exit_of(error: &svc_registry::Error) -> Exit {
    if error.is_unreachable() {
        Exit::Unreachable
    } else if error.is_denied() {
        Exit::Denied
    } else if error.is_config() {
        Exit::Usage
    } else {
        Exit::Other
    }
}

impl From<svc_registry::InvalidName> for Failure {
    fn from(error: svc_registry::InvalidName) -> Self {
        Failure::new(Exit::Usage, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Failure { broken_pipe, ..Failure::new(Exit::Other, format!("cannot write: {error}")) }
    }
}
