//! The right to one stream of a connection.

use std::sync::Arc;

use super::connection::Connection;

/// The right to one stream. Its drop gives the right back: at once where the stream has ended in order, else once the
/// driver has had a chance to write the RST_STREAM that frees it at the peer.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    connection: Arc<Connection>,
    reset: bool,
}

impl Slot {
    /// `None` where the peer allows no more streams, or the connection takes no new calls.
    pub(crate) fn take(connection: &Arc<Connection>) -> Option<Slot> {
        connection.slots.take().then(|| Slot { connection: connection.clone(), reset: true })
    }

    /// The stream ended in order: both sides have said END_STREAM.
    pub(crate) fn ended(&mut self) {
        self.reset = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.reset {
            self.connection.slots.release_after_write();
        } else {
            self.connection.slots.release(1, &self.connection.slot_freed);
        }
    }
}
