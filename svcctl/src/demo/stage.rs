//! Where the demo plays: an etcd, the fault proxy in front of it, and a folder for the processes' output.
//!
//! The actors reach etcd through the proxy only, so that outages are staged alike on the embedded etcd and on a given
//! one; the narrator looks at etcd directly.

use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_etcd::EmbeddedEtcd;
use embedded_etcd::proxy::{Mode, Proxy};
use etcd_client::{DeleteOptions, GetOptions};
use svc_registry::{Etcd, EtcdConfig};

use crate::cli::Demo;
use crate::exit::{Exit, Failure};
use crate::inventory::Inventory;

/// How long a given etcd may take to answer at first.
const READY: Duration = Duration::from_secs(5);

/// The stage of one demo.
#[derive(Debug)]
pub(super) struct Stage {
    embedded: Option<EmbeddedEtcd>,
    proxy: Proxy,
    direct: Etcd,
    binaries: PathBuf,
    logs: PathBuf,
    /// The folder of the logs is of our making.
    own_logs: bool,
    /// The embedded etcd is down.
    away: bool,
}

impl Stage {
    /// Sets the stage: an embedded etcd, or the given one under a prefix that nobody else has.
    pub(super) async fn set(args: &Demo) -> Result<Stage, Failure> {
        let binaries = binaries()?;
        let logs = logs(args.logs.as_deref())?;
        let (embedded, config) = match &args.etcd {
            None => {
                let etcd = EmbeddedEtcd::start().await;
                let address = etcd.listen(([127, 0, 0, 1], 0).into()).await?;
                (Some(etcd), EtcdConfig::new([address.to_string()])?)
            }
            Some(url) => {
                let prefix = format!("/svcctl-demo-{}", svc_registry::Incarnation::random());
                (None, EtcdConfig::from_url(url)?.with_prefix(&prefix)?)
            }
        };
        let direct = Etcd::new(config)?;
        direct.ready(READY).await?;
        // One member is enough to be cut off from: the proxy stands before the first that was given.
        let member = direct.config().endpoints().first().cloned().unwrap_or_default();
        let proxy = Proxy::start(member).await?;
        Ok(Stage { embedded, proxy, direct, binaries, logs, own_logs: args.logs.is_none(), away: false })
    }

    /// The registry, past the proxy.
    pub(super) fn etcd(&self) -> &Etcd {
        &self.direct
    }

    /// Whether the etcd is our own.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// The folder of the processes' output.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The file of one process's output.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// A binary beside our own.
    pub(super) fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }

    /// The folder of the binaries.
    pub(super) fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// A database that lasts as long as the demo.
    pub(super) fn database(&self, name: &str) -> String {
        format!("sqlite://{}", self.logs.join(format!("{name}.db")).display())
    }

    /// The flags by which an actor finds etcd.
    pub(super) fn etcd_flags(&self) -> Vec<String> {
        let prefix = self.direct.prefix().as_str().to_owned();
        vec!["--endpoints".into(), self.proxy.address().to_string(), "--prefix".into(), prefix]
    }

    /// By what a shell finds the etcd, past the proxy.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoints = self.direct.config().endpoints().join(",");
        let prefix = self.direct.prefix().as_str().to_owned();
        vec![("ETCDCTL_ENDPOINTS", endpoints), ("SVC_PREFIX", prefix)]
    }

    /// Where an instance is, by etcd.
    pub(super) fn address(&self, inventory: &Inventory, id: &str) -> Result<String, Failure> {
        let entry = inventory.entries.iter().find(|(key, _)| key.1.as_str() == id);
        let address = entry.map(|(_, entry)| entry.record.address.to_string());
        address.ok_or_else(|| Failure::new(Exit::Other, format!("{id} is not registered")))
    }

    /// From now on the actors' words to etcd, and its to them, get lost.
    pub(super) fn freeze(&self) {
        self.proxy.set(Mode::Blackhole);
    }

    /// From now on the actors' connections to etcd are refused.
    pub(super) fn cut_off(&self) {
        self.proxy.set(Mode::Reset);
    }

    /// They get through again.
    pub(super) fn thaw(&self) {
        self.proxy.set(Mode::Pass);
    }

    /// Takes etcd away, with all that it knew.
    pub(super) async fn take_away(&mut self) -> Result<(), Failure> {
        self.proxy.set(Mode::Reset);
        match &self.embedded {
            Some(etcd) => {
                self.away = true;
                etcd.wipe().await;
            }
            // Somebody else's etcd is not stopped: the actors cannot reach it, and find it without their keys.
            None => self.wipe().await?,
        }
        Ok(())
    }

    /// Brings it back, empty.
    pub(super) async fn bring_back(&mut self) -> Result<(), Failure> {
        if let (true, Some(etcd)) = (self.away, &self.embedded) {
            etcd.restart().await?;
            self.away = false;
            self.direct.ready(READY).await?;
        }
        self.proxy.set(Mode::Pass);
        Ok(())
    }

    /// Looks for keys that were left behind, and removes them; an error names them.
    pub(super) async fn clear(&mut self) -> Result<(), Failure> {
        self.bring_back().await?;
        let left = self.keys().await?;
        self.wipe().await?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Other, format!("keys were left behind: {}", left.join(", "))))
    }

    /// Removes a log folder that nobody needs any more, unless the user chose it.
    pub(super) fn forget_logs(&self) {
        if self.own_logs {
            // What stays is a few files below the folder for temporary ones.
            let _ = std::fs::remove_dir_all(&self.logs);
        }
    }

    fn ranges(&self) -> [String; 3] {
        let prefix = self.direct.prefix();
        [prefix.records(), prefix.draining(), prefix.control()]
    }

    async fn keys(&self) -> Result<Vec<String>, Failure> {
        let mut keys = Vec::new();
        for range in self.ranges() {
            let options = GetOptions::new().with_prefix().with_keys_only();
            let answer = self.direct.kv().get(range.as_str(), Some(options)).await;
            let answer = answer.map_err(|error| self.direct.error(&format!("reading {range}"), error))?;
            keys.extend(answer.kvs().iter().map(|pair| String::from_utf8_lossy(pair.key()).into_owned()));
        }
        Ok(keys)
    }

    /// Deletes the demo's keys and revokes the leases that kept them, as a loss of all data would.
    async fn wipe(&self) -> Result<(), Failure> {
        for range in self.ranges() {
            let doing = format!("deleting {range}");
            let delete = DeleteOptions::new().with_prefix().with_prev_key();
            let answer = self.direct.kv().delete(range.as_str(), Some(delete)).await;
            let answer = answer.map_err(|error| self.direct.error(&doing, error))?;
            let mut leases: Vec<i64> = answer.prev_kvs().iter().map(|pair| pair.lease()).collect();
            leases.sort_unstable();
            leases.dedup();
            for lease in leases.into_iter().filter(|&lease| lease != 0) {
                // One that has run out meanwhile is as good as revoked.
                let _ = self.direct.leases().revoke(lease).await;
            }
        }
        Ok(())
    }
}

fn binaries() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Other, format!("where svcctl lies is unknown: {error}")))?;
    let folder = own.parent().map(Path::to_path_buf).unwrap_or_default();
    for name in ["greeter", "greeter-load", "balance", "gift", "edge", "edge-load"] {
        let binary = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if !binary.is_file() {
            let remedy = "build all binaries with `make build`";
            return Err(Failure::new(Exit::Other, format!("there is no {}: {remedy}", binary.display())));
        }
    }
    Ok(folder)
}

fn logs(chosen: Option<&Path>) -> Result<PathBuf, Failure> {
    let logs = match chosen {
        Some(logs) => logs.to_path_buf(),
        None => std::env::temp_dir().join(format!("svcctl-demo-{}", svc_registry::Incarnation::random())),
    };
    std::fs::create_dir_all(&logs)
        .map_err(|error| Failure::new(Exit::Other, format!("--logs {}: {error}", logs.display())))?;
    Ok(logs)
}
