//! etcd's limits: the sizes of messages, and the quota of the store with its alarm.

use etcd_client::proto::{PbPutRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};
use prost::Message;

use crate::refusal::Refusal;
use crate::settings::Settings;

/// What our transport takes at least, so that the refusal is etcd's rather than tonic's.
pub(crate) const TRANSPORT_BYTES: usize = 64 * 1024 * 1024;

/// What etcd reckons for a key beside its bytes, and for a lease.
const KEY_BYTES: u64 = 256;
pub(crate) const LEASE_BYTES: u64 = 64;

/// Refuses a write that etcd would not let into its log.
pub(crate) fn check_write(settings: &Settings, request: &impl Message) -> Result<(), Refusal> {
    let (size, max) = (request.encoded_len(), settings.max_message_bytes());
    if size > max {
        Err(Refusal::MessageTooLarge { size, max })
    } else if size > settings.max_request_bytes {
        Err(Refusal::RequestTooLarge)
    } else {
        Ok(())
    }
}

/// What a put takes of the quota, in bytes.
pub(crate) fn cost_of_put(request: &PbPutRequest) -> u64 {
    KEY_BYTES + (request.key.len() + request.value.len()) as u64
}

/// What a transaction may take at most; those nested in it are not counted, as in etcd.
pub(crate) fn cost_of_txn(request: &PbTxnRequest) -> u64 {
    let branch = |ops: &[PbTxnRequestOp]| -> u64 {
        let puts = ops.iter().filter_map(|op| match &op.request {
            Some(PbTxnOpRequest::RequestPut(put)) => Some(cost_of_put(put)),
            _ => None,
        });
        puts.sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// The alarm that a full store raises. It stays until someone disarms it, however empty the store is by then.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoSpace {
    pub(crate) raised: bool,
}

impl NoSpace {
    /// Refuses what the quota has no room for, and raises the alarm. What costs nothing always passes.
    pub(crate) fn check(&mut self, quota: u64, size: u64, cost: u64) -> Result<(), Refusal> {
        if cost > 0 && size.saturating_add(cost) >= quota {
            self.raised = true;
        }
        if cost > 0 && self.raised { Err(Refusal::NoSpace) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_raises_the_alarm_which_outlives_the_want_of_space() {
        let mut alarm = NoSpace::default();
        assert_eq!(alarm.check(1000, 600, 300), Ok(()));
        assert_eq!(alarm.check(1000, 900, 0), Ok(()), "what costs nothing");
        assert_eq!((alarm.check(1000, 700, 300), alarm.raised), (Err(Refusal::NoSpace), true));
        assert_eq!(alarm.check(1000, 0, 1), Err(Refusal::NoSpace), "until it is disarmed");
        assert_eq!(alarm.check(1000, 0, 0), Ok(()));
    }
}
