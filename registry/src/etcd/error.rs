//! What etcd's refusals mean: the one place where its texts and codes are read.
//!
//! A status or an etcd-client error comes in, a [`Failure`] goes out; callers match on that, never on text.
//! The texts are those of etcd 3.4 to 3.6 (`api/v3rpc/rpctypes/error.go`).

use std::fmt;

use svc_channel::Peer;
use tonic::{Code, Status};

use super::named::{member_of, shown};
use crate::error::{Error, Kind};

/// What kind of answer, or lack of one, an etcd call ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No member could be reached, or the connection was lost.
    Unreachable,
    /// The member has no leader: it is cut off, or an election is under way. Nothing was done.
    NoLeader,
    /// The member is a learner, which does not serve clients. Nothing was done.
    Learner,
    /// The member is overloaded and refused the request before doing anything.
    TooManyRequests,
    /// No answer in time; a write may or may not have happened.
    TimedOut,
    /// The user lacks permission for a key of the request.
    Denied,
    /// User or password are not accepted.
    AuthFailed,
    /// The token is not accepted, or there is none where etcd wants one. Nothing was done; with a user the token is renewed.
    StaleToken,
    /// The revision asked for has been compacted.
    Compacted,
    /// The revision asked for is in the future of this member.
    FutureRevision,
    /// The lease does not exist, or no longer.
    LeaseNotFound,
    /// The lease id chosen is in use.
    LeaseExists,
    /// Request or answer exceed a size limit.
    TooLarge,
    /// The database is over its quota (alarm NOSPACE): reads, keepalives and deletes still work.
    NoSpace,
    /// The members disagree about their data (alarm CORRUPT): etcd serves nothing until an operator has mended that.
    Corrupt,
    /// Anything else; the message has the text.
    Other,
}

impl Failure {
    /// Whether the request was certainly not carried out, so that a write may be repeated.
    ///
    /// `etcdserver: request timed out` is not among them: the proposal may still be applied.
    pub fn is_not_processed(self) -> bool {
        matches!(self, Failure::NoLeader | Failure::Learner | Failure::TooManyRequests)
    }

    /// Whether another member, or the same one later, may well answer.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Failure::Unreachable
                | Failure::NoLeader
                | Failure::Learner
                | Failure::TooManyRequests
                | Failure::TimedOut
        )
    }

    fn remedy(self) -> &'static str {
        match self {
            Failure::Unreachable => {
                "check --endpoints, that etcd is running and reachable from here, and whether it wants TLS (https://)"
            }
            Failure::NoLeader => "the member sees no leader: check the health of the etcd cluster",
            Failure::Learner => "name voting members in --endpoints",
            Failure::TooManyRequests => "etcd is overloaded: lower the load or try again",
            Failure::TimedOut => "etcd is slow or cut off: check its health, or raise --command-timeout",
            Failure::Denied => "grant the user's role the key range, or use another user",
            Failure::AuthFailed => "check --user and its password",
            Failure::StaleToken => "etcd has users: name one with --user or ETCDCTL_USER",
            Failure::Compacted => "read again at the current revision",
            Failure::FutureRevision => "the member lags behind or was restored: read again",
            Failure::LeaseNotFound => "the lease has run out: take a new one",
            Failure::LeaseExists => "choose another lease id",
            Failure::TooLarge => "split the request, or raise the size limit",
            Failure::NoSpace => "compact, defragment and disarm the NOSPACE alarm of etcd",
            Failure::Corrupt => "replace the members whose data differ and disarm the CORRUPT alarm of etcd",
            Failure::Other => "see the message of etcd",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Unreachable => "etcd is unreachable",
            Failure::NoLeader => "etcd has no leader",
            Failure::Learner => "the member is a learner",
            Failure::TooManyRequests => "etcd is overloaded",
            Failure::TimedOut => "etcd did not answer in time",
            Failure::Denied => "etcd denied permission",
            Failure::AuthFailed => "etcd refused the credentials",
            Failure::StaleToken => "etcd did not accept the token",
            Failure::Compacted => "the revision was compacted",
            Failure::FutureRevision => "the revision is in the future",
            Failure::LeaseNotFound => "the lease is gone",
            Failure::LeaseExists => "the lease id is in use",
            Failure::TooLarge => "the message is too large",
            Failure::NoSpace => "etcd is out of space",
            Failure::Corrupt => "etcd holds corrupt data",
            Failure::Other => "etcd refused the request",
        })
    }
}

/// What the status of an etcd call means.
pub fn classify_status(status: &Status) -> Failure {
    let text = status.message();
    let says = |needle: &str| text.contains(needle);
    match status.code() {
        // The texts first: etcd uses one code for many things, and different codes over the versions.
        _ if says("requested lease not found") => Failure::LeaseNotFound,
        _ if says("lease already exists") => Failure::LeaseExists,
        _ if says("revision has been compacted") => Failure::Compacted,
        _ if says("is a future revision") => Failure::FutureRevision,
        _ if says("etcdserver: no leader") || says("not leader") => Failure::NoLeader,
        _ if says("rpc not supported for learner") => Failure::Learner,
        _ if says("too many requests") => Failure::TooManyRequests,
        _ if says("request timed out") || says("applied took too long") => Failure::TimedOut,
        _ if says("database space exceeded") => Failure::NoSpace,
        _ if says("corrupt cluster") => Failure::Corrupt,
        _ if says("permission denied") => Failure::Denied,
        // 3.4 and 3.5 have different words for a token that is older than a change of users.
        _ if says("invalid auth token")
            || says("user name is empty")
            || says("revision of auth store is old")
            || says("revision in header is old") =>
        {
            Failure::StaleToken
        }
        _ if says("authentication failed") || says("user name not found") => Failure::AuthFailed,
        _ if says("request is too large") || says("too many operations") => Failure::TooLarge,
        Code::Unavailable | Code::Cancelled => Failure::Unreachable,
        Code::DeadlineExceeded => Failure::TimedOut,
        Code::PermissionDenied => Failure::Denied,
        Code::Unauthenticated => Failure::StaleToken,
        Code::OutOfRange if says("decoded message length too large") => Failure::TooLarge,
        Code::ResourceExhausted if says("message") => Failure::TooLarge,
        // A connection that ended in the middle of a call, as tonic's own transport reports it.
        Code::Unknown if says("transport error") || says("h2 protocol error") => Failure::Unreachable,
        _ => Failure::Other,
    }
}

/// What an error of etcd-client means.
pub fn classify(error: &etcd_client::Error) -> Failure {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => classify_status(status),
        // `LeaseClient::keep_alive` reports a first answer with TTL 0 this way.
        E::LeaseKeepAliveError(text) if text.contains("lease not found") => Failure::LeaseNotFound,
        // A stream whose peer ended it before the first answer, or whose sender is gone.
        E::LeaseKeepAliveError(_) | E::WatchError(_) | E::IoError(_) | E::TransportError(_) => {
            Failure::Unreachable
        }
        _ => Failure::Other,
    }
}

/// An [`Error`] that says what was being done, at which member, what etcd said and what helps. `endpoints` are named where
/// no member had the call.
pub(crate) fn etcd_error(doing: &str, endpoints: &str, error: etcd_client::Error) -> Error {
    let failure = classify(&error);
    let (text, member) = match &error {
        etcd_client::Error::GRpcStatus(status) => (status.message().to_owned(), member_of(status)),
        other => (other.to_string(), None),
    };
    let at = member.unwrap_or(endpoints);
    Error::new(
        Kind::Etcd(failure),
        format!("{doing}: {failure} (etcd at {at}: {text}); {}", failure.remedy()),
    )
    .with_source(error)
}

/// The same for a stream, which knows where it goes.
pub(crate) fn stream_error(doing: &str, endpoints: &str, peer: &Peer, error: etcd_client::Error) -> Error {
    match shown(peer) {
        Some(member) => etcd_error(doing, &member, error),
        None => etcd_error(doing, endpoints, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, text: &str) -> Failure {
        classify_status(&Status::new(code, text))
    }

    #[test]
    fn etcds_texts_are_told_apart_whatever_their_code() {
        assert_eq!(of(Code::NotFound, "etcdserver: requested lease not found"), Failure::LeaseNotFound);
        assert_eq!(of(Code::FailedPrecondition, "etcdserver: lease already exists"), Failure::LeaseExists);
        assert_eq!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Failure::Compacted
        );
        assert_eq!(of(Code::Unavailable, "etcdserver: no leader"), Failure::NoLeader);
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: too many requests"), Failure::TooManyRequests);
        assert_eq!(of(Code::Unavailable, "etcdserver: request timed out"), Failure::TimedOut);
        assert_eq!(
            of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Failure::NoSpace
        );
        assert_eq!(of(Code::DataLoss, "etcdserver: corrupt cluster"), Failure::Corrupt);
        assert_eq!(of(Code::Unknown, "auth: revision in header is old"), Failure::StaleToken);
        assert_eq!(of(Code::PermissionDenied, "etcdserver: permission denied"), Failure::Denied);
    }

    #[test]
    fn a_lost_connection_is_unreachable_and_no_proof() {
        let lost = of(Code::Unavailable, "connection reset");
        assert_eq!(lost, Failure::Unreachable);
        assert!(!lost.is_not_processed(), "an I/O error is never proof");
        assert!(Failure::NoLeader.is_not_processed());
        assert!(!Failure::TimedOut.is_not_processed(), "the proposal may still be applied");
    }

    #[test]
    fn the_message_names_task_endpoints_and_remedy() {
        let error = etcd_error(
            "reading /services/greeter/",
            "127.0.0.1:2379",
            etcd_client::Error::GRpcStatus(Status::permission_denied("etcdserver: permission denied")),
        );
        let text = error.to_string();
        assert!(error.is_denied());
        for part in ["/services/greeter/", "127.0.0.1:2379", "grant"] {
            assert!(text.contains(part), "{text} names {part}");
        }
    }
}
