//! Turns: contestants run one after the other, again and again (A B C A B C), so that what the machine does
//! meanwhile hits all of them; of each the median counts.

use std::error::Error;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// What one contestant measured, a value a round.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    pub(crate) name: &'static str,
    values: Vec<f64>,
}

impl Samples {
    pub(crate) fn of(name: &'static str) -> Self {
        Samples { name, values: Vec::new() }
    }

    /// The same values under another name: a peer in another row.
    pub(crate) fn rename(&mut self, name: &'static str) {
        self.name = name;
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        }
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }
}

/// Time on the clock and CPU time of this process, user and system, between two points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

/// Starts to measure; call [`Meter::stop`] at the end.
#[derive(Debug)]
pub(crate) struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Meter { cpu: cpu_time()?, wall: Instant::now() })
    }

    pub(crate) fn stop(self) -> Result<Spent, Box<dyn Error>> {
        Ok(Spent { wall: self.wall.elapsed(), cpu: cpu_time()?.saturating_sub(self.cpu) })
    }
}

fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::new(time.tv_sec().try_into()?, u32::try_from(time.tv_usec())? * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_the_two() {
        let mut samples = Samples::of("x");
        for value in [3.0, 1.0, 2.0] {
            samples.push(value);
        }
        assert_eq!(samples.median().to_bits(), 2.0_f64.to_bits());
        samples.push(10.0);
        assert_eq!(samples.median().to_bits(), 2.5_f64.to_bits());
        assert_eq!(samples.range(), (1.0, 10.0));
    }
}
