//! What a call leaves in traces: its span, and the trace context that goes along. A process of its own, since `tracing`
//! asks whoever comes first to a place in the code whether anybody wants it: among tests without a subscriber the answer
//! may be no for all.

mod propagation;
mod spans;
#[path = "../channel/support.rs"]
#[allow(dead_code, reason = "shared with the channel's tests, which use all of it")]
mod support;

/// A subscriber of the test's own, on its thread; behind it one for all threads, so that nobody answers no.
fn subscribe(subscriber: impl tracing::Subscriber + Send + Sync) -> tracing::subscriber::DefaultGuard {
    // Set once; the others find it there.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    tracing::subscriber::set_default(subscriber)
}
