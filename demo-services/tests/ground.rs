//! What every service has, shown by the greeter as a process: flags, environment and file; logs with the caller's trace;
//! metrics; limits; reflection. No etcd is there: none of this needs one.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use svc_proto::greeter::v1::greeter_client::GreeterClient;
use svc_proto::greeter::v1::{HelloRequest, LotsOfRepliesRequest};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request};

/// Longer than anything that is waited for here.
const LIMIT: Duration = Duration::from_secs(60);

/// An address where nobody listens; bound and dropped.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn greeter(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greeter"));
    for name in ["RUST_LOG", "SVC_LOG_LEVEL", "SVC_LOG_FORMAT", "SVC_ID", "SVC_CONFIG", "SVC_METRICS_LISTEN"]
    {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs one that is to end by itself: its exit code and what it wrote.
async fn ended(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = timeout(LIMIT, greeter(arguments, environment).output()).await.expect("it ends").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

/// A greeter that runs; killed on drop.
struct Running {
    client: GreeterClient<Channel>,
    lines: Arc<Mutex<Vec<String>>>,
    _child: Child,
}

impl Running {
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let (listen, etcd) = (free(), free());
        let all = [&["--listen", &listen, "--endpoints", &etcd], arguments].concat();
        let mut child = greeter(&all, environment).spawn().expect("it starts");
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
        let channel = Channel::from_shared(format!("http://{listen}")).unwrap().connect_lazy();
        let running = Running { client: GreeterClient::new(channel), lines, _child: child };
        running.greeted("ada").await;
        running
    }

    /// The id of the instance, once it answers.
    async fn greeted(&self, name: &str) -> String {
        let mut client = self.client.clone();
        let answer = async {
            loop {
                match client.say_hello(HelloRequest { name: name.into() }).await {
                    Ok(reply) => return reply.into_inner().instance,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(LIMIT, answer).await.unwrap_or_else(|_| panic!("it serves: {:?}", self.lines.lock().unwrap()))
    }

    /// The first line of which this holds.
    async fn line(&self, holds: impl Fn(&str) -> bool) -> String {
        let found = async {
            loop {
                let found = self.lines.lock().unwrap().iter().find(|line| holds(line)).cloned();
                match found {
                    Some(line) => return line,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("not among {:#?}", self.lines.lock().unwrap()))
    }
}

/// A file in the tests' own folder, removed with the guard.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("svc-ground-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let file = File::new("order", "id = 'of-the-file'\ndelay = '1ms'\n[[grpc_clients]]\nname = 'x'");
    // Greeters call nobody: that the file's callee is refused shows that it was read.
    let (code, err) = ended(&["--config", file.path()], &[]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("grpc_clients[0].name: \"x\" is not known: greeter calls nobody"), "{err}");

    let file = File::new("order", "id = 'of-the-file'\ndelay = '1ms'\n");
    let config = [("SVC_CONFIG", file.path())];
    let both = [("SVC_CONFIG", file.path()), ("SVC_ID", "of-the-environment")];
    assert_eq!(Running::start(&[], &config).await.greeted("ada").await, "of-the-file");
    assert_eq!(Running::start(&[], &both).await.greeted("ada").await, "of-the-environment");
    assert_eq!(Running::start(&["--id", "of-the-flag"], &both).await.greeted("ada").await, "of-the-flag");
}

#[tokio::test]
async fn rust_log_is_environment_and_gives_way_to_the_flag_only() {
    let file = File::new("log", "log_level = 'info'");
    let nowhere = ["--config", file.path(), "--listen", "nowhere"];
    let (_, err) = ended(&nowhere, &[]).await;
    assert!(err.contains("cannot listen"), "{err}");
    let (code, err) = ended(&nowhere, &[("RUST_LOG", "off")]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "it beats the file");
    let (_, err) = ended(&[&nowhere[..], &["--log-level", "error"]].concat(), &[("RUST_LOG", "off")]).await;
    assert!(err.contains("cannot listen"), "the flag beats it: {err:?}");
    let (_, err) = ended(&nowhere, &[("RUST_LOG", "off"), ("SVC_LOG_LEVEL", "error")]).await;
    assert!(err.contains("cannot listen"), "its own variable beats it: {err:?}");
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_name() {
    let file = File::new("unknown", "colour = 'red'");
    let clients = File::new("clients", "[[grpc_clients]]\nname = 'a'\nretry = { max = 9 }");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--config", file.path()], &["unknown key \"colour\"", "max_message_size", "grpc_clients"]),
        (&["--config", clients.path()], &["grpc_clients[0].retry.max", "five attempts"]),
        (&["--config", "/nowhere.toml"], &["/nowhere.toml"]),
        (&["--grpc-clients", "x"], &["--grpc-clients", "expected value"]),
        (&["--log-format", "xml"], &["--log-format"]),
        (&["--log-level", "a=b=c"], &["--log-level"]),
        (&["--max-message-size", "1"], &["--max-message-size", "1024"]),
        (&["--metrics-listen", &taken], &["--metrics-listen", &taken]),
    ];
    for (arguments, parts) in cases {
        let (code, err) = ended(arguments, &[]).await;
        assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {code:?} {err}");
        for part in parts {
            assert!(err.contains(part), "{arguments:?} names {part:?}: {err}");
        }
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traced() -> Request<HelloRequest> {
    let mut request = Request::new(HelloRequest { name: "ada".into() });
    let value = format!("00-{TRACE}-{PARENT}-01").parse().expect("ascii");
    request.metadata_mut().insert("traceparent", value);
    request
}

#[tokio::test]
async fn the_trace_of_the_caller_is_in_the_logs() {
    const FILTER: &str = "warn,demo_services::call=debug";
    let json = Running::start(&["--log-format", "json", "--log-level", FILTER], &[]).await;
    json.client.clone().say_hello(traced()).await.expect("it serves");
    let line = json.line(|line| line.contains(TRACE)).await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["trace_id"], &line["service"], &line["level"]),
        (&TRACE.into(), &"greeter".into(), &"DEBUG".into())
    );
    assert_eq!(line["message"], "call ended");
    assert_eq!(line["fields"]["method"], "greeter.v1.Greeter/SayHello");
    assert_eq!(line["fields"]["status"], "OK");
    let span = line["span_id"].as_str().expect("a span");
    assert!(span.len() == 16 && span != PARENT, "the call's own: {span}");
    // Without a caller's trace each call has one of its own.
    let own = json.line(|line| line.contains("call ended") && !line.contains(TRACE)).await;
    let own: serde_json::Value = serde_json::from_str(&own).expect("JSON");
    assert_eq!(own["trace_id"].as_str().map(str::len), Some(32), "{own}");

    let text = Running::start(&["--log-level", FILTER], &[]).await;
    text.client.clone().say_hello(traced()).await.expect("it serves");
    let line = text.line(|line| line.contains(TRACE)).await;
    assert!(line.contains(&format!("trace_id={TRACE} span_id=")), "{line}");
    assert!(line.contains("call ended") && line.contains("DEBUG"), "{line}");
}

/// The samples of a scrape, by name and labels as they are written.
async fn scrape(address: &str) -> BTreeMap<String, f64> {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .expect("it reads");
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.expect("it answers").expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, n)| (name.into(), n.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn metrics_are_scraped_by_their_names() {
    let address = free();
    let greeter = Running::start(&["--metrics-listen", &address], &[]).await;
    let before = scrape(&address).await;
    let mut client = greeter.client.clone();
    client.say_hello(HelloRequest { name: "ada".into() }).await.expect("it serves");
    let wrong = client.say_hello(HelloRequest { name: "x".repeat(300) }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let many = LotsOfRepliesRequest { name: "ada".into(), count: 3, interval_ms: 0 };
    let mut replies = client.lots_of_replies(many).await.expect("it serves").into_inner();
    while replies.message().await.expect("it goes on").is_some() {}

    let after = scrape(&address).await;
    let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    let hello = "grpc_method=\"greeter.v1.Greeter/SayHello\"";
    let lots = "grpc_method=\"greeter.v1.Greeter/LotsOfReplies\"";
    let invalid = "grpc_status=\"INVALID_ARGUMENT\"";
    let ok = "grpc_status=\"OK\"";
    assert_eq!(grown(&format!("grpc_server_call_started{{{hello}}}")), 2.0, "{after:#?}");
    assert_eq!(grown(&format!("grpc_server_call_duration_count{{{hello},{ok}}}")), 1.0, "{after:#?}");
    assert_eq!(grown(&format!("grpc_server_call_duration_count{{{hello},{invalid}}}")), 1.0, "{after:#?}");
    assert_eq!(
        grown(&format!("grpc_server_call_duration_bucket{{{lots},{ok},le=\"+Inf\"}}")),
        1.0,
        "{after:#?}"
    );
    // A name of three letters is a field of five bytes; each of three replies holds at least its greeting.
    let received = format!("grpc_server_call_rcvd_total_compressed_message_size_sum{{{hello},{ok}}}");
    assert_eq!(grown(&received), 5.0, "{after:#?}");
    let sent = format!("grpc_server_call_sent_total_compressed_message_size_sum{{{lots},{ok}}}");
    assert!(grown(&sent) >= 3.0 * "Hello ada!".len() as f64, "{after:#?}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_the_limit() {
    let greeter = Running::start(&["--max-message-size", "2048"], &[]).await;
    let mut client = greeter.client.clone();
    let refused = client.say_hello(HelloRequest { name: "x".repeat(4096) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("2048"), "{refused}");
    let taken = client.say_hello(HelloRequest { name: "x".repeat(1024) }).await.unwrap_err();
    assert_eq!(taken.code(), Code::InvalidArgument, "it was read, and its field is refused: {taken}");
}

#[tokio::test]
async fn a_connection_has_no_more_streams_at_once_than_the_limit() {
    let greeter = Running::start(&["--max-concurrent-streams", "2"], &[]).await;
    let mut client = greeter.client.clone();
    let forever = LotsOfRepliesRequest { name: "ada".into(), count: 0, interval_ms: 1 };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = client.lots_of_replies(forever.clone()).await.expect("it serves").into_inner();
        stream.message().await.expect("it goes on").expect("the first of many");
        open.push(stream);
    }
    let mut third = std::pin::pin!(greeter.greeted("ada"));
    timeout(Duration::from_millis(300), &mut third).await.expect_err("there is no stream for it");
    open.pop();
    assert!(!third.await.is_empty(), "one has ended");
}

#[tokio::test]
async fn reflection_and_health_tell_what_is_served_and_nothing_else() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let listen = free();
    let mut child = greeter(&["--listen", &listen, "--endpoints", &free()], &[]).spawn().expect("it starts");
    let endpoint = Channel::from_shared(format!("http://{listen}")).unwrap();
    let channel = timeout(LIMIT, async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let channel = channel.await.expect("it listens");
    let list = MessageRequest::ListServices(String::new());
    let list = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(list)).await.expect("it serves").into_inner();
    let answer = answers.message().await.expect("it answers").expect("one answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    let expected = ["greeter.v1.Greeter", "grpc.health.v1.Health", "helloworld.Greeter"];
    let others: Vec<&String> = names.iter().filter(|name| !name.starts_with("grpc.reflection.")).collect();
    assert_eq!(others, expected);

    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in ["", "greeter", "greeter.v1.Greeter", "helloworld.Greeter"] {
        // Etcd is away and cannot say that an operator wants it out: it serves after a while all the same.
        let serves = async {
            loop {
                let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
                let status = health.check(request).await.expect("it is known").into_inner().status();
                if status == tonic_health::pb::health_check_response::ServingStatus::Serving {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(LIMIT, serves).await.is_ok(), "{service:?}");
    }
    child.kill().await.expect("it runs");
}
