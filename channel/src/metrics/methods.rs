//! The handles of each method. They are registered with the recorder at the method's first call, those of a status at
//! the first end with it, and kept: a call looks its method up by its path in an immutable map, and records through
//! atomics.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use tonic::Code;

/// gRPC bounds the values of `grpc.method`, so that callers who make names up do not fill the recorder (gRFC A66). No
/// API has so many methods.
const MOST_METHODS: usize = 1_000;
/// What the rest counts as.
const OTHER: &str = "other";

/// Every code, OK and the sixteen others.
const CODES: usize = 17;

/// The methods that one channel has called.
pub(crate) struct Methods {
    target: Arc<str>,
    by_path: ArcSwap<HashMap<Box<str>, Arc<Method>>>,
    other: OnceLock<Arc<Method>>,
}

/// The handles of one method.
pub(crate) struct Method {
    name: Arc<str>,
    target: Arc<str>,
    pub(super) started: Counter,
    by_code: [OnceLock<ByCode>; CODES],
    repeats: OnceLock<RepeatedCalls>,
}

/// What is told apart by status.
pub(super) struct ByCode {
    pub(super) attempt_duration: Histogram,
    pub(super) sent: Histogram,
    pub(super) received: Histogram,
    pub(super) call_duration: Histogram,
}

/// What calls that were sent more than once record (gRFC A96).
pub(super) struct RepeatedCalls {
    pub(super) retries: Histogram,
    pub(super) transparent: Histogram,
    pub(super) hedges: Histogram,
    pub(super) delay: Histogram,
}

impl Methods {
    pub(super) fn new(target: Arc<str>) -> Self {
        Self { target, by_path: ArcSwap::default(), other: OnceLock::new() }
    }

    /// The handles of the method at `path`, such as `/greeter.v1.Greeter/SayHello`.
    pub(crate) fn of(&self, path: &str) -> Arc<Method> {
        match self.by_path.load().get(path) {
            Some(method) => method.clone(),
            None => self.first_call(path),
        }
    }

    fn first_call(&self, path: &str) -> Arc<Method> {
        if self.by_path.load().len() >= MOST_METHODS {
            return self.other.get_or_init(|| self.register(OTHER)).clone();
        }
        // gRFC A66 writes methods without the slash that paths begin with.
        let method = self.register(path.strip_prefix('/').unwrap_or(path));
        // Others may have been first meanwhile: the recorder gives the same handles for the same labels.
        self.by_path.rcu(|methods| {
            let mut methods = HashMap::clone(methods);
            methods.insert(path.into(), method.clone());
            methods
        });
        method
    }

    fn register(&self, name: &str) -> Arc<Method> {
        let (name, target): (Arc<str>, _) = (name.into(), self.target.clone());
        let started = counter!(
            "grpc.client.attempt.started",
            "grpc.method" => name.clone(), "grpc.target" => target.clone()
        );
        let by_code = [const { OnceLock::new() }; CODES];
        Arc::new(Method { name, target, started, by_code, repeats: OnceLock::new() })
    }
}

impl Method {
    /// The handles for what ends with `code`.
    pub(super) fn by_code(&self, code: Code) -> &ByCode {
        let at = (code as i32 as usize).min(CODES - 1);
        self.by_code[at].get_or_init(|| {
            let of = |metric: &'static str| {
                histogram!(
                    metric,
                    "grpc.method" => self.name.clone(),
                    "grpc.target" => self.target.clone(),
                    "grpc.status" => name_of(code)
                )
            };
            ByCode {
                attempt_duration: of("grpc.client.attempt.duration"),
                sent: of("grpc.client.attempt.sent_total_compressed_message_size"),
                received: of("grpc.client.attempt.rcvd_total_compressed_message_size"),
                call_duration: of("grpc.client.call.duration"),
            }
        })
    }

    /// The handles for a call that was sent more than once.
    pub(super) fn repeats(&self) -> &RepeatedCalls {
        self.repeats.get_or_init(|| {
            let of = |metric: &'static str| {
                histogram!(metric, "grpc.method" => self.name.clone(), "grpc.target" => self.target.clone())
            };
            RepeatedCalls {
                retries: of("grpc.client.call.retries"),
                transparent: of("grpc.client.call.transparent_retries"),
                hedges: of("grpc.client.call.hedges"),
                delay: of("grpc.client.call.retry_delay"),
            }
        })
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A code as gRPC writes it.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_registered_once_and_beyond_the_bound_all_share_one() {
        let methods = Methods::new("greeter".into());
        let first = methods.of("/s/0");
        assert_eq!(&*first.name, "s/0");
        assert!(Arc::ptr_eq(&first, &methods.of("/s/0")));
        for n in 1..MOST_METHODS {
            methods.of(&format!("/s/{n}"));
        }
        let beyond = methods.of("/s/beyond");
        assert_eq!(&*beyond.name, OTHER);
        assert!(Arc::ptr_eq(&beyond, &methods.of("/s/further")));
        assert!(Arc::ptr_eq(&first, &methods.of("/s/0")), "those before keep their own");
        assert_eq!(methods.by_path.load().len(), MOST_METHODS);
    }
}
