//! A page: GET over a connection of its own, answered with 2xx. Its body is not read; redirects are not followed, since
//! what they lead to may be well while the instance is not.

use std::pin::pin;

use bytes::Bytes;
use http::header;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use svc_registry::record::Address;
use tokio::net::TcpStream;

pub(super) async fn get(at: Address, path: String) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("http://{at}{path}: {error}");
    let stream = TcpStream::connect(at.as_str()).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = http::Request::get(path.as_str())
        .header(header::HOST, at.as_str())
        .header(header::USER_AGENT, concat!("svcctl/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let mut answer = pin!(sender.send_request(request));
    // The connection moves only while it is polled; when it ends first, the answer has come or never will.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    match answer.map_err(|error| failed(&error))?.status() {
        status if status.is_success() => Ok(()),
        status => Err(failed(&status)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers with these bytes and hangs up; its verdict, and what it was asked.
    async fn asked(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = Address::from(listener.local_addr().expect("bound"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            stream.write_all(answer.as_bytes()).await.expect("it listens");
            String::from_utf8(request).expect("UTF-8")
        };
        tokio::join!(get(at, "/healthz?a=b".into()), serve)
    }

    #[tokio::test]
    async fn only_2xx_passes() {
        for (answer, passes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\n\r\nup to the end", true),
            ("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
            ("SSH-2.0-OpenSSH\r\n", false),
            ("", false),
        ] {
            let (verdict, request) = asked(answer).await;
            assert_eq!(verdict.is_ok(), passes, "{answer:?}: {verdict:?}");
            assert!(request.starts_with("GET /healthz?a=b HTTP/1.1\r\n"), "{request:?}");
            assert!(request.to_lowercase().contains("\r\nhost: 127.0.0.1:"), "{request:?}");
        }
        let (verdict, _) = asked("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        assert!(verdict.is_err_and(|reason| reason.ends_with("/healthz?a=b: 503 Service Unavailable")));
    }
}
