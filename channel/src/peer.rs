//! [`Peer`]: where a call went, for callers whose errors have to name it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::endpoint::Endpoint;

/// A request extension that learns where the call goes, as grpc-go's `grpc.Peer` does. Kept by the caller, it also tells
/// who was asked when the answer never came.
///
/// ```
/// let peer = svc_channel::Peer::default();
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(peer.clone());
/// // ... the call; then, answered or not:
/// for endpoint in peer.asked() {
///     println!("asked {}", endpoint.address);
/// }
/// ```
///
/// One for each call: those that share one are told as one. A call without it pays nothing.
#[derive(Clone, Debug, Default)]
pub struct Peer(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    asked: Vec<Arc<Endpoint>>,
    answered: Option<Arc<Endpoint>>,
}

impl Peer {
    /// The endpoint whose answer, or whose failure, the caller was given. `None` before that, and where the channel ended
    /// the call itself: no endpoint could be reached, or the deadline passed.
    pub fn answered(&self) -> Option<Arc<Endpoint>> {
        self.known().answered.clone()
    }

    /// The endpoints that the call was sent to, in order: several where it was retried or hedged.
    pub fn asked(&self) -> Vec<Arc<Endpoint>> {
        self.known().asked.clone()
    }

    /// The call was sent there.
    pub(crate) fn sent(&self, endpoint: &Arc<Endpoint>) {
        self.known().asked.push(endpoint.clone());
    }

    /// What came from there is what the caller is given.
    pub(crate) fn settled(&self, endpoint: &Arc<Endpoint>) {
        self.known().answered = Some(endpoint.clone());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that could panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
