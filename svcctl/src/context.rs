//! What every command gets: the connection to etcd, and the printer.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};
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
    /// Says when the user has had enough.
    pub cancelled: Cancelled,
}

/// Says when the user has had enough: ctrl-c, or SIGTERM; and again when the user does so again.
pub struct Cancelled(BoxStream<'static, ()>);

impl Cancelled {
    /// Each item is one; after the last one nobody asks any more.
    pub fn new(each: impl Stream<Item = ()> + Send + 'static) -> Cancelled {
        Cancelled(each.fuse().boxed())
    }

    /// Nobody asks.
    pub(crate) fn never() -> Cancelled {
        Cancelled::new(futures_util::stream::pending())
    }

    /// The user has had enough, or has it once more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn asked(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancelled").finish_non_exhaustive()
    }
}

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
