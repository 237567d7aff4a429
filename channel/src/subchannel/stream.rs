//! One call on one connection: the request's head and body go to h2, the response's head comes back. A unary body is
//! handed over inline; only a streaming body gets a pump (`pump.rs`). Next is `body.rs`, which receives the response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response, Uri};

use super::body::{ResponseBody, Terms};
use super::connection::Connection;
use super::pump::{Pump, Sending};
use super::slot::Slot;
use crate::attempt::processed::{self, Processed};
use crate::attempt::replay::{Outgoing, Replay};
use crate::load::in_flight::InFlight;
use crate::metrics::call::{AttemptRecord, Sent};
use crate::metrics::{MessageBytes, Method};

/// The `user-agent` of requests that name none.
pub(crate) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("svc-channel/", env!("CARGO_PKG_VERSION")));

/// A call that was handed to h2 and has no response yet. Dropping it resets the stream.
///
/// Field order is drop order: h2's handles go before the slot that `sending` gives back.
#[derive(Debug)]
pub(crate) struct Attempt {
    response: h2::client::ResponseFuture,
    sending: Sending,
    call: InFlight,
    written_before: u64,
}

/// An attempt that brought no response.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: h2::Error,
    pub(crate) processed: Processed,
    /// The streaming body, where it can be sent again.
    pub(crate) replay: Option<Pump>,
    pub(crate) call: InFlight,
}

/// Hands a call to a connection. On an error nothing was sent, and a streaming body is given back.
pub(crate) fn start(
    connection: &Arc<Connection>,
    slot: Slot,
    path: &Uri,
    headers: HeaderMap,
    body: &mut Outgoing,
    method: Option<&Arc<Method>>,
) -> Result<Attempt, h2::Error> {
    let written_before = connection.bytes_written();
    let head = head(connection, path, headers);
    let mut sender = connection.sender();
    match body {
        Outgoing::Unary(data) => {
            let (response, mut stream) = sender.send_request(head, false)?;
            // The whole body is in memory already: h2's queue holds a reference to it, no copy.
            // An error means that the stream is over already, which the response tells.
            let data = data.send();
            let record = method.map(|m| AttemptRecord::begin(m, Sent::Whole(MessageBytes::of(&data))));
            let _ = stream.send_data(data, true);
            let call = InFlight::new(connection.clone(), record);
            Ok(Attempt { response, sending: Sending::Sent(slot), call, written_before })
        }
        Outgoing::Streaming(replay) => {
            let (response, stream) = sender.send_request(head, false)?;
            let replay = std::mem::replace(replay, Replay::empty());
            let pump = Pump::spawn(stream, replay, slot, method.is_some());
            let record = method.map(|m| AttemptRecord::begin(m, Sent::Pumped(pump.orders())));
            let call = InFlight::new(connection.clone(), record);
            Ok(Attempt { response, sending: Sending::Pumped(pump), call, written_before })
        }
    }
}

/// The head of a call on a connection.
pub(crate) fn head(connection: &Connection, path: &Uri, headers: HeaderMap) -> Request<()> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(connection.scheme.clone());
    uri.authority = Some(connection.endpoint.authority.clone());
    uri.path_and_query = path.path_and_query().cloned();
    let mut head = Request::new(());
    *head.method_mut() = http::Method::POST;
    *head.version_mut() = http::Version::HTTP_2;
    // A scheme, an authority and a path make a URI; without a path it is the root, which no server serves.
    *head.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *head.headers_mut() = headers;
    head
}

impl Attempt {
    /// The connection that carries it.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        self.call.connection()
    }

    /// Ends the call without a response; the stream is reset.
    pub(crate) fn give_up(self) -> InFlight {
        self.call
    }

    /// Ends the attempt, for another one; a streaming body can be taken back.
    pub(crate) fn abandon(self) -> (InFlight, Option<Pump>) {
        (self.call, self.sending.into_pump())
    }

    /// Waits for the response's head.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
        Pin::new(&mut self.response).poll(cx)
    }

    /// The response, with the body that ends the accounting.
    pub(crate) fn respond(
        self,
        response: Response<h2::RecvStream>,
        terms: Terms<'_>,
    ) -> Response<ResponseBody> {
        self.call.head_arrived();
        if let Sending::Pumped(pump) = &self.sending {
            pump.commit();
        }
        let (parts, recv) = response.into_parts();
        let body = ResponseBody::new(recv, &parts.headers, self.sending, self.call, terms);
        Response::from_parts(parts, body)
    }

    /// Judges the error of `poll_head`.
    pub(crate) fn fail(self, error: h2::Error) -> Failed {
        let written = self.call.connection().bytes_written().wrapping_sub(self.written_before);
        let replay = self.sending.into_pump();
        Failed { processed: processed::judge(&error, written), error, replay, call: self.call }
    }
}
