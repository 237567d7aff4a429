//! `pick_first`: one endpoint for all calls, the first in discovery's order that can be connected (gRFC A62's
//! `pick_first` without its sticky failures, which the channel's own verdict covers).

use std::sync::Arc;

use super::{Call, Picker, Policy};
use crate::subchannel::Subchannel;

/// One endpoint for all calls. Endpoints are connected one after the other, until one is ready; the next is tried when
/// that one is lost.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PickFirst;

impl PickFirst {
    /// The policy; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for PickFirst {
    fn name(&self) -> &'static str {
        "pick_first"
    }

    fn update(&mut self, ready: &[Subchannel]) -> Arc<dyn Picker> {
        Arc::new(First((!ready.is_empty()).then_some(0)))
    }

    fn connects_all(&self) -> bool {
        false
    }
}

struct First(Option<usize>);

impl Picker for First {
    fn pick(&self, _: &Call<'_>) -> Option<usize> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn none_of_none_and_always_the_first() {
        assert_eq!(pick(&*PickFirst.update(&[])), None);
        assert_eq!(shares(&*PickFirst.update(&subchannels(3)), 3, 10), [10, 0, 0]);
    }
}
