use std::time::Duration;

use tonic::Code;

use super::*;
use crate::health::orca::LoadReports;
use crate::health::outlier::{FailurePercentage, OutlierDetection};
use crate::service_config::policies::PolicyConfig;

fn refused(json: &str) -> String {
    json.parse::<ServiceConfig>().expect_err(json).to_string()
}

const FULL: &str = r#"{
    "loadBalancingConfig": [{"from_the_future": {}}, {"least_request_experimental": {}}, {"round_robin": {}}],
    "methodConfig": [
        {"name": [{"service": "a.A", "method": "One"}], "timeout": "1s", "waitForReady": true},
        {"name": [{"service": "a.A"}], "retryPolicy": {
            "maxAttempts": 9, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 1.5,
            "retryableStatusCodes": ["UNAVAILABLE", 10]}},
        {"name": [{}], "timeout": "3s"}
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1234},
    "somethingNew": 1
}"#;

#[test]
fn the_standard_json_is_understood() {
    let config: ServiceConfig = FULL.parse().expect("good");
    assert_eq!(config.policy, Some(PolicyConfig::LeastRequest), "the first that is known");
    assert_eq!(config.throttling, Some(RetryThrottling { max_tokens: 10, token_ratio_milli: 123 }));
    let retry = config.method("/a.A/Two").and_then(|m| m.retry.clone()).expect("the service's");
    assert_eq!(retry.max_attempts, 5, "more than five are five");
    assert_eq!(retry.retryable, [Code::Unavailable, Code::Aborted]);
    assert_eq!("{}".parse::<ServiceConfig>(), Ok(ServiceConfig::default()));
}

#[test]
fn a_method_is_matched_by_its_full_name_its_service_or_the_default() {
    let config: ServiceConfig = FULL.parse().expect("good");
    let timeout = |path| config.method(path).and_then(|m| m.timeout);
    assert_eq!(timeout("/a.A/One"), Some(Duration::from_secs(1)));
    assert_eq!(timeout("/a.A/Two"), None, "the service's config has no timeout, and counts as a whole");
    assert_eq!(timeout("/b.B/One"), Some(Duration::from_secs(3)));
    assert_eq!(timeout("/a.AA/One"), Some(Duration::from_secs(3)), "a.A is no prefix of a.AA");
}

#[test]
fn a_bad_value_is_refused_with_the_path_of_its_field() {
    let retry = |field: &str, value: &str| {
        let mut fields = vec![
            ("maxAttempts", "3"),
            ("initialBackoff", r#""1s""#),
            ("maxBackoff", r#""1s""#),
            ("backoffMultiplier", "2"),
            ("retryableStatusCodes", r#"["UNAVAILABLE"]"#),
        ];
        fields.retain(|(name, _)| *name != field);
        fields.push((field, value));
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!(r#"{{"methodConfig": [{{"retryPolicy": {{{}}}}}]}}"#, fields.join(", "))
    };
    let place = "methodConfig[0].retryPolicy";
    for (json, path) in [
        (r#"{"methodConfig": 1}"#.to_owned(), "methodConfig".to_owned()),
        (r#"{"methodConfig": [{"timeout": "2"}]}"#.into(), "methodConfig[0].timeout".into()),
        (r#"{"methodConfig": [{"timeout": 2}]}"#.into(), "methodConfig[0].timeout".into()),
        (r#"{"methodConfig": [{"waitForReady": "yes"}]}"#.into(), "methodConfig[0].waitForReady".into()),
        (
            r#"{"methodConfig": [{"maxRequestMessageBytes": -1}]}"#.into(),
            "methodConfig[0].maxRequestMessageBytes".into(),
        ),
        (
            r#"{"methodConfig": [{"maxResponseMessageBytes": 4294967296}]}"#.into(),
            "methodConfig[0].maxResponseMessageBytes".into(),
        ),
        (r#"{"methodConfig": [{"name": [{"method": "One"}]}]}"#.into(), "methodConfig[0].name[0]".into()),
        (r#"{"methodConfig": [{"name": [{}, {}]}]}"#.into(), "methodConfig[0].name[1]".into()),
        (r#"{"loadBalancingConfig": [{"unheard_of": {}}]}"#.into(), "loadBalancingConfig".into()),
        (r#"{"loadBalancingConfig": [{}]}"#.into(), "loadBalancingConfig[0]".into()),
        (
            r#"{"loadBalancingConfig": [{"ring_hash": {"requestHashHeader": "a b"}}]}"#.into(),
            "loadBalancingConfig[0].ring_hash.requestHashHeader".into(),
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}"#.into(),
            "retryThrottling.maxTokens".into(),
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}}"#.into(),
            "retryThrottling.maxTokens".into(),
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 1, "tokenRatio": 0}}"#.into(),
            "retryThrottling.tokenRatio".into(),
        ),
        (
            r#"{"methodConfig": [{"hedgingPolicy": {"maxAttempts": 1}}]}"#.into(),
            "methodConfig[0].hedgingPolicy.maxAttempts".into(),
        ),
        (
            r#"{"methodConfig": [{"hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "-1s"}}]}"#.into(),
            "methodConfig[0].hedgingPolicy.hedgingDelay".into(),
        ),
        (
            r#"{"methodConfig": [{"hedgingPolicy": {"maxAttempts": 2, "nonFatalStatusCodes": [17]}}]}"#
                .into(),
            "methodConfig[0].hedgingPolicy.nonFatalStatusCodes[0]".into(),
        ),
        (r#"{"split": {}}"#.into(), "split".into()),
        (r#"{"split": [{"percent": 5}]}"#.into(), "split[0]".into()),
        (r#"{"split": [{"match": {"a": "b"}}]}"#.into(), "split[0]".into()),
        (r#"{"split": [{"match": {}, "percent": 5}]}"#.into(), "split[0].match".into()),
        (r#"{"split": [{"match": {"a": 2}, "percent": 5}]}"#.into(), "split[0].match.a".into()),
        (r#"{"split": [{"match": {"a": "b"}, "percent": -1}]}"#.into(), "split[0].percent".into()),
        (r#"{"split": [{"match": {"a": "b"}, "percent": 100.5}]}"#.into(), "split[0].percent".into()),
        (r#"{"split": [{"match": {"a": "b"}, "percent": "5"}]}"#.into(), "split[0].percent".into()),
        (r#"{"split": [{"match": {"a": "b"}, "percnt": 5}]}"#.into(), "split[0].percnt".into()),
        (
            r#"{"split": [{"match": {"a": "b"}, "percent": 60}, {"match": {"a": "c"}, "percent": 41}]}"#
                .into(),
            "split[1].percent".into(),
        ),
        (retry("maxAttempts", "1"), format!("{place}.maxAttempts")),
        (retry("initialBackoff", r#""0s""#), format!("{place}.initialBackoff")),
        (retry("backoffMultiplier", "0"), format!("{place}.backoffMultiplier")),
        (retry("retryableStatusCodes", "[]"), format!("{place}.retryableStatusCodes")),
        (retry("retryableStatusCodes", r#"["OOPS"]"#), format!("{place}.retryableStatusCodes[0]")),
        (retry("retryableStatusCodes", "[17]"), format!("{place}.retryableStatusCodes[0]")),
    ] {
        let error = json.parse::<ServiceConfig>().expect_err(&json);
        assert_eq!(error.path(), path, "{error}");
    }
    assert!(refused("[").contains("not JSON"));
    assert!(refused("[]").contains("an object is wanted"));
}

#[test]
fn a_method_has_retries_or_hedging() {
    let both = r#"{"methodConfig": [{"retryPolicy": {}, "hedgingPolicy": {}}]}"#;
    assert!(refused(both).contains("not both"), "{}", refused(both));
    assert!(
        refused(both).starts_with("service config: methodConfig[0].hedgingPolicy: "),
        "{}",
        refused(both)
    );
}

#[test]
fn hedging_is_read_with_its_defaults_and_at_most_five_attempts() {
    let hedging = |policy: &str| {
        let json = format!(r#"{{"methodConfig": [{{"name": [{{}}], "hedgingPolicy": {policy}}}]}}"#);
        let config: ServiceConfig = json.parse().expect("good");
        config.method("/a.A/One").and_then(|m| m.hedging.clone()).expect("the default's")
    };
    assert_eq!(
        hedging(r#"{"maxAttempts": 9, "hedgingDelay": "0.5s", "nonFatalStatusCodes": ["UNAVAILABLE", 10]}"#),
        HedgingPolicy {
            max_attempts: 5,
            delay: Duration::from_millis(500),
            nonfatal: vec![Code::Unavailable, Code::Aborted]
        }
    );
    let least = HedgingPolicy { max_attempts: 2, delay: Duration::ZERO, nonfatal: vec![] };
    assert_eq!(hedging(r#"{"maxAttempts": 2}"#), least);
}

#[test]
fn outlier_detection_wraps_a_policy_as_grpc_writes_it() {
    let config: ServiceConfig = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
        "interval": "1s", "maxEjectionPercent": 20, "consecutiveFailures": 0,
        "failurePercentageEjection": {"threshold": 50},
        "childPolicy": [{"round_robin": {}}]}}]}"#
        .parse()
        .expect("good");
    assert_eq!(config.policy, Some(PolicyConfig::RoundRobin));
    let expected = OutlierDetection {
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 20,
        consecutive_failures: None,
        failure_percentage: Some(FailurePercentage { threshold: 50, ..FailurePercentage::default() }),
        ..OutlierDetection::default()
    };
    assert_eq!(config.outliers, Some(expected));
    let bad = r#"{"loadBalancingConfig": [{"outlier_detection": {
        "childPolicy": [{"round_robin": {}}], "maxEjectionPercent": 101}}]}"#;
    assert!(
        refused(bad).contains("loadBalancingConfig[0].outlier_detection.maxEjectionPercent"),
        "{}",
        refused(bad)
    );
}

#[test]
fn a_split_is_read_in_order_with_fractions() {
    let config: ServiceConfig = r#"{"split": [
        {"match": {"version": "v2", "zone": "a"}, "percent": 0.1},
        {"match": {"team": "x"}, "percent": 99.9}]}"#
        .parse()
        .expect("good");
    let percents: Vec<_> = config.split.iter().map(|rule| rule.percent).collect();
    assert_eq!(percents, [0.1, 99.9]);
    assert_eq!(config.split[0].matches.len(), 2);
}

#[test]
fn health_is_checked_where_a_service_is_named() {
    let service = |json: &str| json.parse::<ServiceConfig>().map(|config| config.health_check);
    assert_eq!(service(r#"{"healthCheckConfig": {"serviceName": "a.B"}}"#), Ok(Some("a.B".into())));
    assert_eq!(service(r#"{"healthCheckConfig": {"serviceName": ""}}"#), Ok(Some("".into())));
    assert_eq!(service(r#"{"healthCheckConfig": {}}"#), Ok(None));
    let error = service(r#"{"healthCheckConfig": {"serviceName": 1}}"#).expect_err("no name");
    assert_eq!(error.path(), "healthCheckConfig.serviceName");
}

#[test]
fn weighted_round_robin_takes_the_fields_of_grfc_a58() {
    let parse = |fields: &str| {
        let json = format!(r#"{{"loadBalancingConfig": [{{"weighted_round_robin": {{{fields}}}}}]}}"#);
        json.parse::<ServiceConfig>().map(|config| config.policy)
    };
    let with = |reports| Ok(Some(PolicyConfig::WeightedRoundRobin(reports)));
    assert_eq!(parse(""), with(LoadReports::default()));
    let fields = r#""enableOobLoadReport": false, "blackoutPeriod": "0s", "weightExpirationPeriod": "60s",
        "weightUpdatePeriod": "0.5s", "errorUtilizationPenalty": 2.5"#;
    let expected = LoadReports {
        blackout_period: Duration::ZERO,
        weight_expiration_period: Duration::from_secs(60),
        weight_update_period: Duration::from_millis(500),
        error_utilization_penalty: 2.5,
    };
    assert_eq!(parse(fields), with(expected));
    let at = "loadBalancingConfig[0].weighted_round_robin";
    let refused = |fields: &str| parse(fields).expect_err(fields).path().to_owned();
    assert_eq!(refused(r#""enableOobLoadReport": true"#), format!("{at}.enableOobLoadReport"));
    assert_eq!(refused(r#""errorUtilizationPenalty": -1"#), format!("{at}.errorUtilizationPenalty"));
    assert_eq!(refused(r#""blackoutPeriod": 10"#), format!("{at}.blackoutPeriod"));
}
