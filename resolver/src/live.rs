//! The live service config: how an operator wants a service's clients to behave, from its key in etcd to the channel.
//!
//! In come the catalog's policy entries as they change; out go configs, through a watch that the channel follows. What
//! cannot be read is logged, once for each time it is written, and the last good config stays.

use svc_channel::ServiceConfig;
use svc_registry::catalog::PolicyEntry;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Live {
    /// What the channel was made for, for logs.
    target: String,
    configs: watch::Sender<Option<ServiceConfig>>,
}

impl Live {
    pub(crate) fn new(target: String) -> Self {
        Self { target, configs: watch::Sender::new(None) }
    }

    /// Configs as they change; `None` where there is none in etcd.
    pub(crate) fn configs(&self) -> watch::Receiver<Option<ServiceConfig>> {
        self.configs.subscribe()
    }

    /// The key was written.
    pub(crate) fn put(&self, entry: &PolicyEntry) {
        let (target, revision) = (&*self.target, entry.modified);
        match read(&entry.value) {
            Ok(config) => {
                tracing::info!(target, %revision, "a service config from etcd");
                self.configs.send_replace(Some(config));
            }
            Err(error) => {
                tracing::warn!(target, %revision, %error, "the service config in etcd is refused; the last good one stays");
            }
        }
    }

    /// The key is gone: the channel's own settings hold again.
    pub(crate) fn delete(&self) {
        tracing::info!(target = &*self.target, "no service config in etcd any more");
        self.configs.send_replace(None);
    }
}

fn read(value: &[u8]) -> Result<ServiceConfig, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: svc_channel::InvalidServiceConfig| error.to_string())
}

#[cfg(test)]
mod tests {
    use svc_registry::{Revision, ServiceName};

    use super::*;

    fn entry(value: &[u8]) -> PolicyEntry {
        let service = ServiceName::new("greeter").expect("a name");
        PolicyEntry { service, value: value.into(), modified: Revision(7) }
    }

    #[test]
    fn the_last_good_config_stays_and_deletion_is_none() {
        let live = Live::new("greeter".into());
        let configs = live.configs();
        live.put(&entry(br#"{"loadBalancingConfig": [{"pick_first": {}}]}"#));
        let good = configs.borrow().clone();
        assert!(good.is_some());
        for bad in [&b"{"[..], b"\xff", br#"{"split": [{"match": {}, "percent": 5}]}"#] {
            live.put(&entry(bad));
            assert_eq!(*configs.borrow(), good);
        }
        live.delete();
        assert_eq!(*configs.borrow(), None);
    }

    #[test]
    fn a_refusal_names_the_field() {
        let error =
            read(br#"{"split": [{"match": {"version": "v2"}, "percent": 500}]}"#).expect_err("too much");
        assert!(error.contains("split[0].percent"), "{error}");
    }
}
