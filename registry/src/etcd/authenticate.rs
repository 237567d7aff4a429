//! One Authenticate: a user goes in, a token comes out. etcd-client keeps the messages of etcd's Auth service to itself, so
//! the two that are needed stand here, with etcd's field numbers.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;

use super::members::{Limit, Members};
use super::user::User;

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)] // it holds a password
struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)] // it holds a token
struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    token: String,
}

/// Asks the members in turn.
pub(super) async fn authenticate(
    members: &Members,
    user: &User,
    limit: Duration,
) -> Result<HeaderValue, Status> {
    let password = user.password().await.map_err(Status::failed_precondition)?;
    let request = AuthenticateRequest { name: user.name.clone(), password: password.reveal().to_owned() };
    let head = Request::post("/etcdserverpb.Auth/Authenticate")
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(())
        .map_err(|error| Status::internal(error.to_string()))?;
    let answer = members.ask(&head.into_parts().0, &framed(&request), true, Some(Limit::new(limit))).await;
    let token = answered(answer.map_err(status)?).await?.token;
    let mut header = HeaderValue::try_from(token)
        .map_err(|_| Status::internal("etcd's token cannot be sent in a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn status(error: BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::unavailable(error.to_string()),
    }
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(bytes.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    frame.put_slice(&bytes);
    frame.freeze()
}

async fn answered(response: Response<Body>) -> Result<AuthenticateResponse, Status> {
    let unexpected = || Status::internal("etcd's answer to Authenticate cannot be understood");
    // A refusal has its status in the head; another's comes behind the body.
    refused(Status::from_header_map(response.headers()))?;
    let body = response.into_body().collect().await?;
    refused(body.trailers().and_then(Status::from_header_map))?;
    let bytes = body.to_bytes();
    let message = bytes.get(5..).ok_or_else(unexpected)?;
    AuthenticateResponse::decode(message).map_err(|_| unexpected())
}

fn refused(status: Option<Status>) -> Result<(), Status> {
    match status {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ => Ok(()),
    }
}
