//! The one place where codes are decided: every [`Status`] that the channel itself makes is made here.

use std::fmt;

use h2::Reason;
use tonic::{Code, Status};

use crate::meter::TooLarge;

/// A deadline ran out: `doing` says what the call was doing by then.
pub(crate) fn deadline_exceeded(channel: &str, doing: &str) -> Status {
    Status::deadline_exceeded(format!("{channel}: deadline exceeded {doing}"))
}

/// No endpoint can take the call, for the reason that the owner wrote.
pub(crate) fn unavailable(reason: &str) -> Status {
    Status::unavailable(reason)
}

/// A limit of the channel's own is reached.
pub(crate) fn too_many(channel: &str, most: usize, what: &str, setting: &str) -> Status {
    let remedy = "make fewer at a time, or raise it";
    Status::resource_exhausted(format!("{channel}: {most} {what}, as many as {setting} allows; {remedy}"))
}

/// A message is longer than the service config's `maxRequestMessageBytes`, in grpc-go's words.
pub(crate) fn request_too_large(TooLarge { length, largest }: TooLarge) -> Status {
    Status::resource_exhausted(format!("trying to send message larger than max ({length} vs. {largest})"))
}

/// A message is longer than the service config's `maxResponseMessageBytes`, in grpc-go's words.
pub(crate) fn response_too_large(TooLarge { length, largest }: TooLarge) -> Status {
    Status::resource_exhausted(format!("received message larger than max ({length} vs. {largest})"))
}

/// An attempt failed and may not be repeated: what its caller is told. `place` is the connection; `expired` says that the
/// deadline has passed.
pub(crate) fn of_attempt(place: &impl fmt::Display, error: &h2::Error, expired: bool) -> Status {
    let code = code_of(error, expired);
    let what = match (code, error.reason()) {
        (Code::DeadlineExceeded, _) => "deadline exceeded; the server gave the call up".to_owned(),
        (_, Some(reason)) if error.is_reset() => format!("stream reset: {reason}"),
        _ => format!("connection lost: {error}"),
    };
    Status::new(code, format!("{place}: {what}"))
}

/// What a response that is only a head says: its `grpc-status`, or else what gRPC's table of HTTP statuses
/// (`doc/http-grpc-status-mapping.md`) makes of an answer that no gRPC server gave.
pub(crate) fn of_head<B>(head: &http::Response<B>) -> Status {
    if let Some(status) = Status::from_header_map(head.headers()) {
        return status;
    }
    let code = match head.status().as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("answered with HTTP status {} and no grpc-status", head.status()))
}

/// The code that trailers carry.
pub(crate) fn code_of_trailers(trailers: &http::HeaderMap) -> Code {
    trailers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()))
}

/// The gRPC protocol's table of HTTP/2 error codes; a lost connection is UNAVAILABLE.
fn code_of(error: &h2::Error, expired: bool) -> Code {
    match error.reason() {
        Some(reason) if error.is_reset() => match reason {
            Reason::CANCEL if expired => Code::DeadlineExceeded,
            Reason::CANCEL => Code::Cancelled,
            Reason::REFUSED_STREAM => Code::Unavailable,
            Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
            Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
            _ => Code::Internal,
        },
        _ => Code::Unavailable,
    }
}

/// Whether a code says something of the server's health (gRFC A50 leaves the choice to implementations): application
/// codes, cancellations and expired deadlines of the server's do not.
pub(crate) fn speaks_of_server(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_grpc_status_says_what_its_http_status_means() {
        let code = |status: u16| {
            let mut head = http::Response::new(());
            *head.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            of_head(&head).code()
        };
        assert_eq!(
            [503, 404, 401, 200].map(code),
            [Code::Unavailable, Code::Unimplemented, Code::Unauthenticated, Code::Unknown]
        );
    }

    #[test]
    fn application_codes_say_nothing_of_the_server() {
        let counted: Vec<_> = (0..17).map(Code::from_i32).filter(|c| speaks_of_server(*c)).collect();
        assert_eq!(counted, [Code::Unknown, Code::Internal, Code::Unavailable, Code::DataLoss]);
    }
}
