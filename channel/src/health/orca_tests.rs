use super::*;

fn trailers(value: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(TRAILER, value.parse().expect("a header"));
    trailers
}

fn sent(report: Report) -> HeaderMap {
    trailers(&BASE64.encode(report.encode_to_vec()))
}

fn report(rps: f64, utilization: f64) -> Report {
    Report { rps_fractional: rps, application_utilization: utilization, ..Report::default() }
}

/// The trailers of a server with this load.
pub(crate) fn reporting(rps: f64, utilization: f64) -> HeaderMap {
    sent(report(rps, utilization))
}

fn wanted(settings: LoadReports) -> Reported {
    let reported = Reported::default();
    reported.want(Some(&settings));
    reported
}

const NO_BLACKOUT: LoadReports = LoadReports {
    blackout_period: Duration::ZERO,
    weight_expiration_period: Duration::from_secs(180),
    weight_update_period: Duration::from_secs(1),
    error_utilization_penalty: 1.0,
};

#[test]
fn the_weight_is_calls_a_second_by_utilization_with_a_penalty_for_errors() {
    let weight = |report: Report| report.weight(1.0);
    assert_eq!(weight(report(100.0, 0.5)), Some(200.0));
    let cpu = Report { cpu_utilization: 0.25, ..report(100.0, 0.0) };
    assert_eq!(weight(cpu), Some(400.0), "the CPU's where the application says nothing");
    let both = Report { cpu_utilization: 0.25, ..report(100.0, 0.5) };
    assert_eq!(weight(both), Some(200.0), "the application's first");
    let failing = Report { eps: 50.0, ..report(100.0, 0.5) };
    assert_eq!(weight(failing), Some(100.0), "0.5 and half of the calls fail: as if fully used");
    assert_eq!(failing.weight(0.0), Some(200.0));
}

#[test]
fn a_report_that_says_too_little_or_the_impossible_counts_not() {
    for nothing in [
        report(0.0, 0.5),
        report(100.0, 0.0),
        report(-1.0, 0.5),
        report(100.0, -0.5),
        report(f64::NAN, 0.5),
        report(100.0, f64::NAN),
        report(f64::INFINITY, 0.5),
        report(100.0, f64::INFINITY),
    ] {
        assert_eq!(nothing.weight(1.0), None, "{nothing:?}");
    }
}

#[test]
fn a_trailer_that_cannot_be_read_is_ignored_and_what_was_known_stays() {
    let reported = wanted(NO_BLACKOUT);
    reported.read(&sent(report(100.0, 0.5)), || 1);
    for broken in ["", "!", "AAAA", "CQ", "CQAAAAAAAA", &"/".repeat(4096), &"A".repeat(4096)] {
        reported.read(&trailers(broken), || 2);
    }
    reported.read(&HeaderMap::new(), || 2);
    assert_eq!(reported.weight(2), Some(200.0));
}

#[test]
fn padding_and_fields_that_are_not_read_do_no_harm() {
    // named_metrics (8), a map, and a long one: beyond what is decoded on the stack.
    let mut bytes = report(100.0, 0.5).encode_to_vec();
    for _ in 0..200 {
        bytes.extend([0x42, 12, 0x0a, 1, b'k', 0x11, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let long = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let reported = wanted(NO_BLACKOUT);
    reported.read(&trailers(&long), || 1);
    assert_eq!(reported.weight(1), Some(200.0));
}

#[test]
fn where_no_policy_wants_reports_they_are_not_looked_at() {
    let reported = Reported::default();
    reported.read(&sent(report(100.0, 0.5)), || panic!("not even the clock"));
    assert_eq!(reported.weight(1), None);
}

#[test]
fn reports_count_after_the_blackout_and_until_they_expire() {
    let reported = wanted(LoadReports::default());
    let say = |ms| reported.read(&sent(report(100.0, 0.5)), || ms);
    say(1_000);
    say(5_000);
    assert_eq!((reported.weight(10_999), reported.weight(11_000)), (None, Some(200.0)));
    assert_eq!((reported.weight(184_999), reported.weight(185_000)), (Some(200.0), None));
    // After one has expired the blackout begins anew.
    say(200_000);
    assert_eq!((reported.weight(209_999), reported.weight(210_000)), (None, Some(200.0)));
    // So it does after a new connection.
    reported.clear();
    assert_eq!(reported.weight(210_000), None);
    say(211_000);
    assert_eq!((reported.weight(220_999), reported.weight(221_000)), (None, Some(200.0)));
}

#[test]
fn a_change_is_told_once() {
    let reported = wanted(NO_BLACKOUT);
    assert!(!reported.has_changed(1));
    reported.read(&sent(report(100.0, 0.5)), || 1);
    assert!(reported.has_changed(1) && !reported.has_changed(2));
    reported.read(&sent(report(100.0, 0.5)), || 3);
    assert!(!reported.has_changed(3), "the same again");
    assert!(reported.has_changed(1_000_000), "it has expired");
}

#[test]
fn settings_out_of_range_count_as_the_nearest() {
    let settings = LoadReports {
        weight_update_period: Duration::ZERO,
        error_utilization_penalty: f32::NAN,
        ..LoadReports::default()
    };
    let checked = settings.checked();
    assert_eq!((checked.weight_update_period, checked.error_utilization_penalty), (LEAST_UPDATE_PERIOD, 0.0));
}
