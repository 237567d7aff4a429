//! A peak-sensitive, exponentially weighted moving average of latencies: it rises to a worse sample at once and falls
//! slowly (Finagle's "Peak EWMA", 2015; also linkerd's and tower's). One atomic word, so that calls that end at the
//! same time never wait for each other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After so long without samples an average has fallen to 1/e: ten seconds, as linkerd's default.
const DECAY_MS: f32 = 10_000.0;

/// An average in microseconds and when it was made, in milliseconds of the caller's clock; 0 is "no sample yet".
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes a sample.
    pub(crate) fn observe(&self, sample_us: f32, now_ms: u32) {
        // A race that is lost is run again with what the winner wrote; there are as many turns as there are racers.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (average, at) = unpack(word);
            let next = if word == 0 || sample_us >= average {
                sample_us
            } else {
                let keep = decay(at, now_ms);
                average * keep + sample_us * (1.0 - keep)
            };
            Some(pack(next, now_ms))
        });
    }

    /// Forgets all samples.
    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// The average by now, in microseconds; `None` before the first sample. It falls while nothing is sampled, so that
    /// an endpoint that was slow once is tried again.
    pub(crate) fn get(&self, now_ms: u32) -> Option<f32> {
        match self.0.load(Relaxed) {
            0 => None,
            word => {
                let (average, at) = unpack(word);
                Some(average * decay(at, now_ms))
            }
        }
    }
}

fn decay(then_ms: u32, now_ms: u32) -> f32 {
    // Threads read their clocks in any order: a sample of "later" is one of now. The clock wraps after 49 days.
    let elapsed = now_ms.wrapping_sub(then_ms) as i32;
    if elapsed <= 0 { 1.0 } else { (-(elapsed as f32) / DECAY_MS).exp() }
}

fn pack(average_us: f32, at_ms: u32) -> u64 {
    // Never 0 for a sample: at least a nanosecond.
    u64::from(average_us.max(0.001).to_bits()) << 32 | u64::from(at_ms)
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.get(0), None);
        ewma.observe(100.0, 0);
        ewma.observe(1_000.0, 1);
        assert_eq!(ewma.get(1), Some(1_000.0));
        ewma.observe(100.0, 2);
        assert!(ewma.get(2).is_some_and(|e| e > 999.0), "one good sample proves little");
        for ms in 0..20_000 {
            ewma.observe(100.0, ms);
        }
        assert!(ewma.get(20_000).is_some_and(|e| (100.0..250.0).contains(&e)), "{:?}", ewma.get(20_000));
    }

    #[test]
    fn it_falls_while_nothing_is_sampled() {
        let ewma = PeakEwma::default();
        ewma.observe(1_000.0, 5);
        assert_eq!(ewma.get(5), Some(1_000.0));
        assert!(ewma.get(10_005).is_some_and(|e| (360.0..375.0).contains(&e)));
    }

    #[test]
    fn the_clocks_wrap_is_no_long_silence() {
        let ewma = PeakEwma::default();
        ewma.observe(1_000.0, u32::MAX - 1);
        assert!(ewma.get(8).is_some_and(|e| e > 998.0));
        assert_eq!(ewma.get(u32::MAX - 5), Some(1_000.0), "an older clock reading counts as now");
    }
}
