//! The load-balancing policies by the names that service configs use, and outlier detection, which gRPC writes as a
//! policy around another one (gRFC A50).

use std::time::Duration;

use http::HeaderName;

use super::error::Result;
use super::path::Place;
use crate::health::orca::LoadReports;
use crate::health::outlier::{FailurePercentage, OutlierDetection, SuccessRate};
use crate::policy::{LeastRequest, PeakEwma, PickFirst, Policy, RingHash, RoundRobin, WeightedRoundRobin};

/// The first policy in the list that is known, with the outlier detection around it, if any.
pub(super) fn balancing(list: &Place<'_>) -> Result<(PolicyConfig, Option<OutlierDetection>)> {
    for item in list.items()? {
        let (name, config) = item.single()?;
        if plain(name) == "outlier_detection" {
            let child = config.required("childPolicy")?;
            return match balancing(&child)? {
                (policy, None) => Ok((policy, Some(outliers(&config)?))),
                (_, Some(_)) => child.refuse("outlier detection within outlier detection"),
            };
        }
        if let Some(policy) = PolicyConfig::parse(name, &config)? {
            return Ok((policy, None));
        }
    }
    let known = PolicyConfig::NAMES.join(", ");
    list.refuse(format!("none of these policies is known; known are {known} and outlier_detection"))
}

/// gRPC's names for policies that are not final end in `_experimental`.
fn plain(name: &str) -> &str {
    name.strip_suffix("_experimental").unwrap_or(name)
}

fn outliers(place: &Place<'_>) -> Result<OutlierDetection> {
    let duration = |name: &str, default: Duration| match place.field(name)? {
        Some(field) => field.positive_duration(),
        None => Ok(default),
    };
    let ours = OutlierDetection::default();
    Ok(OutlierDetection {
        interval: duration("interval", ours.interval)?,
        // gRFC A50's default, not ours: who writes gRPC's config expects gRPC's.
        base_ejection_time: duration("baseEjectionTime", Duration::from_secs(30))?,
        max_ejection_time: duration("maxEjectionTime", ours.max_ejection_time)?,
        max_ejection_percent: percent(place, "maxEjectionPercent", ours.max_ejection_percent)?,
        consecutive_failures: match place.field("consecutiveFailures")? {
            Some(count) => Some(count.whole(0)?).filter(|count| *count > 0),
            None => ours.consecutive_failures,
        },
        panic_threshold_percent: percent(place, "panicThresholdPercent", ours.panic_threshold_percent)?,
        success_rate: place.field("successRateEjection")?.map(|p| success_rate(&p)).transpose()?,
        failure_percentage: place.field("failurePercentageEjection")?.map(|p| failures(&p)).transpose()?,
    })
}

fn success_rate(place: &Place<'_>) -> Result<SuccessRate> {
    let grpc = SuccessRate::default();
    Ok(SuccessRate {
        stdev_factor: whole(place, "stdevFactor", grpc.stdev_factor)?,
        enforcement_percent: percent(place, "enforcementPercentage", grpc.enforcement_percent)?,
        minimum_hosts: whole(place, "minimumHosts", grpc.minimum_hosts)?,
        request_volume: whole(place, "requestVolume", grpc.request_volume)?,
    })
}

fn failures(place: &Place<'_>) -> Result<FailurePercentage> {
    let grpc = FailurePercentage::default();
    Ok(FailurePercentage {
        threshold: percent(place, "threshold", grpc.threshold)?,
        enforcement_percent: percent(place, "enforcementPercentage", grpc.enforcement_percent)?,
        minimum_hosts: whole(place, "minimumHosts", grpc.minimum_hosts)?,
        request_volume: whole(place, "requestVolume", grpc.request_volume)?,
    })
}

fn whole(place: &Place<'_>, name: &str, default: u32) -> Result<u32> {
    place.field(name)?.map_or(Ok(default), |field| field.whole(0))
}

fn percent(place: &Place<'_>, name: &str, default: u32) -> Result<u32> {
    let Some(field) = place.field(name)? else { return Ok(default) };
    match field.whole(0)? {
        percent @ 0..=100 => Ok(percent),
        _ => field.refuse("at most 100 is wanted here"),
    }
}

/// gRFC A58's fields and defaults.
fn reports(place: &Place<'_>) -> Result<LoadReports> {
    let grpc = LoadReports::default();
    if let Some(oob) = place.field("enableOobLoadReport")?
        && oob.flag()?
    {
        return oob.refuse("reports out of band are not supported; those in trailers are");
    }
    let duration = |name: &str, default| place.field(name)?.map_or(Ok(default), |field| field.duration());
    Ok(LoadReports {
        blackout_period: duration("blackoutPeriod", grpc.blackout_period)?,
        weight_expiration_period: duration("weightExpirationPeriod", grpc.weight_expiration_period)?,
        weight_update_period: duration("weightUpdatePeriod", grpc.weight_update_period)?,
        error_utilization_penalty: match place.field("errorUtilizationPenalty")? {
            None => grpc.error_utilization_penalty,
            Some(field) => match field.number()? {
                penalty if penalty >= 0.0 => penalty as f32,
                _ => return field.refuse("a number of at least 0 is wanted here"),
            },
        },
    })
}

/// A policy with its settings, before it is made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PolicyConfig {
    PickFirst,
    RoundRobin,
    WeightedRoundRobin(LoadReports),
    LeastRequest,
    PeakEwma,
    RingHash(HeaderName),
}

impl PolicyConfig {
    /// The names that are understood; gRPC's own have an `_experimental` variant where gRPC has.
    const NAMES: [&str; 6] =
        ["pick_first", "round_robin", "weighted_round_robin", "least_request", "peak_ewma", "ring_hash"];

    /// `None` where the name is not known.
    fn parse(name: &str, config: &Place<'_>) -> Result<Option<Self>> {
        Ok(Some(match plain(name) {
            "pick_first" => Self::PickFirst,
            "round_robin" => Self::RoundRobin,
            "weighted_round_robin" => Self::WeightedRoundRobin(reports(config)?),
            "least_request" => Self::LeastRequest,
            "peak_ewma" => Self::PeakEwma,
            "ring_hash" => {
                let header = config.required("requestHashHeader")?;
                match HeaderName::from_bytes(header.text()?.as_bytes()) {
                    Ok(header) => Self::RingHash(header),
                    Err(_) => return header.refuse("the name of a request header is wanted here"),
                }
            }
            _ => return Ok(None),
        }))
    }

    pub(crate) fn make(&self) -> Box<dyn Policy> {
        match self {
            Self::PickFirst => Box::new(PickFirst::new()),
            Self::RoundRobin => Box::new(RoundRobin::new()),
            Self::WeightedRoundRobin(reports) => Box::new(WeightedRoundRobin::new().load_reports(*reports)),
            Self::LeastRequest => Box::new(LeastRequest::new()),
            Self::PeakEwma => Box::new(PeakEwma::new()),
            Self::RingHash(header) => Box::new(RingHash::new(header.clone())),
        }
    }
}
