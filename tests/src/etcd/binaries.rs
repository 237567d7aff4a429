//! Where the binaries of real etcds are: `ETCD_BINS` first, then what `tests/tools/etcd.sh` unpacked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Kind;
use crate::tools;

/// One etcd that runs on this machine.
#[derive(Debug, Clone)]
pub struct Binary {
    /// The server.
    pub etcd: PathBuf,
    /// The client beside it, which may be missing with `ETCD_BINS`.
    pub etcdctl: PathBuf,
    /// Such as `3.5.16`.
    pub version: String,
    /// Whether it can be told not to wait for the disk.
    pub has_no_fsync: bool,
    /// How it is told when to send progress notices; the name changed in 3.6.
    pub progress_flag: &'static str,
}

/// The binary for this kind, looked for once per process.
pub fn find(kind: Kind) -> Option<&'static Binary> {
    static FOUND: [OnceLock<Option<Binary>>; 3] = [const { OnceLock::new() }; 3];
    let slot = match kind {
        Kind::Embedded => return None,
        Kind::Etcd34 => 0,
        Kind::Etcd35 => 1,
        Kind::Etcd351 => 2,
    };
    FOUND[slot].get_or_init(|| candidates(kind).iter().find_map(|path| probe(path, kind))).as_ref()
}

fn candidates(kind: Kind) -> Vec<PathBuf> {
    let named = std::env::var_os("ETCD_BINS").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&named)
        .map(|entry| if entry.is_dir() { entry.join("etcd") } else { entry })
        .collect();
    let folder = match kind {
        Kind::Embedded => return all,
        Kind::Etcd34 => "etcd-3.4",
        Kind::Etcd35 => "etcd-3.5",
        Kind::Etcd351 => "etcd-3.5.1",
    };
    all.push(tools::folder().join(folder).join("bin").join("etcd"));
    all
}

fn probe(etcd: &Path, kind: Kind) -> Option<Binary> {
    let said = output(etcd, "--version")?;
    let version = said.lines().find_map(|line| line.strip_prefix("etcd Version: "))?.trim().to_owned();
    let minor: u32 = version.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
    let fits = match kind {
        Kind::Embedded => false,
        Kind::Etcd34 => minor == 4,
        Kind::Etcd35 => minor >= 5 && version != "3.5.1",
        Kind::Etcd351 => version == "3.5.1",
    };
    let help = output(etcd, "--help")?;
    fits.then(|| Binary {
        etcd: etcd.to_owned(),
        etcdctl: etcd.with_file_name("etcdctl"),
        version,
        has_no_fsync: help.contains("--unsafe-no-fsync"),
        progress_flag: if help.contains("--watch-progress-notify-interval") {
            "--watch-progress-notify-interval"
        } else {
            "--experimental-watch-progress-notify-interval"
        },
    })
}

fn output(binary: &Path, argument: &str) -> Option<String> {
    let done = Command::new(binary).arg(argument).stdin(Stdio::null()).output().ok()?;
    // 3.4 prints its help on stderr.
    Some(String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
}
