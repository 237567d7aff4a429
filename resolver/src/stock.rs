//! A stock tonic channel fed by the same `Discover`, for code that needs that type.
//!
//! It keeps tonic's own balancing with all that comes with it: it picks at random, moves only when requests come, and
//! leaves calls waiting while there is no instance.

use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;
use tonic::transport::channel::Change as StockChange;
use tonic::transport::{Channel, Endpoint};
use tower::BoxError;
use tower::discover::Change;

use crate::discover::EtcdDiscover;
use crate::resolved::{MakeEndpoint, Resolved};

/// Changes that wait for tonic, which takes them as requests come. When it is full the catalog coalesces.
const WAITING: usize = 256;

/// Makes stock tonic's endpoints.
#[derive(Debug, Clone, Copy, Default)]
pub struct TonicEndpoints;

impl MakeEndpoint for TonicEndpoints {
    type Service = Endpoint;

    fn make(&mut self, instance: &Resolved) -> Result<Endpoint, BoxError> {
        if instance.secure {
            return Err("it wants TLS, which this channel is built without".into());
        }
        Ok(Endpoint::from_shared(format!("http://{}", instance.address))?)
    }
}

/// A stock channel that follows the `Discover`.
pub(crate) fn channel(discover: EtcdDiscover<TonicEndpoints>) -> Channel {
    let (channel, changes) = Channel::balance_channel(WAITING);
    // Owned by the channel: ends when its last clone is dropped, which closes the queue. Bounded by that queue; it has
    // no errors, as the `Discover` has none.
    tokio::spawn(async move {
        let mut discover = pin!(discover);
        loop {
            let next = poll_fn(|cx| discover.as_mut().poll_next(cx));
            let change = tokio::select! {
                change = next => change,
                () = changes.closed() => return,
            };
            let change = match change {
                Some(Ok(Change::Insert(key, endpoint))) => StockChange::Insert(key, endpoint),
                Some(Ok(Change::Remove(key))) => StockChange::Remove(key),
                Some(Err(never)) => match never {},
                None => return,
            };
            if changes.send(change).await.is_err() {
                return;
            }
        }
    });
    channel
}
