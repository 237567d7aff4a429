//! What the edge answers when it has nothing better: one body for every error, whose code is the HTTP status and a
//! stable number behind it.

use std::fmt;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::codes;

/// The code of a good answer.
pub(super) const OK: u32 = 20000;
/// The body is larger than `--max-message-size`.
const TOO_LARGE: u32 = 41301;
/// The path leads nowhere.
const NO_SUCH_PATH: u32 = 40402;
/// The path is there, and wants another HTTP method.
const OTHER_METHOD: u32 = 40501;
/// The body is something else than JSON.
const NOT_JSON: u32 = 41501;

/// How long a caller should wait before it tries again what is not available.
const TRY_AGAIN: HeaderValue = HeaderValue::from_static("1");

/// An error as callers of the edge see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    code: u32,
    message: String,
    /// The HTTP method that would have been right.
    allow: Option<&'static str>,
}

/// The number of each gRPC code: three digits of HTTP status (as google.rpc.Code maps them), two that tell apart what
/// shares a status. They never change; docs/edge.md lists them.
pub(super) fn code_of(code: Code) -> u32 {
    match code {
        Code::Ok => OK,
        Code::InvalidArgument => 40001,
        Code::FailedPrecondition => 40002,
        Code::OutOfRange => 40003,
        Code::Unauthenticated => 40101,
        Code::PermissionDenied => 40301,
        Code::NotFound => 40401,
        Code::AlreadyExists => 40901,
        Code::Aborted => 40902,
        Code::ResourceExhausted => 42901,
        Code::Cancelled => 49901,
        Code::Unknown => 50001,
        Code::Internal => 50002,
        Code::DataLoss => 50003,
        Code::Unimplemented => 50101,
        Code::Unavailable => 50301,
        Code::DeadlineExceeded => 50401,
    }
}

impl Problem {
    fn new(code: u32, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into(), allow: None }
    }

    /// What the caller said cannot be understood.
    pub(super) fn invalid(message: impl Into<String>) -> Problem {
        Problem::new(code_of(Code::InvalidArgument), message)
    }

    pub(super) fn no_such_path(message: impl Into<String>) -> Problem {
        Problem::new(NO_SUCH_PATH, message)
    }

    pub(super) fn other_method(allow: &'static str, message: impl Into<String>) -> Problem {
        Problem { allow: Some(allow), ..Problem::new(OTHER_METHOD, message) }
    }

    pub(super) fn not_json(message: impl Into<String>) -> Problem {
        Problem::new(NOT_JSON, message)
    }

    pub(super) fn too_large(limit: usize) -> Problem {
        Problem::new(TOO_LARGE, format!("the body is larger than {limit} bytes"))
    }

    /// A bug of ours, of which the log says more.
    pub(super) fn internal() -> Problem {
        Problem::new(code_of(Code::Internal), "something is wrong here")
    }

    /// A callee's answer. What it says is passed on where it is meant for callers; where it speaks of the inside, such as
    /// addresses, it goes to the log.
    pub(super) fn of(callee: &str, status: &Status) -> Problem {
        let message = match status.code() {
            Code::Unavailable => format!("{callee} is not available; try again"),
            Code::DeadlineExceeded => {
                format!("{callee} has not answered in time; whether it has done it is not known")
            }
            Code::Unknown | Code::Internal | Code::DataLoss => format!("something is wrong with {callee}"),
            Code::Unimplemented => format!("{callee} does not know this method"),
            _ => status.message().to_owned(),
        };
        if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss) {
            tracing::warn!(
                callee,
                code = codes::name(status.code()),
                reason = status.message(),
                "a callee failed"
            );
        }
        Problem::new(code_of(status.code()), message)
    }

    /// The body.
    pub(super) fn json(&self) -> Value {
        body(self.code, &self.message, Value::Null)
    }
}

/// The one shape of bodies, good ones too.
pub(super) fn body(code: u32, message: &str, data: Value) -> Value {
    let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let mut body = json!({ "code": code, "message": message, "timestamp": timestamp });
    body["data"] = data;
    body
}

/// A body of this shape as a response, which no cache keeps.
pub(super) fn response(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, Body::from(body.to_string())).into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = u16::try_from(self.code / 100).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = response(status, &self.json());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, TRY_AGAIN);
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../../docs/edge.md");

    #[test]
    fn the_table_of_codes_is_the_documents() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let (name, edge) = (codes::name(code), code_of(code));
            let row = format!("| {edge} | {} | `{name}` |", edge / 100);
            assert!(DOCS.contains(&row), "docs/edge.md has no row {row}");
        }
        for edge in [TOO_LARGE, NO_SUCH_PATH, OTHER_METHOD, NOT_JSON] {
            let row = format!("| {edge} | {} | - |", edge / 100);
            assert!(DOCS.contains(&row), "docs/edge.md has no row {row}");
        }
    }

    #[test]
    fn no_two_codes_share_a_number() {
        let numbers = (0..=16).map(|number| code_of(Code::from_i32(number)));
        let mut all: Vec<u32> = numbers.chain([TOO_LARGE, NO_SUCH_PATH, OTHER_METHOD, NOT_JSON]).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_speaks_of_the_inside_stays_inside() {
        let inside = Status::unavailable("connect to 10.0.0.3:50051 refused");
        assert_eq!(Problem::of("balance", &inside).message, "balance is not available; try again");
        let outside = Status::failed_precondition("too few coins");
        let problem = Problem::of("balance", &outside);
        assert_eq!((problem.code, problem.message.as_str()), (40002, "too few coins"));
        assert_eq!(problem.json()["data"], Value::Null);
    }
}
