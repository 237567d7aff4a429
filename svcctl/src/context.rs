//! What every command gets: the connection to etcd, and the printer.

use std::pin::Pin;
use std::time::Duration;

use svc_registry::{Etcd, InstanceId, ServiceName};

use crate::cli::Target;
use crate::exit::Failure;
use crate::inventory::Key;
use crate::output::Printer;

/// What a command works with.
pub struct Context<'a> {
    /// The registry's etcd.
    pub etcd: Etcd,
    /// Where results go.
    pub printer: &'a mut Printer,
    /// Resolves when the user has had enough.
    pub cancelled: Cancelled,
}

/// Resolves when the user has had enough: ctrl-c, or SIGTERM.
pub type Cancelled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Context<'_> {
    /// The longest wait for etcd to answer a command.
    pub fn command_timeout(&self) -> Duration {
        self.etcd.config().command_timeout()
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("etcd", &self.etcd).finish_non_exhaustive()
    }
}

impl Target {
    /// The names, checked: the id may be one that another system chose.
    pub(crate) fn key(&self) -> Result<Key, Failure> {
        Ok((ServiceName::new(&self.service)?, InstanceId::foreign(&self.id)?))
    }
}
