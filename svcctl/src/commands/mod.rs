//! One file a command: arguments and context in, results printed, exit code out.

pub(crate) mod deregister;
pub(crate) mod dev;
pub(crate) mod drain;
pub(crate) mod get;
pub(crate) mod probe;
pub(crate) mod register;
pub(crate) mod resolve;
pub(crate) mod services;
pub(crate) mod set;
pub(crate) mod undrain;
pub(crate) mod watch;

mod health;
mod intent;
