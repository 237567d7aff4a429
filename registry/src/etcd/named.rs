//! Which member an answer, or the lack of one, is of. `transport.rs` notes it in the status that it passes up, as its source;
//! `error.rs` reads it there. Streams have their [`Peer`] with whoever opened them, since they may end much later.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use svc_channel::Peer;
use tonic::Status;

/// The source of a status of our transport.
#[derive(Debug)]
struct At(String);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd at {}", self.0)
    }
}

impl Error for At {}

/// The member that answered; where none did, those that were asked, or `None` where nobody could be.
pub(super) fn shown(peer: &Peer) -> Option<String> {
    if let Some(endpoint) = peer.answered() {
        return Some(endpoint.address.to_string());
    }
    let mut asked: Vec<String> = peer.asked().iter().map(|endpoint| endpoint.address.to_string()).collect();
    asked.dedup();
    (!asked.is_empty()).then(|| asked.join(","))
}

/// Notes the member, unless one is noted: who failed first knows best.
pub(super) fn named(mut status: Status, peer: &Peer) -> Status {
    if member_of(&status).is_none()
        && let Some(shown) = shown(peer)
    {
        status.set_source(Arc::new(At(shown)));
    }
    status
}

/// The same status of the same member in other words.
pub(super) fn reworded(status: &Status, text: String) -> Status {
    let mut reworded = Status::new(status.code(), text);
    if let Some(member) = member_of(status) {
        reworded.set_source(Arc::new(At(member.to_owned())));
    }
    reworded
}

/// The member that a status is of, where that is known.
pub(super) fn member_of(status: &Status) -> Option<&str> {
    status.source()?.downcast_ref::<At>().map(|at| at.0.as_str())
}
