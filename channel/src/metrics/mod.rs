//! Metrics, by the names and labels of gRPC's own (gRFCs A66, A91, A94, A96), through the `metrics` facade. What happens
//! to a call, an attempt or a connection comes in; counts and histograms go to whichever recorder was installed when
//! the channel was built. `docs/metrics.md` has the table.
//!
//! * `methods.rs`: the handles of each method, registered once
//! * `call.rs`: one call, one attempt, and what was sent again: each records itself when it is dropped
//! * `messages.rs`: how many bytes of messages went through
//! * `subchannel.rs`: connections and ejections
//! * `weights.rs`: the weights that servers report

use std::sync::Arc;

use metrics::Unit::{Bytes, Count, Seconds};
use metrics::{describe_counter, describe_histogram};

pub(crate) mod call;
mod messages;
mod methods;
pub(crate) mod subchannel;
pub(crate) mod weights;

pub(crate) use messages::MessageBytes;
pub(crate) use methods::{Method, Methods};

/// What a channel records of each call. `None` where it was not asked for: then a call pays one branch.
pub(crate) fn per_call(wanted: bool, target: &Arc<str>) -> Option<Methods> {
    if !wanted {
        return None;
    }
    describe_per_call();
    Some(Methods::new(target.clone()))
}

fn describe_per_call() {
    // gRFC A66.
    describe_counter!("grpc.client.attempt.started", Count, "Attempts of calls that were sent");
    describe_histogram!(
        "grpc.client.attempt.duration",
        Seconds,
        "From the sending of an attempt to its last byte"
    );
    describe_histogram!(
        "grpc.client.attempt.sent_total_compressed_message_size",
        Bytes,
        "Messages that an attempt sent, as they were compressed, without framing"
    );
    describe_histogram!(
        "grpc.client.attempt.rcvd_total_compressed_message_size",
        Bytes,
        "Messages that an attempt received, as they were compressed, without framing"
    );
    describe_histogram!(
        "grpc.client.call.duration",
        Seconds,
        "From the call to its last byte, waiting and attempts included"
    );
    // gRFC A96.
    describe_histogram!("grpc.client.call.retries", Count, "Retries of a call that had any");
    describe_histogram!(
        "grpc.client.call.transparent_retries",
        Count,
        "Times that a call was sent again because no server had processed it, where it was"
    );
    describe_histogram!("grpc.client.call.hedges", Count, "Attempts of a hedged call after its first");
    describe_histogram!(
        "grpc.client.call.retry_delay",
        Seconds,
        "Time between the attempts of a call that was sent again"
    );
}
