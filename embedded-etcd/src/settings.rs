//! What a node is told once: etcd's flags, as far as they matter here.

use std::time::Duration;

/// What etcd allows on top of a request's size for gRPC's own needs.
const OVERHEAD_BYTES: usize = 512 * 1024;

/// # Defaults
/// etcd's own, each named at its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The smallest lease TTL, in seconds: 2, from etcd's default election timeout.
    pub(crate) min_ttl: i64,
    /// `--auth-token-ttl`: 300 s.
    pub(crate) token_ttl: Duration,
    /// `--max-request-bytes`: 1.5 MiB.
    pub(crate) max_request_bytes: usize,
    /// `--max-txn-ops`: 128.
    pub(crate) max_txn_ops: usize,
    /// `--quota-backend-bytes`: 2 GiB.
    pub(crate) quota_bytes: u64,
    /// Whether changes are gathered for a data folder: no.
    pub(crate) kept: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_ttl: 2,
            token_ttl: Duration::from_secs(300),
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            quota_bytes: 2 * 1024 * 1024 * 1024,
            kept: false,
        }
    }
}

impl Settings {
    /// The largest message that is taken, and the size at which answers of a watch are split.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(OVERHEAD_BYTES)
    }
}
