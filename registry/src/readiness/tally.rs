//! How many answers in a row make a verdict; pure.
//!
//! ```text
//! state      success                          failure
//! Starting   enough in a row -> Ready, told   -> Unready, told: nothing was served, there is nothing to wait for
//! Ready      failures are forgotten           enough in a row -> Unready, told with the last reason
//! Unready    enough in a row -> Ready, told   successes are forgotten
//! ```

use super::Verdict;

/// Counts answers; see the module's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    failures: u32,
    successes: u32,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Starting { passed: u32 },
    Ready { failed: u32 },
    Unready { passed: u32 },
}

impl Tally {
    /// A tally that nothing was counted for.
    pub(super) fn new(failures: u32, successes: u32) -> Tally {
        Tally { failures, successes, at: At::Starting { passed: 0 } }
    }

    /// The new verdict, if this answer makes one.
    pub(super) fn count(&mut self, answer: Verdict) -> Option<Verdict> {
        let (at, verdict) = match (self.at, answer) {
            (At::Starting { passed } | At::Unready { passed }, Ok(())) if passed + 1 >= self.successes => {
                (At::Ready { failed: 0 }, Some(Ok(())))
            }
            (At::Starting { passed }, Ok(())) => (At::Starting { passed: passed + 1 }, None),
            (At::Unready { passed }, Ok(())) => (At::Unready { passed: passed + 1 }, None),
            (At::Ready { .. }, Ok(())) => (At::Ready { failed: 0 }, None),
            (At::Starting { .. }, Err(reason)) => (At::Unready { passed: 0 }, Some(Err(reason))),
            (At::Ready { failed }, Err(reason)) if failed + 1 >= self.failures => {
                (At::Unready { passed: 0 }, Some(Err(reason)))
            }
            (At::Ready { failed }, Err(_)) => (At::Ready { failed: failed + 1 }, None),
            (At::Unready { .. }, Err(_)) => (At::Unready { passed: 0 }, None),
        };
        self.at = at;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers (`+` passes, `-` fails), and below each the verdict that it makes (`R`eady, `U`nready, `.` none).
    fn told(failures: u32, successes: u32, answers: &str) -> String {
        let mut tally = Tally::new(failures, successes);
        let told = |answer| {
            let answer = if answer == '+' { Ok(()) } else { Err("away".into()) };
            match tally.count(answer) {
                None => '.',
                Some(Ok(())) => 'R',
                Some(Err(_)) => 'U',
            }
        };
        answers.chars().map(told).collect()
    }

    #[test]
    fn as_many_in_a_row_as_asked_for_make_a_verdict() {
        for (failures, successes, answers, verdicts) in [
            (3, 1, "+--+---+", "R.....UR"),
            (3, 1, "--+", "U.R"),
            (1, 1, "+-+-+", "RURUR"),
            (2, 3, "++-+++-+--", "..U..R...U"),
            (2, 3, "+++--++-+++", "..R.U.....R"),
            (3, 2, "-+-++-+-+-+---", "U...R........U"),
        ] {
            assert_eq!(told(failures, successes, answers), verdicts, "{failures}, {successes}: {answers}");
        }
    }

    #[test]
    fn the_reason_is_the_last_one() {
        let mut tally = Tally::new(2, 1);
        assert_eq!(tally.count(Ok(())), Some(Ok(())));
        assert_eq!(tally.count(Err("first".into())), None);
        assert_eq!(tally.count(Err("second".into())), Some(Err("second".into())));
    }
}
