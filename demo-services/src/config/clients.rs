//! Callees, as `[[grpc_clients]]` describes them: a target, a deadline, a policy and retries become a channel whose
//! behaviour is gRPC's service config.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use svc_resolver::{Balancing, Channel, ChannelBuilder, InvalidServiceConfig, ServiceConfig};

use crate::methods;

/// How long a call may take where nothing is said of its callee: longer than a good answer ever takes, shorter than a
/// person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The wait before the first retry.
const BACKOFF: Duration = Duration::from_millis(100);

/// Each wait is twice the last, at most ten times the first.
const LONGEST_BACKOFFS: u32 = 10;

/// The most retries: gRPC takes five attempts at most (gRFC A6), the first included.
const MOST_RETRIES: u32 = 4;

/// What is said of callees: the list that `--grpc-clients` takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcClients(Vec<GrpcClient>);

/// One callee.
///
/// # Defaults
/// The target is the name, the timeout 5 s, the policy the channel's; nothing is retried.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcClient {
    /// What the program calls it.
    pub name: String,
    /// Where it is: a service's name or a URI, as the resolver takes it.
    #[serde(default)]
    pub target: Option<String>,
    /// How long a unary call may take, waiting included. Streams end with their callers.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// How calls are spread.
    #[serde(default, deserialize_with = "policy")]
    pub policy: Option<Balancing>,
    /// Whether a call that failed as UNAVAILABLE is made again.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// How often and how long a call is made again. For methods that may be repeated: UNAVAILABLE does not say that nothing
/// was done.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts after the first.
    #[serde(deserialize_with = "retries")]
    pub max: u32,
    /// How long the call and its retries may take together, in place of the callee's `timeout`: gRPC has one deadline
    /// for all attempts of a call.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// The wait before the first retry; each further one is twice as long, up to ten times this.
    #[serde(default, deserialize_with = "duration")]
    pub backoff: Option<Duration>,
}

impl FromStr for GrpcClients {
    type Err = String;

    fn from_str(json: &str) -> Result<Self, String> {
        let mut list = serde_json::Deserializer::from_str(json);
        let clients: Vec<GrpcClient> = serde_path_to_error::deserialize(&mut list)
            .map_err(|error| format!("grpc_clients{}: {}", error.path(), plain(error.inner())))?;
        list.end().map_err(|error| format!("grpc_clients: {error}"))?;
        for (index, client) in clients.iter().enumerate() {
            let at = |field, why: &str| Err(format!("grpc_clients[{index}].{field}: {why}"));
            if client.name.is_empty() {
                return at("name", "is empty");
            }
            if clients[..index].iter().any(|other| other.name == client.name) {
                return at("name", &format!("{:?} is described already", client.name));
            }
            if let Some(target) = &client.target
                && let Err(error) = target.parse::<svc_resolver::Target>()
            {
                return at("target", &error.to_string());
            }
        }
        Ok(GrpcClients(clients))
    }
}

impl GrpcClients {
    /// Refuses what is said of callees that a program does not have.
    ///
    /// # Errors
    /// The first such name, and those that there are.
    pub fn only(&self, program: &str, callees: &[&str]) -> Result<(), UnknownCallee> {
        let mut clients = self.0.iter().enumerate();
        let Some((index, client)) = clients.find(|(_, client)| !callees.contains(&client.name.as_str()))
        else {
            return Ok(());
        };
        let known = match callees {
            [] => format!("{program} calls nobody"),
            callees => format!("{program} calls {}", callees.join(", ")),
        };
        Err(UnknownCallee { index, name: client.name.clone(), known })
    }

    /// What is said of this callee, or the defaults.
    pub fn of(&self, callee: &str) -> GrpcClient {
        self.0.iter().find(|client| client.name == callee).cloned().unwrap_or_else(|| GrpcClient {
            name: callee.to_owned(),
            target: None,
            timeout: None,
            policy: None,
            retry: None,
        })
    }
}

/// A callee that the program does not have.
#[derive(Debug, thiserror::Error)]
#[error("grpc_clients[{index}].name: {name:?} is not known: {known}")]
pub struct UnknownCallee {
    index: usize,
    name: String,
    known: String,
}

impl GrpcClient {
    /// Where it is.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.name)
    }

    /// A builder that makes channels as this says.
    ///
    /// # Errors
    /// A service config that the channel refuses, which the checks before do not let through.
    pub fn apply(&self, builder: ChannelBuilder) -> Result<ChannelBuilder, InvalidServiceConfig> {
        let builder = match self.policy {
            Some(policy) => policy.apply(builder),
            None => builder,
        };
        Ok(builder.service_config(self.service_config()?))
    }

    /// Its behaviour in gRPC's own words.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn service_config(&self) -> Result<ServiceConfig, InvalidServiceConfig> {
        self.service_config_json().to_string().parse()
    }

    fn service_config_json(&self) -> Value {
        let timeout = self.retry.as_ref().and_then(|retry| retry.timeout).or(self.timeout).unwrap_or(TIMEOUT);
        let mut unary = json!({ "name": [{}], "timeout": seconds(timeout) });
        // A method's own entry counts in place of the default: no timeout for streams.
        let mut streams = json!({ "name": methods::streams().collect::<Vec<_>>() });
        let mut config = json!({});
        if let Some(retry) = self.retry.as_ref().filter(|retry| retry.max > 0) {
            let backoff = retry.backoff.unwrap_or(BACKOFF);
            let policy = json!({
                "maxAttempts": retry.max + 1,
                "initialBackoff": seconds(backoff),
                "maxBackoff": seconds(backoff * LONGEST_BACKOFFS),
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            });
            unary["retryPolicy"] = policy.clone();
            streams["retryPolicy"] = policy;
            // An instance that dies takes its calls along at once, hundreds of them: these are worth a retry. Retries
            // stop where more calls fail than succeed, for they would only add to what brings the callee down.
            config["retryThrottling"] = json!({ "maxTokens": 1000, "tokenRatio": 1 });
        }
        config["methodConfig"] = json!([unary, streams]);
        config
    }
}

/// As proto3's JSON writes a duration.
fn seconds(duration: Duration) -> String {
    format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos())
}

/// Without the line and column, which are those of JSON that nobody wrote.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(why, _)| why.to_owned())
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    match humantime::parse_duration(&text) {
        Ok(Duration::ZERO) => Err(serde::de::Error::custom("must be longer than nothing")),
        Ok(duration) => Ok(Some(duration)),
        Err(error) => Err(serde::de::Error::custom(format_args!("{text:?}: {error}"))),
    }
}

fn policy<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Balancing>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn retries<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        max @ 0..=MOST_RETRIES => Ok(max),
        max => Err(serde::de::Error::custom(format_args!(
            "{max} is more than {MOST_RETRIES}: gRPC makes five attempts at most"
        ))),
    }
}

impl fmt::Display for GrpcClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|client| client.name.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}

impl GrpcClients {
    /// A channel to this callee, on what `make` makes of its target and the builder.
    pub(crate) fn channel<E>(
        &self,
        callee: &str,
        builder: ChannelBuilder,
        make: impl FnOnce(&str, ChannelBuilder) -> Result<Channel, E>,
    ) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let client = self.of(callee);
        Ok(make(client.target(), client.apply(builder)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"[{"name": "balance", "target": "etcd:///balance?version=v2", "timeout": "5s",
        "policy": "round_robin", "retry": {"max": 3, "timeout": "10s", "backoff": "100ms"}}]"#;

    fn parsed(json: &str) -> GrpcClients {
        json.parse().unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn what_is_said_becomes_grpcs_service_config() {
        let balance = parsed(WHOLE).of("balance");
        assert_eq!(balance.target(), "etcd:///balance?version=v2");
        assert_eq!(balance.policy, Some(Balancing::RoundRobin));
        let config = balance.service_config().unwrap();
        let unary = config.method("/balance.v1.Balance/GetBalance").expect("the default").clone();
        assert_eq!(unary.timeout, Some(Duration::from_secs(10)), "with its retries");
        let retry = unary.retry.clone().expect("it is said");
        assert_eq!(retry.max_attempts, 4, "three retries are four attempts");
        assert_eq!(retry.initial_backoff, Duration::from_millis(100));
        assert_eq!(retry.max_backoff, Duration::from_secs(1));
        assert_eq!(retry.retryable, [tonic::Code::Unavailable]);
        let stream = config.method("/greeter.v1.Greeter/LotsOfReplies").expect("its own");
        assert_eq!(stream.timeout, None, "a stream ends with its caller");
        assert!(stream.retry.is_some());
    }

    #[test]
    fn of_whom_nothing_is_said_has_the_defaults() {
        let gift = parsed(WHOLE).of("gift");
        assert_eq!((gift.target(), gift.policy), ("gift", None));
        let method = gift.service_config().unwrap().method("/gift.v1.Gift/ListGifts").cloned().unwrap();
        assert_eq!((method.timeout, method.retry.is_none()), (Some(TIMEOUT), true));
        let short = parsed(r#"[{"name": "gift", "timeout": "150ms", "retry": {"max": 0}}]"#).of("gift");
        let method = short.service_config().unwrap().method("/gift.v1.Gift/ListGifts").cloned().unwrap();
        assert_eq!((method.timeout, method.retry.is_none()), (Some(Duration::from_millis(150)), true));
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_fields_path() {
        for (json, path, why) in [
            (r#"[{"target": "x"}]"#, "grpc_clients[0]: ", "missing field `name`"),
            (r#"[{"name": ""}]"#, "grpc_clients[0].name: ", "empty"),
            (r#"[{"name": "a"}, {"name": "a"}]"#, "grpc_clients[1].name: ", "already"),
            (r#"[{"name": "a", "colour": 1}]"#, "grpc_clients[0].colour: ", "unknown field `colour`"),
            (r#"[{"name": "a", "timeout": "soon"}]"#, "grpc_clients[0].timeout: ", "soon"),
            (r#"[{"name": "a", "timeout": "0s"}]"#, "grpc_clients[0].timeout: ", "longer"),
            (r#"[{"name": "a", "timeout": 5}]"#, "grpc_clients[0].timeout: ", "integer `5`"),
            (r#"[{"name": "a", "policy": "fastest"}]"#, "grpc_clients[0].policy: ", "least_request"),
            (r#"[{"name": "a", "target": "a/b"}]"#, "grpc_clients[0].target: ", "a/b"),
            (r#"[{"name": "a", "retry": {"max": 9}}]"#, "grpc_clients[0].retry.max: ", "five attempts"),
            (r#"[{"name": "a", "retry": {}}]"#, "grpc_clients[0].retry: ", "missing field `max`"),
            (r#"[{"name": "a", "retry": {"max": 1, "wait": 1}}]"#, "grpc_clients[0].retry.wait: ", "backoff"),
            ("{}", "grpc_clients", "sequence"),
            ("[] []", "grpc_clients", "trailing"),
        ] {
            let error = json.parse::<GrpcClients>().unwrap_err();
            assert!(error.starts_with(path) && error.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn a_callee_that_the_program_does_not_have_is_refused_with_those_it_has() {
        let clients = parsed(WHOLE);
        assert!(clients.only("gift", &["balance"]).is_ok());
        let error = clients.only("edge", &["greeter", "gift"]).unwrap_err().to_string();
        assert_eq!(error, "grpc_clients[0].name: \"balance\" is not known: edge calls greeter, gift");
        assert!(clients.only("greeter", &[]).unwrap_err().to_string().contains("nobody"));
    }
}
