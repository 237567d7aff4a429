//! The asking, under a paused clock.

use std::sync::Mutex;

use super::*;

const CONFIG: ReadinessConfig = ReadinessConfig {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(2),
    failures: 3,
    successes: 1,
};

fn seconds(since: Instant) -> u64 {
    since.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_at_once_and_then_at_intervals() {
    let begin = Instant::now();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let check = move || {
        let number = {
            let mut asked = seen.lock().unwrap();
            asked.push(seconds(begin));
            asked.len()
        };
        async move { if number == 1 { Ok(()) } else { Err(format!("no. {number}")) } }
    };
    let mut readiness = Readiness::new(check, CONFIG).unwrap();
    assert_eq!(readiness.changed().await, Ok(()));
    assert_eq!(readiness.changed().await, Err("no. 4".into()));
    assert_eq!(*asked.lock().unwrap(), [0, 5, 10, 15]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_a_failure_and_one_question_is_open_at_a_time() {
    let begin = Instant::now();
    let config = ReadinessConfig { interval: Duration::from_secs(1), failures: 2, ..CONFIG };
    let mut first = true;
    let check = move || {
        let passes = std::mem::take(&mut first);
        async move { if passes { Ok(()) } else { std::future::pending::<Result<(), &str>>().await } }
    };
    let mut readiness = Readiness::new(check, config).unwrap();
    assert_eq!(readiness.changed().await, Ok(()));
    assert_eq!(readiness.changed().await, Err("no answer within 2s".into()));
    assert_eq!(seconds(begin), 5, "asked at 1 and, the answer being late, at 3");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cancelled_loses_neither_the_question_nor_its_answer() {
    let mut asked = 0;
    let check = move || {
        asked += 1;
        let number = asked;
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(format!("no. {number}"))
        }
    };
    let mut readiness = Readiness::new(check, CONFIG).unwrap();
    for _ in 0..9 {
        let cancelled = tokio::time::timeout(Duration::from_millis(100), readiness.changed()).await;
        assert!(cancelled.is_err(), "no verdict yet");
    }
    assert_eq!(readiness.changed().await, Err("no. 1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_has_failed_and_is_asked_again() {
    let mut asked = 0;
    let check = move || {
        asked += 1;
        let number = asked;
        assert!(number != 1, "as the test wants it");
        async move {
            assert!(number != 2, "as the test wants it");
            Ok::<(), String>(())
        }
    };
    let mut readiness = Readiness::new(check, CONFIG).unwrap();
    assert_eq!(readiness.changed().await, Err(PANICKED.into()));
    assert_eq!(readiness.changed().await, Ok(()));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_fields_name() {
    let (zero, year) = (Duration::ZERO, Duration::from_secs(365 * 24 * 3600));
    for (config, field) in [
        (ReadinessConfig { interval: zero, ..CONFIG }, "interval"),
        (ReadinessConfig { interval: year, ..CONFIG }, "interval"),
        (ReadinessConfig { timeout: zero, ..CONFIG }, "timeout"),
        (ReadinessConfig { timeout: Duration::MAX, ..CONFIG }, "timeout"),
        (ReadinessConfig { failures: 0, ..CONFIG }, "failures"),
        (ReadinessConfig { successes: 0, ..CONFIG }, "successes"),
    ] {
        let error = Readiness::new(|| async { Ok::<(), String>(()) }, config).expect_err("refused");
        assert!(error.is_config() && error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn a_reason_is_short_and_plain() {
    assert_eq!(tidy(" disk\nfull\u{1b}[2J "), "disk full [2J");
    assert_eq!(tidy(&"ä".repeat(1000)).chars().count(), 200);
    assert_eq!(tidy("\n"), "no reason given");
}
