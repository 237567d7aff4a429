//! Admission: how many calls of a channel may be under way, and how many may wait for an endpoint or a stream. Beyond
//! that a call is refused at once, which costs a caller that is too fast a microsecond instead of the process its memory.
//! Both limits are off unless they are set, and then cost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tonic::Status;

use crate::status;

/// A channel's limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    pub(crate) in_flight: Option<Arc<Limit>>,
    pub(crate) waiting: Option<Arc<Limit>>,
}

/// So many at once, and no more.
#[derive(Debug)]
pub(crate) struct Limit {
    count: AtomicUsize,
    most: usize,
    /// What is counted, and the setting that raises the limit, for the error.
    what: &'static str,
    setting: &'static str,
}

/// One of those that a [`Limit`] counts; its drop makes room.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted(Arc<Limit>);

impl Admission {
    pub(crate) fn limit_in_flight(&mut self, most: usize) {
        self.in_flight = Some(Limit::new(most, "calls are in flight", "max_calls_in_flight"));
    }

    pub(crate) fn limit_waiting(&mut self, most: usize) {
        let what = "calls wait for an endpoint or a stream";
        self.waiting = Some(Limit::new(most, what, "max_calls_waiting"));
    }
}

impl Limit {
    fn new(most: usize, what: &'static str, setting: &'static str) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), most, what, setting })
    }

    /// # Errors
    /// RESOURCE_EXHAUSTED where the limit is reached.
    pub(crate) fn enter(self: &Arc<Self>, channel: &str) -> Result<Admitted, Status> {
        let admitted = Admitted(self.clone());
        if self.count.fetch_add(1, Relaxed) < self.most {
            return Ok(admitted);
        }
        Err(status::too_many(channel, self.most, self.what, self.setting)) // its drop takes it off again
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_enter_and_the_error_names_the_channel_the_limit_and_the_remedy() {
        let mut admission = Admission::default();
        admission.limit_in_flight(2);
        let limit = admission.in_flight.expect("it was set");
        let first = limit.enter("greeter").expect("room");
        let _second = limit.enter("greeter").expect("room");
        for _ in 0..3 {
            let refused = limit.enter("greeter").expect_err("full");
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
            let remedy = "make fewer at a time, or raise it";
            let what = "2 calls are in flight, as many as max_calls_in_flight allows";
            assert_eq!(refused.message(), format!("greeter: {what}; {remedy}"));
        }
        drop(first);
        let _third = limit.enter("greeter").expect("room again");
    }
}
