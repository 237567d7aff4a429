//! The service config in force, and where the next one comes from. In come configs, through the builder's watch; out go
//! what calls read of them ([`Methods`], a part of the snapshot) and what the owner sets its policy and its endpoint set
//! by. A config that cannot be read never gets here: parsing refuses it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::attempt::throttle::Throttle;
use crate::health::outlier::OutlierDetection;
use crate::service_config::ServiceConfig;

/// Configs as they change; `None` is the builder's own.
pub(crate) type Updates = watch::Receiver<Option<ServiceConfig>>;

/// What the owner knows of its config.
pub(crate) struct Config {
    /// The builder's, which holds where the watch has none.
    own: ServiceConfig,
    own_outliers: OutlierDetection,
    updates: Option<Updates>,
    in_force: ServiceConfig,
    methods: Option<Arc<Methods>>,
}

impl Config {
    pub(crate) fn new(
        own: ServiceConfig,
        own_outliers: OutlierDetection,
        mut updates: Option<Updates>,
    ) -> Self {
        let first = updates.as_mut().and_then(|updates| updates.borrow_and_update().clone());
        let in_force = first.unwrap_or_else(|| own.clone());
        let methods = Methods::of(&in_force, None);
        Self { own, own_outliers, updates, in_force, methods }
    }

    /// Waits for another config; for ever where none can come.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn changed(&mut self) {
        if let Some(updates) = &mut self.updates
            && updates.changed().await.is_ok()
        {
            return updates.mark_changed(); // read by `take`
        }
        // Nobody is left to send one: the last holds.
        std::future::pending::<()>().await;
    }

    /// Puts the newest config in force; false where it is the one that is.
    pub(crate) fn take(&mut self) -> bool {
        let Some(updates) = &mut self.updates else { return false };
        let next = updates.borrow_and_update().clone().unwrap_or_else(|| self.own.clone());
        if next == self.in_force {
            return false;
        }
        self.methods = Methods::of(&next, self.methods.as_deref());
        self.in_force = next;
        true
    }

    pub(crate) fn in_force(&self) -> &ServiceConfig {
        &self.in_force
    }

    pub(crate) fn outliers(&self) -> &OutlierDetection {
        self.in_force.outliers.as_ref().unwrap_or(&self.own_outliers)
    }

    pub(crate) fn methods(&self) -> Option<&Arc<Methods>> {
        self.methods.as_ref()
    }
}

/// What the service config says of methods.
pub(crate) struct Methods {
    pub(crate) config: ServiceConfig,
    pub(crate) throttle: Option<Arc<Throttle>>,
}

impl Methods {
    /// `None` where nothing is said of any method: then it costs nothing. The throttle goes on with the tokens of the one
    /// `before` it.
    fn of(config: &ServiceConfig, before: Option<&Methods>) -> Option<Arc<Self>> {
        if config.has_no_methods() {
            return None;
        }
        let before = before.and_then(|methods| methods.throttle.as_ref());
        let throttle = config.throttling.map(|settings| Throttle::after(before, settings));
        Some(Arc::new(Self { config: config.clone(), throttle }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(throttling: &str, timeout: &str) -> Option<ServiceConfig> {
        let json = format!(
            r#"{{"methodConfig": [{{"name": [{{}}], "timeout": "{timeout}"}}], "retryThrottling": {throttling}}}"#
        );
        Some(json.parse().expect("a config"))
    }

    const TEN: &str = r#"{"maxTokens": 10, "tokenRatio": 1}"#;
    const TWENTY: &str = r#"{"maxTokens": 20, "tokenRatio": 1}"#;

    /// How many failures are left until retries stop.
    fn left(config: &Config) -> usize {
        let throttle = config.methods().and_then(|methods| methods.throttle.clone()).expect("a throttle");
        (0..).take_while(|_| throttle.failed()).count()
    }

    #[test]
    fn the_throttle_goes_on_with_its_tokens() {
        let (sender, updates) = watch::channel(config(TEN, "1s"));
        let mut live = Config::new(ServiceConfig::default(), OutlierDetection::default(), Some(updates));
        let fail = |live: &Config, count| {
            let throttle = live.methods().and_then(|methods| methods.throttle.clone()).expect("a throttle");
            (0..count).for_each(|_| assert!(throttle.failed()));
        };
        fail(&live, 3);
        sender.send_replace(config(TEN, "2s"));
        assert!(live.take());
        assert_eq!(left(&live), 1, "seven tokens: the first failure leaves six, the second five");
        sender.send_replace(config(TWENTY, "2s"));
        assert!(live.take());
        assert_eq!(left(&live), 0, "half of the old tokens are half of the new ones");
    }

    #[test]
    fn a_config_that_is_in_force_changes_nothing_and_none_is_the_builders_own() {
        let own: ServiceConfig = config(TEN, "9s").expect("some");
        let (sender, updates) = watch::channel(None);
        let mut live = Config::new(own.clone(), OutlierDetection::default(), Some(updates));
        assert_eq!(live.in_force(), &own);
        sender.send_replace(Some(own.clone()));
        assert!(!live.take());
        sender.send_replace(config(TEN, "1s"));
        assert!(live.take());
        sender.send_replace(None);
        assert!(live.take());
        assert_eq!(live.in_force(), &own);
    }
}
