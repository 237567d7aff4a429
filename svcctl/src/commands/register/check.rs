//! What is asked of an instance that cannot judge itself: a connection, a page, gRPC's health service, or a heartbeat.
//!
//! In comes what was written after `--check`; out goes the question that [`Readiness`](svc_registry::Readiness) asks,
//! which also keeps its deadline.

mod heartbeat;
mod http;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use svc_registry::record::Address;
use tokio::net::TcpStream;

use self::heartbeat::Heartbeat;
use crate::commands::health;

/// A kind of check; without an address it is asked at the instance's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    None,
    Tcp { at: Option<Address> },
    Http { at: Option<Address>, path: String },
    Grpc { at: Option<Address>, service: String },
    Ttl { within: Duration, file: PathBuf },
}

/// All that can be written.
const KINDS: &str = "write tcp, http://[HOST:PORT]/PATH, grpc[://SERVICE], ttl=DURATION:FILE or none";

/// A heartbeat is looked for once a second at most.
const LEAST_TTL: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Check {
    /// Reads what was written.
    pub(super) fn parse(text: &str) -> Result<Check, String> {
        if let Some(at) = text.strip_prefix("tcp://") {
            return Ok(Check::Tcp { at: Some(address(at)?) });
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return page(rest);
        }
        if text.starts_with("https://") {
            return Err("https is not spoken here: check the port with tcp, or a page without TLS".to_owned());
        }
        if let Some(rest) = text.strip_prefix("grpc://") {
            // Neither colon nor slash is part of a gRPC service's name.
            let (at, service) = match rest.split_once('/') {
                Some((at, service)) => (Some(address(at)?), service),
                None if rest.contains(':') => (Some(address(rest)?), ""),
                None => (None, rest),
            };
            if service.contains('/') || service.chars().any(char::is_control) {
                return Err(format!("{service:?} is no name of a gRPC service"));
            }
            return Ok(Check::Grpc { at, service: service.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("ttl=") {
            return ttl(rest);
        }
        match text {
            "none" => Ok(Check::None),
            "tcp" => Ok(Check::Tcp { at: None }),
            "grpc" => Ok(Check::Grpc { at: None, service: String::new() }),
            _ => Err(format!("{text:?} is no check; {KINDS}")),
        }
    }

    /// The question, for an instance at `own`. A heartbeat counts from now on.
    pub(super) fn asks(self, own: Address) -> impl FnMut() -> Answer + Send + 'static {
        let heartbeat = match &self {
            Check::Ttl { within, file } => Some(Heartbeat::new(file, *within)),
            _ => None,
        };
        move || {
            let place = |at: &Option<Address>| at.clone().unwrap_or_else(|| own.clone());
            match &self {
                Check::None => Box::pin(std::future::ready(Ok(()))),
                Check::Tcp { at } => Box::pin(connect(place(at))),
                Check::Http { at, path } => Box::pin(http::get(place(at), path.clone())),
                Check::Grpc { at, service } => Box::pin(health::serving(place(at), service.clone())),
                Check::Ttl { .. } => {
                    let heartbeat = heartbeat.clone();
                    Box::pin(async move {
                        match heartbeat {
                            Some(heartbeat) => heartbeat.look().await,
                            None => Ok(()),
                        }
                    })
                }
            }
        }
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::new(text).map_err(|error| error.to_string())
}

/// `[HOST[:PORT]][/PATH]`; no host is the instance's address, no port 80.
fn page(rest: &str) -> Result<Check, String> {
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let at = match authority {
        "" => None,
        _ if port => Some(address(authority)?),
        _ => Some(address(&format!("{authority}:80"))?),
    };
    match path.parse::<::http::uri::PathAndQuery>() {
        Ok(parsed) if parsed.as_str() == path => Ok(Check::Http { at, path: path.to_owned() }),
        _ => Err(format!("{path:?} is no path of a page, such as /healthz")),
    }
}

fn ttl(rest: &str) -> Result<Check, String> {
    let Some((within, file)) = rest.split_once(':').filter(|(_, file)| !file.is_empty()) else {
        return Err(format!("{rest:?} has no file; write ttl=DURATION:FILE, such as ttl=30s:/run/app.beat"));
    };
    let within = humantime::parse_duration(within).map_err(|error| format!("{within:?}: {error}"))?;
    if within < LEAST_TTL {
        return Err(format!("{within:?} is too short for a heartbeat; the least is 1s"));
    }
    Ok(Check::Ttl { within, file: PathBuf::from(file) })
}

async fn connect(at: Address) -> Result<(), String> {
    TcpStream::connect(at.as_str()).await.map(drop).map_err(|error| format!("no connection to {at}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let at = |text: &str| Some(address(text).unwrap());
        let http = |at, path: &str| Check::Http { at, path: path.into() };
        let grpc = |at, service: &str| Check::Grpc { at, service: service.into() };
        for (text, check) in [
            ("none", Check::None),
            ("tcp", Check::Tcp { at: None }),
            ("tcp://[::1]:80", Check::Tcp { at: at("[::1]:80") }),
            ("http:///healthz?deep=1", http(None, "/healthz?deep=1")),
            ("http://h:8080/healthz", http(at("h:8080"), "/healthz")),
            ("http://h", http(at("h:80"), "/")),
            ("http://[::1]/a", http(at("[::1]:80"), "/a")),
            ("http://[::1]:8080/a", http(at("[::1]:8080"), "/a")),
            ("grpc", grpc(None, "")),
            ("grpc://gow.balance.v1.Balance", grpc(None, "gow.balance.v1.Balance")),
            ("grpc://h:1", grpc(at("h:1"), "")),
            ("grpc://h:1/a.B", grpc(at("h:1"), "a.B")),
            ("ttl=1m 30s:/run/a:b", Check::Ttl { within: Duration::from_secs(90), file: "/run/a:b".into() }),
        ] {
            assert_eq!(Check::parse(text), Ok(check), "{text}");
        }
    }

    #[test]
    fn what_is_no_check_is_refused_with_what_can_be_written() {
        for (text, part) in [
            ("", "write tcp"),
            ("ping", "write tcp"),
            ("tcp:80", "write tcp"),
            ("tcp://h", "no port"),
            ("http://h:0/", "port 0"),
            ("http://u@h:1/", "host"),
            ("http://h:1/a b", "no path"),
            ("http://h:1/a#b", "no path"),
            ("https://h/", "https"),
            ("grpc://h/a", "no port"),
            ("grpc://h:1/a/b", "gRPC service"),
            ("ttl=30s", "ttl=DURATION:FILE"),
            ("ttl=30s:", "ttl=DURATION:FILE"),
            ("ttl=soon:/f", "soon"),
            ("ttl=10ms:/f", "1s"),
        ] {
            let error = Check::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
