//! Processes with their logs, and an HTTP client that hides nothing.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use svc_tests::ports::free_port;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::binaries::folder;

/// Longer than anything that is waited for here.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A service of ours as a process; killed on drop.
pub(crate) struct Program {
    pub(crate) address: String,
    lines: Arc<Mutex<Vec<String>>>,
    child: Child,
}

impl Program {
    /// Starts `name` on a free port, with JSON logs down to the end of each call.
    pub(crate) fn start(name: &str, etcd: &str, arguments: &[&str]) -> Program {
        let address = format!("127.0.0.1:{}", free_port());
        let mut child = Command::new(folder().join(name))
            .args(["--listen", &address, "--endpoints", etcd, "--log-format", "json", "--ttl", "2s"])
            .args(["--log-level", "info,demo_services::call=debug"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        // Ends with the process's stderr.
        tokio::spawn({
            let lines = lines.clone();
            async move {
                while let Ok(Some(line)) = stderr.next_line().await {
                    lines.lock().unwrap().push(line);
                }
            }
        });
        Program { address, lines, child }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.child.id().expect("it runs").try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
    }

    /// Waits until it has ended; whether in order.
    pub(crate) async fn ended(&mut self) -> bool {
        timeout(LIMIT, self.child.wait()).await.expect("it ends").expect("our child").success()
    }

    /// The first line of its log of which this holds.
    pub(crate) async fn line(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let lines = self.lines.lock().unwrap().clone();
                let mut parsed = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
                if let Some(line) = parsed.find(&holds) {
                    return line;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("not among {:#?}", self.lines.lock().unwrap()))
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What a good answer holds.
    pub(crate) fn data(&self) -> Value {
        assert_eq!((self.status, &self.json()["code"]), (StatusCode::OK, &20000.into()), "{self:?}");
        self.json()["data"].clone()
    }

    /// The code of an error, once its body is seen to be one.
    pub(crate) fn problem(&self) -> u64 {
        let body = self.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["code", "data", "message", "timestamp"], "{self:?}");
        let code = body["code"].as_u64().expect("a number");
        assert_eq!(code / 100, u64::from(self.status.as_u16()), "{self:?}");
        assert!(
            body["data"].is_null() && body["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{self:?}"
        );
        assert!(body["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')), "{self:?}");
        code
    }
}

/// A request that has not been sent.
pub(crate) struct Ask {
    address: String,
    request: http::request::Builder,
    body: Bytes,
}

pub(crate) fn ask(edge: &Program, method: Method, path: &str) -> Ask {
    ask_at(&edge.address, method, path)
}

pub(crate) fn ask_at(address: &str, method: Method, path: &str) -> Ask {
    let request = Request::builder().method(method).uri(path).header("host", address);
    Ask { address: address.to_owned(), request, body: Bytes::new() }
}

pub(crate) fn get(edge: &Program, path: &str) -> Ask {
    ask(edge, Method::GET, path)
}

pub(crate) fn post(edge: &Program, path: &str, body: &Value) -> Ask {
    let ask = ask(edge, Method::POST, path).header("content-type", "application/json");
    Ask { body: body.to_string().into(), ..ask }
}

impl Ask {
    pub(crate) fn header(self, name: &str, value: &str) -> Ask {
        Ask { request: self.request.header(name, value), ..self }
    }

    /// Sends it elsewhere.
    pub(crate) fn at(self, address: &str) -> Ask {
        Ask { address: address.to_owned(), ..self }
    }

    pub(crate) fn body(self, body: impl Into<Bytes>) -> Ask {
        Ask { body: body.into(), ..self }
    }

    /// Sends it on a connection of its own; gives the head of the answer and what still comes.
    pub(crate) async fn open(self) -> (http::response::Parts, Incoming, Connection) {
        let connect = async {
            loop {
                match TcpStream::connect(&self.address).await {
                    Ok(stream) => return stream,
                    // It is about to listen.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let stream = timeout(LIMIT, connect).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        // Owned by the caller: its drop hangs up.
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
        let request = self.request.body(Full::new(self.body)).expect("a request");
        let response = timeout(LIMIT, sender.send_request(request)).await.expect("it answers").expect("HTTP");
        let (head, body) = response.into_parts();
        (head, body, connection)
    }

    pub(crate) async fn send(self) -> Answer {
        let (head, body, _connection) = self.open().await;
        let bytes = timeout(LIMIT, body.collect()).await.expect("it ends").expect("HTTP").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: head.status, headers: head.headers, text }
    }
}

/// Sends it again until the answer is good: what has just been started takes a moment to be found.
pub(crate) async fn until_good(ask: impl Fn() -> Ask) -> Value {
    let good = async {
        loop {
            let answer = ask().send().await;
            if answer.status.is_success() {
                return answer.data();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, good).await.expect("it becomes good")
}

/// A connection; its drop closes it.
pub(crate) struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// A stream of them.
pub(crate) struct Events {
    body: Incoming,
    text: String,
    ready: VecDeque<Event>,
    _connection: Connection,
}

impl Events {
    pub(crate) async fn open(ask: Ask) -> Events {
        let (head, body, connection) = ask.header("accept", "text/event-stream").open().await;
        assert_eq!(head.status, StatusCode::OK, "{head:?}");
        assert_eq!(head.headers["content-type"], "text/event-stream");
        Events { body, text: String::new(), ready: VecDeque::new(), _connection: connection }
    }

    /// The next event with data; `None` where the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        timeout(LIMIT, async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Some(event);
                }
                match self.body.frame().await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
                        while let Some(end) = self.text.find("\n\n") {
                            let block: String = self.text.drain(..end + 2).collect();
                            self.ready.extend(event(&block));
                        }
                    }
                    Some(Err(_)) | None => return None,
                }
            }
        })
        .await
        .expect("something happens")
    }
}

fn event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => id.clone_into(&mut event.id),
            Some(("event", kind)) => kind.clone_into(&mut event.kind),
            Some(("data", data)) => data.clone_into(&mut event.data),
            _ => {}
        }
    }
    (!event.data.is_empty()).then_some(event)
}
