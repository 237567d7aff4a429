//! Reads gRPC's service config JSON. Strict where gRPC is: a value that cannot be what it should be refuses the whole
//! config, with the path of the field; a load-balancing policy that is not known gives way to the next in its list;
//! fields that are not known are left alone, as proto3's JSON has it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use super::error::{InvalidServiceConfig, Result};
use super::model::{HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling, ServiceConfig};
use super::path::Place;
use super::policies;
use super::split;

/// gRFC A6: "maxAttempts ... values greater than 5 are treated as 5".
const MOST_ATTEMPTS: u32 = 5;

impl std::str::FromStr for ServiceConfig {
    type Err = InvalidServiceConfig;

    fn from_str(json: &str) -> Result<Self> {
        service_config(json)
    }
}

fn service_config(json: &str) -> Result<ServiceConfig> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| InvalidServiceConfig::at("", format!("this is not JSON: {error}")))?;
    let root = Place::root(&value);
    let balancing = root.field("loadBalancingConfig")?.map(|list| policies::balancing(&list)).transpose()?;
    let (policy, outliers) = balancing.unzip();
    Ok(ServiceConfig {
        policy,
        outliers: outliers.flatten(),
        throttling: root.field("retryThrottling")?.map(|place| throttling(&place)).transpose()?,
        health_check: root
            .field("healthCheckConfig")?
            .map(|place| health_check(&place))
            .transpose()?
            .flatten(),
        methods: match root.field("methodConfig")? {
            Some(list) => methods(&list)?,
            None => HashMap::new(),
        },
        split: root.field("split")?.map_or(Ok(Vec::new()), |list| split::split(&list))?,
    })
}

fn methods(list: &Place<'_>) -> Result<HashMap<String, Arc<MethodConfig>>> {
    let mut methods = HashMap::new();
    for item in list.items()? {
        let config = Arc::new(method(&item)?);
        let Some(names) = item.field("name")? else { continue };
        for name in names.items()? {
            match methods.entry(full_name(&name)?) {
                Entry::Vacant(vacant) => drop(vacant.insert(config.clone())),
                Entry::Occupied(_) => return name.refuse("this name has a config already"),
            }
        }
    }
    Ok(methods)
}

/// `/service/method`, `/service/`, or the empty name of the default.
fn full_name(name: &Place<'_>) -> Result<String> {
    let text = |field| name.field(field)?.map_or(Ok(""), |place| place.text());
    match (text("service")?, text("method")?) {
        ("", "") => Ok(String::new()),
        ("", _) => name.refuse("a method without its service"),
        (service, method) => Ok(format!("/{service}/{method}")),
    }
}

fn method(place: &Place<'_>) -> Result<MethodConfig> {
    let hedging = place.field("hedgingPolicy")?;
    if let (Some(hedging), Some(_)) = (&hedging, place.field("retryPolicy")?) {
        return hedging.refuse("a method has a retryPolicy or a hedgingPolicy, not both");
    }
    Ok(MethodConfig {
        timeout: place.field("timeout")?.map(|t| t.duration()).transpose()?,
        wait_for_ready: place.field("waitForReady")?.map(|w| w.flag()).transpose()?,
        max_request_bytes: place.field("maxRequestMessageBytes")?.map(|m| m.whole(0)).transpose()?,
        max_response_bytes: place.field("maxResponseMessageBytes")?.map(|m| m.whole(0)).transpose()?,
        retry: place.field("retryPolicy")?.map(|r| retry(&r)).transpose()?,
        hedging: hedging.map(|h| self::hedging(&h)).transpose()?,
    })
}

fn retry(place: &Place<'_>) -> Result<RetryPolicy> {
    let multiplier = place.required("backoffMultiplier")?;
    let codes = place.required("retryableStatusCodes")?;
    let policy = RetryPolicy {
        max_attempts: place.required("maxAttempts")?.whole(2)?.min(MOST_ATTEMPTS),
        initial_backoff: place.required("initialBackoff")?.positive_duration()?,
        max_backoff: place.required("maxBackoff")?.positive_duration()?,
        backoff_multiplier: multiplier.number()?,
        retryable: codes.items()?.iter().map(Place::code).collect::<Result<_>>()?,
    };
    if policy.backoff_multiplier <= 0.0 {
        return multiplier.refuse("a number above zero is wanted here");
    }
    if policy.retryable.is_empty() {
        return codes.refuse("at least one code is wanted here");
    }
    Ok(policy)
}

/// gRFC A6: without a delay all attempts begin at once, without codes every failure is fatal.
fn hedging(place: &Place<'_>) -> Result<HedgingPolicy> {
    let delay = place.field("hedgingDelay")?.map(|d| d.duration()).transpose()?;
    let nonfatal = match place.field("nonFatalStatusCodes")? {
        Some(codes) => codes.items()?.iter().map(Place::code).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    let max_attempts = place.required("maxAttempts")?.whole(2)?.min(MOST_ATTEMPTS);
    Ok(HedgingPolicy { max_attempts, delay: delay.unwrap_or_default(), nonfatal })
}

/// gRFC A17: without a service name nothing is checked; the empty one is the server as a whole.
fn health_check(place: &Place<'_>) -> Result<Option<Arc<str>>> {
    place.field("serviceName")?.map(|name| Ok(name.text()?.into())).transpose()
}

fn throttling(place: &Place<'_>) -> Result<RetryThrottling> {
    let tokens = place.required("maxTokens")?;
    let ratio = place.required("tokenRatio")?;
    let max_tokens = tokens.whole(1)?;
    if max_tokens > 1000 {
        return tokens.refuse("at most 1000 is wanted here");
    }
    // Up to three decimal places count (gRFC A6).
    match ratio.number()? {
        number if number > 0.0 => {
            let milli = (number.min(1000.0) * 1000.0) as u32;
            Ok(RetryThrottling { max_tokens, token_ratio_milli: milli.max(1) })
        }
        _ => ratio.refuse("a number above zero is wanted here"),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
