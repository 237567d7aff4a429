//! Was it processed? The one question that decides whether a call may be sent again without the user's leave. The
//! answer "no" needs proof (HTTP/2, RFC 9113 sections 6.8 and 8.7; gRFC A6 "transparent retries").

/// What is known of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processed {
    /// Not a byte of it has left: it may be sent elsewhere as often as it takes.
    NeverSent,
    /// It left, and the peer said that it did not look at it: it may be sent elsewhere once.
    Refused,
    /// It may have been processed.
    Perhaps,
}

/// Judges the error of an attempt's response. `written_since` is how many bytes left the connection since the call was
/// queued.
pub(crate) fn judge(error: &h2::Error, written_since: u64) -> Processed {
    let above_goaway = error.is_go_away() && error.is_remote();
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if above_goaway || refused {
        Processed::Refused
    } else if written_since == 0 && !error.is_reset() {
        // A reset by the peer is an answer, whatever the count says.
        Processed::NeverSent
    } else {
        Processed::Perhaps
    }
}
