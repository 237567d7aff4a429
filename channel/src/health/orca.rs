//! Load reports of servers, per request (ORCA: gRFC A51), and the weight that they make (gRFC A58). In come the
//! trailers of responses, where the policy wants them; out goes a weight for each instance, which lives beside its other
//! load and is read without a lock. `policy/weighted_round_robin.rs` is next.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use prost::Message;

/// The trailer of gRFC A51; base64 as of all `-bin` metadata, with padding or without.
const TRAILER: &str = "endpoint-load-metrics-bin";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// A report without named metrics has less than 100 bytes; one that fits in here costs no allocation.
const ON_STACK: usize = 512;
/// gRFC A58: "weight_update_period ... values less than 100ms are capped at 100ms".
const LEAST_UPDATE_PERIOD: Duration = Duration::from_millis(100);

/// How weights are made of the load reports that servers send in their trailers (gRFC A58).
///
/// The weight of an endpoint is its calls a second by its utilization: `rps / (utilization + eps / rps *
/// error_utilization_penalty)`, where the utilization is the application's, or else the CPU's.
///
/// # Defaults
/// gRFC A58's: a blackout of 10 s, expiration after 3 minutes, an update each second, a penalty of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadReports {
    /// For how long an endpoint must have reported before its reports count: the first ones are of a cold process.
    pub blackout_period: Duration,
    /// A report this old counts no longer.
    pub weight_expiration_period: Duration,
    /// How often weights take effect; what is below 100 ms counts as that.
    pub weight_update_period: Duration,
    /// By how much errors make an endpoint look busier; what is below 0, or not a number, counts as 0.
    pub error_utilization_penalty: f32,
}

impl Default for LoadReports {
    fn default() -> Self {
        Self {
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            weight_update_period: Duration::from_secs(1),
            error_utilization_penalty: 1.0,
        }
    }
}

impl LoadReports {
    /// The same with all values in their ranges.
    pub(crate) fn checked(self) -> Self {
        Self {
            weight_update_period: self.weight_update_period.max(LEAST_UPDATE_PERIOD),
            error_utilization_penalty: self.error_utilization_penalty.max(0.0), // of a NaN too
            ..self
        }
    }
}

/// What of `xds.data.orca.v3.OrcaLoadReport` makes a weight; its other fields are skipped.
#[derive(Clone, Copy, PartialEq, Message)]
struct Report {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

impl Report {
    /// `None` where there is none, or it cannot be read.
    fn of(trailers: &HeaderMap) -> Option<Self> {
        let text = trailers.get(TRAILER)?.as_bytes();
        if base64::decoded_len_estimate(text.len()) > ON_STACK {
            return Self::decode(&*BASE64.decode(text).ok()?).ok();
        }
        let mut bytes = [0; ON_STACK];
        let length = BASE64.decode_slice(text, &mut bytes).ok()?;
        Self::decode(bytes.get(..length)?).ok()
    }

    /// gRFC A58; `None` where the report says too little, or what cannot be.
    fn weight(&self, error_penalty: f32) -> Option<f32> {
        let utilization = match self.application_utilization {
            application if application > 0.0 => application,
            _ => self.cpu_utilization,
        };
        let errors = match self.eps {
            eps if eps > 0.0 => eps / self.rps_fractional * f64::from(error_penalty),
            _ => 0.0,
        };
        if !(utilization > 0.0 && self.rps_fractional > 0.0) {
            return None;
        }
        let weight = (self.rps_fractional / (utilization + errors)) as f32;
        (weight.is_finite() && weight > 0.0).then_some(weight)
    }
}

/// Whether a weight counts, in gRFC A78's words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Standing {
    Usable(f32),
    /// No report has come, or the blackout lasts.
    NotYet,
    /// The last report has expired.
    Stale,
}

/// What one instance has reported. Times are milliseconds of `load.rs`'s clock, which starts at 1; 0 is never.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Whether trailers are looked at: else nothing below is used.
    wanted: AtomicBool,
    penalty: AtomicU32,
    blackout_ms: AtomicU64,
    expires_ms: AtomicU64,
    weight: AtomicU32,
    at_ms: AtomicU64,
    /// Since when reports have come without one expiring.
    since_ms: AtomicU64,
    /// The weight at the owner's last look.
    seen: AtomicU32,
}

impl Reported {
    /// What is wanted from here on; `None` is nothing.
    pub(crate) fn want(&self, settings: Option<&LoadReports>) {
        if let Some(settings) = settings {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.penalty.store(settings.error_utilization_penalty.to_bits(), Relaxed);
            self.blackout_ms.store(ms(settings.blackout_period), Relaxed);
            self.expires_ms.store(ms(settings.weight_expiration_period), Relaxed);
        }
        self.wanted.store(settings.is_some(), Relaxed);
    }

    /// A response has ended with these. The clock is read only where there is a report.
    pub(crate) fn read(&self, trailers: &HeaderMap, now_ms: impl FnOnce() -> u64) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        let penalty = f32::from_bits(self.penalty.load(Relaxed));
        let Some(weight) = Report::of(trailers).and_then(|report| report.weight(penalty)) else { return };
        let now_ms = now_ms();
        let last = self.at_ms.swap(now_ms, Relaxed);
        // Calls that end together write the same or nearly the same: no need for them to agree.
        self.weight.store(weight.to_bits(), Relaxed);
        if last == 0 || self.is_expired(last, now_ms) {
            self.since_ms.store(now_ms, Relaxed);
        }
    }

    fn is_expired(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(at_ms) >= self.expires_ms.load(Relaxed)
    }

    /// The weight that counts by now: `None` in the blackout, and where there is no report or it has expired.
    pub(crate) fn weight(&self, now_ms: u64) -> Option<f32> {
        match self.standing(now_ms) {
            Standing::Usable(weight) => Some(weight),
            Standing::NotYet | Standing::Stale => None,
        }
    }

    /// The same, with the reason.
    pub(crate) fn standing(&self, now_ms: u64) -> Standing {
        let (at, since) = (self.at_ms.load(Relaxed), self.since_ms.load(Relaxed));
        if !self.wanted.load(Relaxed) || at == 0 {
            Standing::NotYet
        } else if self.is_expired(at, now_ms) {
            Standing::Stale
        } else if now_ms.saturating_sub(since) < self.blackout_ms.load(Relaxed) {
            Standing::NotYet
        } else {
            Standing::Usable(f32::from_bits(self.weight.load(Relaxed)))
        }
    }

    /// Whether the weight that counts is another than when this was last asked; the owner's.
    pub(crate) fn has_changed(&self, now_ms: u64) -> bool {
        let bits = self.weight(now_ms).map_or(0, f32::to_bits);
        self.seen.swap(bits, Relaxed) != bits
    }

    /// What was reported was of a former connection: the blackout begins anew (gRFC A58).
    pub(crate) fn clear(&self) {
        self.at_ms.store(0, Relaxed);
    }
}

#[cfg(test)]
#[path = "orca_tests.rs"]
pub(crate) mod tests;
