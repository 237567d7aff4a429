//! One endpoint as requests see it: `connect.rs` makes the transport, `dial.rs` the HTTP/2 connection over it, which
//! `driver.rs` drives and requests see as `connection.rs` (`wire.rs` keeps its record, `slots.rs` its streams), `stream.rs` sends one call (`pump.rs` its body, where that is a stream), `body.rs` receives its answer. `state.rs` is the life of
//! an endpoint as a table, `face.rs` what is published of it.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::load::Load;

pub(crate) mod body;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod driver;
pub(crate) mod face;
pub(crate) mod id;
pub(crate) mod pings;
pub(crate) mod pump;
pub(crate) mod slot;
pub(crate) mod slots;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod wire;

use face::{Face, Standing};
use state::State;

pub use body::ResponseBody;
pub(crate) use body::{Terms, outcome_of};

/// A ready endpoint, as policies see it. A clone is a reference count.
#[derive(Clone)]
pub struct Subchannel(Arc<Face>);

impl Subchannel {
    /// A subchannel without load: for tests of policies. The channel makes its own.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::of(Face {
            endpoint: Arc::new(endpoint),
            load: Arc::default(),
            open: None,
            standing: Standing { serves: false, ejected_for: None },
            state: State::Idle,
            since: Instant::now(),
            reached: None,
            last_error: None,
            ejections: 0,
            warming: None,
        })
    }

    pub(crate) fn of(face: Face) -> Self {
        Self(Arc::new(face))
    }

    pub(crate) fn face(&self) -> &Face {
        &self.0
    }

    /// Its address, weight, zone and tags, as discovery said last.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Its load, which goes on counting after this snapshot: pickers keep it.
    pub fn load(&self) -> &Arc<Load> {
        &self.0.load
    }
}

impl fmt::Debug for Subchannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.endpoint.instance, self.0.endpoint.address)
    }
}
