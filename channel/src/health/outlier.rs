//! Outlier ejection: endpoints that behave worse than the others are taken out for a while, and come back through an
//! answered PING or a health check that says SERVING, never at the cost of a user's call.
//!
//! What ejects:
//! * *consecutive failures* act at once: they are what saves small sets, in which statistics say nothing. Three
//!   deadlines in a row that expired after sending, three connections in a row that were of no use, or as many failed
//!   calls in a row as are configured.
//! * *success rate* and *failure percentage* are gRFC A50's, reckoned once an interval; off unless configured.
//!
//! What counts as a failure: UNAVAILABLE, UNKNOWN, INTERNAL, DATA_LOSS, resets, lost connections, and deadlines that
//! expired after sending. Application codes, cancels, and deadlines that expired while the call waited do not.
//!
//! What goes before what, the first that applies:
//! 1. the last endpoint that takes calls is never ejected
//! 2. the statistical ejections stop at the maximum ejection percent; consecutive failures do not
//! 3. *panic threshold*: where fewer than that part of the connected endpoints are healthy, those that were ejected for
//!    failing take calls too, since then the fault is hardly theirs; black holes (expired deadlines, lost connections)
//!    do not, since they answer nobody
//! 4. where all that are connected are black holes, they take calls

use std::time::Duration;

use crate::subchannel::face::Standing;
use crate::subchannel::id::EndpointId;
use crate::subchannel::state::Cause;

/// When endpoints are ejected.
///
/// # Defaults
/// Five failed calls in a row, or three expired deadlines or lost connections in a row, for 5 s, doubled each time up
/// to 300 s; a panic threshold of 50 %. Statistics are off.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierDetection {
    /// How often the statistics are reckoned (A50: 10 s).
    pub interval: Duration,
    /// How long the first ejection lasts; each further one lasts twice as long.
    pub base_ejection_time: Duration,
    /// The longest ejection.
    pub max_ejection_time: Duration,
    /// At most so many of a hundred endpoints are ejected by the statistics; one in any case (A50: 10).
    pub max_ejection_percent: u32,
    /// So many failed calls in a row eject at once; `None` switches that off.
    pub consecutive_failures: Option<u32>,
    /// Where fewer than so many of a hundred connected endpoints are healthy, failing ones take calls too; 0 is off.
    pub panic_threshold_percent: u32,
    /// Ejects those whose success rate lies below the others' (A50).
    pub success_rate: Option<SuccessRate>,
    /// Ejects those of whose calls too many fail (A50).
    pub failure_percentage: Option<FailurePercentage>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(5),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            consecutive_failures: Some(5),
            panic_threshold_percent: 50,
            success_rate: None,
            failure_percentage: None,
        }
    }
}

/// How many of the connected endpoints are healthy: it decides whether the others take calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    healthy: usize,
    failing: usize,
    panic: bool,
}

impl Census {
    /// Whether one that stands so takes calls: the healthy do, and others where those are too few.
    pub(crate) fn takes_calls(&self, standing: Standing) -> bool {
        standing.serves
            && match standing.ejected_for {
                None => true,
                Some(Cause::Failing) => self.panic || self.healthy == 0,
                Some(Cause::BlackHole) => self.healthy + self.failing == 0,
            }
    }
}

/// gRFC A50's `successRateEjection`. The defaults are A50's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// How many thousandths of a standard deviation below the mean are too low (1900).
    pub stdev_factor: u32,
    /// Of a hundred that are too low, so many are ejected (100).
    pub enforcement_percent: u32,
    /// With fewer endpoints that had enough calls nothing is reckoned (5).
    pub minimum_hosts: u32,
    /// What enough calls in an interval are (100).
    pub request_volume: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1900, enforcement_percent: 100, minimum_hosts: 5, request_volume: 100 }
    }
}

/// gRFC A50's `failurePercentageEjection`. The defaults are A50's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// More failures of a hundred calls than this are too many (85).
    pub threshold: u32,
    /// Of a hundred that have too many, so many are ejected (100).
    pub enforcement_percent: u32,
    /// With fewer endpoints that had enough calls nothing is reckoned (5).
    pub minimum_hosts: u32,
    /// What enough calls in an interval are (50).
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, enforcement_percent: 100, minimum_hosts: 5, request_volume: 50 }
    }
}

/// By what an endpoint was found out. A91 knows the first two; the others act without statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detection {
    SuccessRate,
    FailurePercentage,
    /// Calls failed, one after the other.
    ConsecutiveFailures,
    /// Deadlines expired, or connections were of no use, one after the other.
    BlackHole,
}

impl Detection {
    /// As metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::BlackHole => "black_hole",
        }
    }
}

/// Why an endpoint that the statistics have found out is kept. A91 knows the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Chance has spared it.
    Enforcement,
    /// So many are ejected already.
    MaxEjection,
    /// Nobody else takes calls.
    Last,
}

impl Kept {
    /// As metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Enforcement => "enforcement_percentage",
            Self::MaxEjection => "max_ejection_overflow",
            Self::Last => "last_endpoint",
        }
    }
}

/// What the statistics of an interval have found out.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Who is to be ejected.
    pub(crate) outliers: Vec<(EndpointId, Detection)>,
    /// Who would be, but for the reason.
    pub(crate) kept: Vec<(Detection, Kept)>,
}

impl From<Cause> for Detection {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Failing => Self::ConsecutiveFailures,
            Cause::BlackHole => Self::BlackHole,
        }
    }
}

/// What one endpoint did in an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) endpoint: EndpointId,
    pub(crate) answered: u32,
    pub(crate) failed: u32,
    pub(crate) ejected: bool,
}

impl Tally {
    fn calls(&self) -> u32 {
        self.answered.saturating_add(self.failed)
    }

    fn success_percent(&self) -> f64 {
        100.0 * f64::from(self.answered) / f64::from(self.calls().max(1))
    }
}

impl OutlierDetection {
    /// Counts those that stand as told.
    pub(crate) fn census(&self, all: impl Iterator<Item = Standing>) -> Census {
        let (mut healthy, mut failing) = (0, 0);
        for standing in all.filter(|standing| standing.serves) {
            match standing.ejected_for {
                None => healthy += 1,
                Some(Cause::Failing) => failing += 1,
                Some(Cause::BlackHole) => {}
            }
        }
        let panic =
            failing > 0 && healthy * 100 < self.panic_threshold_percent as usize * (healthy + failing);
        Census { healthy, failing, panic }
    }

    /// Whether there is anything to reckon once an interval.
    pub(crate) fn has_statistics(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }

    /// Whom the statistics of an interval eject, and whom they spare.
    pub(crate) fn outliers(&self, tallies: &[Tally], rng: &mut fastrand::Rng) -> Found {
        let mut ejected = tallies.iter().filter(|t| t.ejected).count();
        let mut found = Found::default();
        let by_rate =
            self.below_success_rate(tallies).into_iter().map(|found| (found, Detection::SuccessRate));
        let by_share =
            self.above_failures(tallies).into_iter().map(|found| (found, Detection::FailurePercentage));
        for ((tally, enforcement_percent), detection) in by_rate.chain(by_share) {
            if tally.ejected || found.outliers.iter().any(|(id, _)| *id == tally.endpoint) {
                continue;
            }
            let percent = 100 * ejected / tallies.len().max(1);
            if ejected > 0 && percent >= self.max_ejection_percent as usize {
                found.kept.push((detection, Kept::MaxEjection));
            } else if rng.u32(..100) < enforcement_percent {
                found.outliers.push((tally.endpoint, detection));
                ejected += 1;
            } else {
                found.kept.push((detection, Kept::Enforcement));
            }
        }
        found
    }

    fn below_success_rate<'a>(&self, tallies: &'a [Tally]) -> Vec<(&'a Tally, u32)> {
        let Some(settings) = self.success_rate else { return vec![] };
        let Some(counted) = enough(tallies, settings.request_volume, settings.minimum_hosts) else {
            return vec![];
        };
        let mean = counted.iter().map(|t| t.success_percent()).sum::<f64>() / counted.len() as f64;
        let variance =
            counted.iter().map(|t| (t.success_percent() - mean).powi(2)).sum::<f64>() / counted.len() as f64;
        let least = mean - variance.sqrt() * f64::from(settings.stdev_factor) / 1000.0;
        let below = counted.into_iter().filter(|t| t.success_percent() < least);
        below.map(|t| (t, settings.enforcement_percent)).collect()
    }

    fn above_failures<'a>(&self, tallies: &'a [Tally]) -> Vec<(&'a Tally, u32)> {
        let Some(settings) = self.failure_percentage else { return vec![] };
        let Some(counted) = enough(tallies, settings.request_volume, settings.minimum_hosts) else {
            return vec![];
        };
        let above =
            counted.into_iter().filter(|t| 100.0 - t.success_percent() > f64::from(settings.threshold));
        above.map(|t| (t, settings.enforcement_percent)).collect()
    }
}

/// Those that had enough calls, where there are enough of them.
fn enough(tallies: &[Tally], volume: u32, hosts: u32) -> Option<Vec<&Tally>> {
    let counted: Vec<_> = tallies.iter().filter(|t| t.calls() >= volume.max(1)).collect();
    (counted.len() >= hosts.max(1) as usize).then_some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(of: &[(u32, u32)]) -> Vec<Tally> {
        let tally = |(i, &(answered, failed)): (usize, &(u32, u32))| Tally {
            endpoint: EndpointId(i as u64),
            answered,
            failed,
            ejected: false,
        };
        of.iter().enumerate().map(tally).collect()
    }

    fn outliers(detection: &OutlierDetection, of: &[(u32, u32)]) -> Vec<u64> {
        found(detection, of).outliers.into_iter().map(|(id, _)| id.0).collect()
    }

    fn found(detection: &OutlierDetection, of: &[(u32, u32)]) -> Found {
        detection.outliers(&tallies(of), &mut fastrand::Rng::with_seed(1))
    }

    fn by_rate() -> OutlierDetection {
        OutlierDetection { success_rate: Some(SuccessRate::default()), ..Default::default() }
    }

    fn by_percentage() -> OutlierDetection {
        let failure_percentage = Some(FailurePercentage { request_volume: 10, ..Default::default() });
        OutlierDetection { failure_percentage, max_ejection_percent: 100, ..Default::default() }
    }

    #[test]
    fn a_success_rate_far_below_the_others_ejects() {
        let mut counts = vec![(100, 0); 9];
        counts.push((50, 50));
        assert_eq!(outliers(&by_rate(), &counts), [9]);
        assert_eq!(outliers(&by_rate(), &[(90, 10); 10]), [] as [u64; 0], "all alike");
    }

    #[test]
    fn with_few_calls_or_few_endpoints_nothing_is_reckoned() {
        let mut few_calls = vec![(10, 0); 9];
        few_calls.push((0, 10));
        assert_eq!(outliers(&by_rate(), &few_calls), [] as [u64; 0]);
        assert_eq!(outliers(&by_rate(), &[(100, 0), (100, 0), (0, 100)]), [] as [u64; 0]);
    }

    #[test]
    fn more_failures_than_the_threshold_eject() {
        let counts = [(100, 0), (100, 0), (100, 0), (15, 85), (14, 86)];
        assert_eq!(outliers(&by_percentage(), &counts), [4], "85 are not more than 85");
    }

    #[test]
    fn at_most_the_maximum_percent_is_ejected_but_one_in_any_case() {
        let most = |percent| OutlierDetection { max_ejection_percent: percent, ..by_percentage() };
        let counts = [(0, 100); 10];
        assert_eq!(outliers(&most(30), &counts).len(), 3);
        assert_eq!(outliers(&most(10), &counts).len(), 1);
        assert_eq!(outliers(&most(0), &counts).len(), 1);
    }

    #[test]
    fn enforcement_is_a_chance() {
        let none =
            Some(FailurePercentage { enforcement_percent: 0, request_volume: 10, ..Default::default() });
        let detection = OutlierDetection { failure_percentage: none, ..by_percentage() };
        assert_eq!(outliers(&detection, &[(0, 100); 10]), [] as [u64; 0]);
    }

    #[test]
    fn those_that_are_spared_are_told_with_the_reason() {
        let counts = [(0, 100); 6];
        let most = OutlierDetection { max_ejection_percent: 50, ..by_percentage() };
        let overflow = (Detection::FailurePercentage, Kept::MaxEjection);
        let spared = found(&most, &counts);
        assert_eq!((spared.outliers.len(), spared.kept), (3, vec![overflow; 3]));
        let none =
            Some(FailurePercentage { enforcement_percent: 0, request_volume: 10, ..Default::default() });
        let never = OutlierDetection { failure_percentage: none, ..by_percentage() };
        assert_eq!(found(&never, &counts).kept, [(Detection::FailurePercentage, Kept::Enforcement); 6]);
        assert_eq!(found(&by_percentage(), &counts).kept, [], "all are ejected: nobody is spared");
    }
}
