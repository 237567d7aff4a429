//! Connections (gRFC A94) and ejections (gRFC A91). Off the request path, and always on. A connection's task holds an
//! [`Open`], whose drop counts its end, however that comes.

use std::io::ErrorKind;
use std::sync::Arc;

use h2::Reason;
use metrics::Unit::Count;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const DISCONNECTIONS: &str = "grpc.subchannel.disconnections";
const EJECTIONS: &str = "grpc.lb.outlier_detection.ejections_enforced";
const UNENFORCED: &str = "grpc.lb.outlier_detection.ejections_unenforced";

/// The handles of one channel.
#[derive(Debug)]
pub(crate) struct Subchannels {
    target: Arc<str>,
    succeeded: Counter,
    failed: Counter,
    open: Gauge,
}

impl Subchannels {
    pub(crate) fn new(target: &Arc<str>) -> Arc<Self> {
        describe_counter!(DISCONNECTIONS, Count, "Connections that ended");
        describe_counter!(
            "grpc.subchannel.connection_attempts_succeeded",
            Count,
            "Connect attempts that led to a connection"
        );
        describe_counter!(
            "grpc.subchannel.connection_attempts_failed",
            Count,
            "Connect attempts that failed"
        );
        describe_gauge!("grpc.subchannel.open_connections", Count, "Connections that are open");
        describe_counter!(
            EJECTIONS,
            Count,
            "Endpoints that were taken out because they behaved worse than others"
        );
        describe_counter!(UNENFORCED, Count, "Endpoints that behaved worse than others and were kept");
        let target = target.clone();
        Arc::new(Self {
            succeeded: counter!(
                "grpc.subchannel.connection_attempts_succeeded", "grpc.target" => target.clone()
            ),
            failed: counter!("grpc.subchannel.connection_attempts_failed", "grpc.target" => target.clone()),
            open: gauge!("grpc.subchannel.open_connections", "grpc.target" => target.clone()),
            target,
        })
    }

    /// A connect attempt failed; one that was given up is none (gRFC A94).
    pub(crate) fn failed(&self) {
        self.failed.increment(1);
    }

    /// A connection is open from here to the drop of what this returns.
    pub(crate) fn opened(self: &Arc<Self>) -> Open {
        self.succeeded.increment(1);
        self.open.increment(1);
        Open { of: self.clone(), why: None }
    }

    /// An endpoint was ejected, found out by `method`.
    pub(crate) fn ejected(&self, method: &'static str) {
        counter!(
            EJECTIONS,
            "grpc.target" => self.target.clone(), "grpc.lb.outlier_detection.detection_method" => method
        )
        .increment(1);
    }

    /// An endpoint that `method` has found out was kept, for this reason.
    pub(crate) fn kept(&self, method: &'static str, reason: &'static str) {
        counter!(
            UNENFORCED,
            "grpc.target" => self.target.clone(),
            "grpc.lb.outlier_detection.detection_method" => method,
            "grpc.lb.outlier_detection.unenforced_reason" => reason
        )
        .increment(1);
    }
}

/// A connection that is open.
#[derive(Debug)]
#[must_use]
pub(crate) struct Open {
    of: Arc<Subchannels>,
    why: Option<Disconnect>,
}

impl Open {
    /// Why it ends: what is seen first counts (gRFC A94).
    pub(crate) fn ends_for(&mut self, why: Disconnect) {
        self.why.get_or_insert(why);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.open.decrement(1);
        let why = self.why.unwrap_or(Disconnect::Unknown).as_str();
        counter!(DISCONNECTIONS, "grpc.target" => self.of.target.clone(), "grpc.disconnect_error" => why)
            .increment(1);
    }
}

/// Why a connection ended, as far as gRFC A94 tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disconnect {
    /// The peer said GOAWAY.
    GoAway(Reason),
    /// The channel wanted it no longer.
    Shutdown,
    /// ECONNRESET.
    Reset,
    /// ETIMEDOUT, or a PING that was not answered.
    TimedOut,
    /// ECONNABORTED.
    Aborted,
    /// Any other error of the socket.
    Socket,
    /// The rest: the peer closed it without a word, or broke the protocol.
    Unknown,
}

impl Disconnect {
    /// What the end of h2's connection means.
    pub(crate) fn of(end: Result<(), &h2::Error>) -> Self {
        let Err(error) = end else { return Self::Unknown };
        match (error.get_io().map(std::io::Error::kind), error.reason()) {
            (Some(ErrorKind::ConnectionReset), _) => Self::Reset,
            (Some(ErrorKind::TimedOut), _) => Self::TimedOut,
            (Some(ErrorKind::ConnectionAborted), _) => Self::Aborted,
            (Some(_), _) => Self::Socket,
            (None, Some(reason)) if error.is_go_away() && error.is_remote() => Self::GoAway(reason),
            (None, _) => Self::Unknown,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::GoAway(reason) => go_away(reason),
            Self::Shutdown => "subchannel shutdown",
            Self::Reset => "connection reset",
            Self::TimedOut => "connection timed out",
            Self::Aborted => "connection aborted",
            Self::Socket => "socket error",
            Self::Unknown => "unknown",
        }
    }
}

/// RFC 9113, section 7.
fn go_away(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR => "GOAWAY NO_ERROR",
        Reason::PROTOCOL_ERROR => "GOAWAY PROTOCOL_ERROR",
        Reason::INTERNAL_ERROR => "GOAWAY INTERNAL_ERROR",
        Reason::FLOW_CONTROL_ERROR => "GOAWAY FLOW_CONTROL_ERROR",
        Reason::SETTINGS_TIMEOUT => "GOAWAY SETTINGS_TIMEOUT",
        Reason::STREAM_CLOSED => "GOAWAY STREAM_CLOSED",
        Reason::FRAME_SIZE_ERROR => "GOAWAY FRAME_SIZE_ERROR",
        Reason::REFUSED_STREAM => "GOAWAY REFUSED_STREAM",
        Reason::CANCEL => "GOAWAY CANCEL",
        Reason::COMPRESSION_ERROR => "GOAWAY COMPRESSION_ERROR",
        Reason::CONNECT_ERROR => "GOAWAY CONNECT_ERROR",
        Reason::ENHANCE_YOUR_CALM => "GOAWAY ENHANCE_YOUR_CALM",
        Reason::INADEQUATE_SECURITY => "GOAWAY INADEQUATE_SECURITY",
        Reason::HTTP_1_1_REQUIRED => "GOAWAY HTTP_1_1_REQUIRED",
        _ => "GOAWAY unknown",
    }
}
