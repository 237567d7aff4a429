//! The configuration in use: files are looked at when a connection is dialled, and read anew where one has changed.
//! What cannot be used is logged once and the last good configuration stays; connections that are up are not touched.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::ClientConfig;

use super::error::TlsError;
use super::material::{Material, Stamp};

#[derive(Debug)]
pub(super) struct Reloading {
    pub(super) material: Material,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ClientConfig>,
    /// What its files looked like, before they were read.
    stamps: Stamps,
    /// What they looked like when they could not be used, so that it is said once.
    refused: Stamps,
}

type Stamps = Vec<Option<Stamp>>;

impl Reloading {
    pub(super) fn new(material: Material) -> Result<Self, TlsError> {
        // Before they are read: a change in between is then seen at the next look.
        let stamps = material.stamps();
        let config = Arc::new(material.load()?);
        Ok(Self { material, current: Mutex::new(Current { config, stamps, refused: vec![] }) })
    }

    /// What a new connection is to use.
    pub(super) async fn fresh(self: &Arc<Self>) -> Arc<ClientConfig> {
        if !self.material.has_files() {
            return self.last();
        }
        let this = self.clone();
        // Files may lie on a slow disk. Owned by the dial that awaits it; it ends by itself and has no error but a panic,
        // or the runtime's end, after which what was good last is good enough.
        tokio::task::spawn_blocking(move || this.look()).await.unwrap_or_else(|_| self.last())
    }

    fn last(&self) -> Arc<ClientConfig> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    fn look(&self) -> Arc<ClientConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.material.stamps();
        if stamps != current.stamps {
            match self.material.load() {
                Ok(config) => {
                    tracing::info!(material = ?self.material, "TLS files were loaded anew");
                    current.config = Arc::new(config);
                    current.stamps = stamps;
                }
                // A pair that is replaced one file after the other does not match for a moment: the next dial looks
                // again, whatever the stamps say, since permissions may be put right without a trace in them.
                Err(error) if current.refused != stamps => {
                    tracing::warn!(%error, "changed TLS files cannot be used; the last good ones stay in use");
                    current.refused = stamps;
                }
                Err(_said) => {}
            }
        }
        current.config.clone()
    }
}
