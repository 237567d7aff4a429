//! What a service config says, checked: made by `parse.rs`, read by calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::policies::PolicyConfig;
use crate::health::outlier::OutlierDetection;
use crate::policy::split::Rule;

/// A channel's behaviour as gRPC's service config writes it.
///
/// ```
/// use svc_channel::ServiceConfig;
/// let config: ServiceConfig = r#"{
///     "loadBalancingConfig": [{"round_robin": {}}],
///     "healthCheckConfig": {"serviceName": "greeter.v1.Greeter"},
///     "methodConfig": [{
///         "name": [{"service": "greeter.v1.Greeter"}],
///         "timeout": "2s",
///         "retryPolicy": {
///             "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
///             "retryableStatusCodes": ["UNAVAILABLE"]
///         }
///     }]
/// }"#.parse()?;
/// let error = r#"{"methodConfig": [{"timeout": "2"}]}"#.parse::<ServiceConfig>().unwrap_err();
/// assert!(error.to_string().starts_with("service config: methodConfig[0].timeout: "));
/// # Ok::<(), svc_channel::InvalidServiceConfig>(())
/// ```
///
/// # Split
/// One field is ours: `split` sends a part of the calls to some of the endpoints, for canaries.
///
/// ```
/// # use svc_channel::ServiceConfig;
/// let canary: ServiceConfig = r#"{"split": [{"match": {"version": "v2"}, "percent": 5}]}"#.parse()?;
/// # Ok::<(), svc_channel::InvalidServiceConfig>(())
/// ```
///
/// `match` names tags of endpoints, `version` among them, all of which have to fit; `zone` is the endpoint's zone. An
/// endpoint belongs to the first rule that fits; those that fit none share what the percents leave of 100. Where nobody
/// of a rule is ready its share goes to the others, and the reverse: a rule of 0 percent takes calls only where nobody
/// else can. An endpoint at its limit of streams hands a call on to any other that is ready.
///
/// # Defaults
/// An empty config (`{}`) changes nothing: the builder's policy, no timeout, no retries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    pub(crate) policy: Option<PolicyConfig>,
    /// Where `outlier_detection_experimental` is the policy's parent.
    pub(crate) outliers: Option<OutlierDetection>,
    pub(crate) throttling: Option<RetryThrottling>,
    /// The service whose health servers are asked for (gRFC A17); the empty name is the server as a whole.
    pub(crate) health_check: Option<Arc<str>>,
    /// By `/service/method`, by `/service/`, and by the empty name, the default.
    pub(super) methods: HashMap<String, Arc<MethodConfig>>,
    /// Ours, not gRPC's: what part of the calls goes to which endpoints.
    pub(crate) split: Vec<Rule>,
}

/// What holds for some methods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfig {
    /// The deadline of a call is at most this long after its start.
    pub timeout: Option<Duration>,
    /// Whether calls wait for an endpoint instead of failing at once.
    pub wait_for_ready: Option<bool>,
    /// The most bytes that a message of the request may have on the wire; a larger one ends the call with
    /// RESOURCE_EXHAUSTED. `None` is no limit.
    pub max_request_bytes: Option<u32>,
    /// The same for messages of the response.
    pub max_response_bytes: Option<u32>,
    /// Whether failed calls are sent again.
    pub retry: Option<RetryPolicy>,
    /// Whether calls are sent more than once at the same time; never beside [`retry`](Self::retry).
    pub hedging: Option<HedgingPolicy>,
}

/// When and how a failed call is sent again (gRFC A6).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included: 2 to 5.
    pub max_attempts: u32,
    /// The wait before the second attempt, with a jitter of 20 %.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// By how much each wait is longer than the last.
    pub backoff_multiplier: f64,
    /// What is worth another attempt.
    pub retryable: Vec<Code>,
}

/// When a call is sent to a further endpoint although the first has not answered (gRFC A6): the first answer counts, the
/// other attempts are cancelled. For methods that may be executed more than once. A call whose request is not wholly there
/// when it is made, a stream that still grows, is sent once.
#[derive(Clone, Debug, PartialEq)]
pub struct HedgingPolicy {
    /// Attempts in all, the first included: 2 to 5.
    pub max_attempts: u32,
    /// The wait before each further attempt; zero sends all at once.
    pub delay: Duration,
    /// After such a failure the next attempt begins at once; any other ends the call.
    pub nonfatal: Vec<Code>,
}

/// When retries stop because most calls fail (gRFC A6, "Throttling Retry Attempts and Hedged RPCs").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryThrottling {
    /// Failures take one token each; retries stop at half of these: 1 to 1000.
    pub max_tokens: u32,
    /// What a success gives back, in thousandths of a token.
    pub token_ratio_milli: u32,
}

impl ServiceConfig {
    /// Whether nothing is said of any method.
    pub(crate) fn has_no_methods(&self) -> bool {
        self.methods.is_empty()
    }

    /// What holds for the method at `path` (`/package.Service/Method`): its own config, its service's, or the default.
    pub fn method(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        let service = path.rfind('/').map_or("", |slash| &path[..=slash]);
        [path, service, ""].into_iter().find_map(|name| self.methods.get(name))
    }
}
