//! The command line: what can be typed, and its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use svc_registry::cli::EtcdArgs;

use crate::output::Format;

/// Lists and drains the instances of services that are registered in etcd.
#[derive(Debug, Parser)]
#[command(name = "svcctl", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How results are printed: table or json; they go to stdout, everything else to stderr
    #[arg(
        short,
        long,
        global = true,
        env = "SVC_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    #[arg(hide_possible_values = true)]
    pub output: Format,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

const EXAMPLES: &str = "\
Examples:
  svcctl services                             every service, with its counts
  svcctl get greeter -o json                  its instances, for a program
  svcctl drain greeter g-1 --wait             no new work for g-1; wait until it has none left
  svcctl undrain greeter g-1                  back to work
  svcctl set greeter g-1 --weight 10          a tenth of the work of one with 100
  svcctl register db --address db-1:5432      an instance that cannot register itself
  svcctl probe 127.0.0.1:50051                does it serve? for a container's health check
  svcctl dev                                  an etcd in memory to try things with

Exit codes:
  0 ok   1 other   2 usage   3 not found   4 etcd unreachable   5 denied   6 wait timed out
  7 refused: needs --force or another command, which the message names
  register -- COMMAND: what COMMAND ended with";

/// The commands, each in a file of its own below `commands/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the services and count their instances
    Services,
    /// Show the instances of a service, or of all
    Get(Get),
    /// Show the instances, then every change as it happens
    Watch(Watch),
    /// Take an instance out of service: it gets no new work and finishes what it has
    Drain(Drain),
    /// Put a drained instance back to work
    Undrain(Undrain),
    /// Override an instance's weight, zone or tags, without restarting it
    Set(Set),
    /// Register an address, or a command while it runs, and check that it is well
    Register(Register),
    /// Remove an instance from the registry
    Deregister(Deregister),
    /// Show what a client of a target would call, and what it would leave out
    Resolve(Resolve),
    /// Ask one address whether it serves, by gRPC's health service
    Probe(Probe),
    /// Run an etcd of one node, for trying things out; nothing is stored without --data-dir
    Dev(Dev),
    /// Tell the whole story with real processes, in about a minute
    Demo(Demo),
}

/// An instance of a service, by name.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// The service's name
    pub service: String,
    /// The instance's id
    pub id: String,
}

/// `svcctl get`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcctl get
  svcctl get greeter
  svcctl get greeter -o json | jq -r '.instances[] | select(.state == \"serving\").address'")]
pub struct Get {
    /// The service; all services without it
    pub service: Option<String>,
}

/// `svcctl watch`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcctl watch greeter
  svcctl watch -o json | jq -c '[.type, .object.id, .object.state]'")]
pub struct Watch {
    /// The service; all services without it
    pub service: Option<String>,
}

/// `svcctl drain`
#[derive(Debug, Args)]
#[command(after_help = "\
The drain holds, over restarts of the instance too, until `svcctl undrain`, or until --ttl has passed.
Draining twice is draining once; the later --reason and --ttl count.

Examples:
  svcctl drain greeter g-1 --reason 'kernel update' --wait --timeout 5m
  svcctl drain greeter g-1 --ttl 1h")]
pub struct Drain {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Wait until no call is in flight, and show how many are
    #[arg(long)]
    pub wait: bool,
    /// Longest time to wait; the drain goes on after it [default: none]
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Why, for those who see it in `svcctl get`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,
    /// Drain it even if it is the last that serves
    #[arg(long)]
    pub force: bool,
    /// Undrain by itself after this time, at least 1s [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

/// `svcctl undrain`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcctl undrain greeter g-1")]
pub struct Undrain {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
}

/// `svcctl set`
#[derive(Debug, Args)]
#[command(after_help = "\
An instance obeys within a second, and again after a restart, until --clear, or until --ttl has
passed; then it is what it was started as. A later `set` keeps what it does not name; its --ttl
counts, or its having none.

Examples:
  svcctl set greeter g-1 --weight 10
  svcctl set greeter g-1 --zone b --tag track=canary --ttl 1h
  svcctl set greeter g-1 --clear")]
#[command(group = clap::ArgGroup::new("override").required(true).multiple(true))]
pub struct Set {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Its share of the load relative to the others', 0 to 1000000; an instance has 100 unless told otherwise
    #[arg(long, group = "override", value_name = "N")]
    pub weight: Option<svc_registry::Weight>,
    /// Where it runs, for clients that prefer their own zone; empty for nowhere
    #[arg(long, group = "override", value_name = "ZONE", value_parser = printable)]
    pub zone: Option<String>,
    /// A label to add or replace; may be given more than once
    #[arg(long, group = "override", value_name = "NAME=VALUE", value_parser = tag)]
    pub tag: Vec<(String, String)>,
    /// A label to take away; may be given more than once
    #[arg(long, group = "override", value_name = "NAME")]
    pub untag: Vec<String>,
    /// Take the override back: the instance is again what it was started as
    #[arg(long, group = "override", conflicts_with_all = ["weight", "zone", "tag", "untag", "ttl"])]
    pub clear: bool,
    /// Take it back by itself after this time, at least 1s [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

/// What no client could read is refused here.
fn printable(text: &str) -> Result<String, String> {
    match text.contains(char::is_control) {
        true => Err("it holds control characters; write it without".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    match printable(text)?.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// `svcctl register`
#[derive(Debug, Args)]
#[command(after_help = "\
It is registered once the check has passed, and as long as this command runs. After --failures checks \
that fail in a row it takes no new work (`draining`, with the reason), and is back when they pass; what \
an operator wants with `svcctl drain` outlasts both. At ctrl-c or SIGTERM it leaves clients' sight \
first, and then the registry; a second one ends the waiting. An etcd that is away is waited for.

Checks:
  tcp                      a connection to --address; tcp://HOST:PORT for one to elsewhere
  http://[HOST:PORT]/PATH  GET, answered with 2xx; without a host at --address
  grpc[://SERVICE]         grpc.health.v1 at --address; grpc://HOST:PORT[/SERVICE] for elsewhere
  ttl=DURATION:FILE        FILE is touched within DURATION; `fail REASON` in it counts at once
  none                     it is always well

COMMAND is started first. It gets every signal, SIGTERM and SIGINT only once it has left clients' sight \
(a second one is handed on at once). When it ends its record goes, and this command ends with its code: \
128 and the signal if it was killed, 126 if it cannot be run, 127 if it is not found. Nobody counts its \
calls: --notice is the time that they have.

Examples:
  svcctl register db --address 10.0.0.7:5432
  svcctl register web --address 10.0.0.8:80 --check http:///healthz --interval 2s
  svcctl register legacy --address 10.0.0.9:9000 --check ttl=30s:/run/legacy.beat
  svcctl register greeter --address 10.0.0.1:50051 --check grpc -- ./greeter --port 50051")]
pub struct Register {
    /// The service's name
    pub service: String,
    /// Where clients reach the instance
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// The instance's id [default: the address, with - for what an id cannot hold]
    #[arg(long)]
    pub id: Option<String>,
    /// What tells whether it is well, see below
    #[arg(long, default_value = "tcp")]
    pub check: String,
    /// Time from one check to the next [default: 5s, for ttl 1s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub interval: Option<Duration>,
    /// Longest wait for the answer to a check [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Checks in a row that have to fail before it takes no new work [default: 3, for ttl 1]
    #[arg(long, value_name = "N")]
    pub failures: Option<u32>,
    /// Checks in a row that have to pass before it does [default: 1]
    #[arg(long, value_name = "N")]
    pub successes: Option<u32>,
    /// Time from leaving clients' sight to being drained, and to the signal for COMMAND
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub notice: Duration,
    /// How long it stays in etcd when this command is killed
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// Its share of the load relative to the others', 0 to 1000000 [default: 100]
    #[arg(long, value_name = "N")]
    pub weight: Option<svc_registry::Weight>,
    /// Where it runs, for clients that prefer their own zone
    #[arg(long, value_parser = printable)]
    pub zone: Option<String>,
    /// The version of its program
    #[arg(long, value_name = "VERSION", value_parser = printable)]
    pub version_tag: Option<String>,
    /// A label; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub tag: Vec<(String, String)>,
    /// Clients have to speak TLS to it
    #[arg(long)]
    pub tls: bool,
    /// A command to run as the instance
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// `svcctl deregister`
#[derive(Debug, Args)]
#[command(after_help = "\
An instance that lives is asked to drain, to remove its record and to stay away; `svcctl undrain` lets it
register again. A record without a lease has no owner who could be asked: it is deleted.

Examples:
  svcctl deregister greeter g-1
  svcctl deregister legacy 10.0.0.7:8080")]
pub struct Deregister {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Why, for those who see it in `svcctl get`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,
    /// Remove it even if it is the last that serves
    #[arg(long)]
    pub force: bool,
}

/// `svcctl resolve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcctl resolve greeter
  svcctl resolve 'etcd://10.0.0.1:2379,10.0.0.2:2379/greeter'
  svcctl resolve static:///127.0.0.1:50051,127.0.0.1:50052")]
pub struct Resolve {
    /// A service's name, or a URI as a client writes it
    pub target: String,
}

/// `svcctl probe`
#[derive(Debug, Args)]
#[command(after_help = "\
It exits 0 if grpc.health.v1 answers SERVING, and 1 otherwise: a health check for containers. A drained
instance answers NOT_SERVING. No etcd is asked.

Examples:
  svcctl probe 127.0.0.1:50051
  svcctl probe 127.0.0.1:50051 --service greeter.v1.Greeter --timeout 500ms")]
pub struct Probe {
    /// Where it listens
    #[arg(value_name = "HOST:PORT")]
    pub address: String,
    /// The gRPC service that is meant [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Longest wait for the answer
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// `svcctl dev`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcctl dev &
  greeter --id g-1 &
  svcctl get")]
pub struct Dev {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:2379", value_name = "ADDR")]
    pub listen: String,
    /// Keep the data in this folder, which is made if it is not there: they outlive this command and its being
    /// killed
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `svcctl demo`
#[derive(Debug, Args)]
#[command(after_help = "\
It starts the services and their loads, whose binaries lie beside its own, and stops them all.
It never takes ETCDCTL_ENDPOINTS, which may be somebody's production.

Examples:
  svcctl demo
  svcctl demo --keep
  DEMO_ETCD=http://127.0.0.1:2379 svcctl demo")]
pub struct Demo {
    /// An etcd to run on, under a fresh prefix that is removed at the end [default: one in memory]
    #[arg(long = "demo-etcd", env = "DEMO_ETCD", value_name = "URL")]
    pub etcd: Option<String>,
    /// Leave it running at the end, until ctrl-c, and say what to try on it
    #[arg(long)]
    pub keep: bool,
    /// Where the processes' output is kept [default: a new folder below the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
}
