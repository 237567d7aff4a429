//! What every service of ours is told by flags, environment and file.
//!
//! In comes a command line; out goes a [`Service`](crate::service::Service), from which a program takes the channels
//! to its callees and the server to which it adds its own gRPC services.

mod clients;

use std::ffi::OsString;
use std::time::Duration;

use svc_registry::cli::{self, EtcdArgs};
use svc_registry::{Error, Etcd, Instance, InstanceId, RegistrarConfig, Serve, Weight};

use crate::telemetry::{self, TelemetryArgs};

pub use clients::{GrpcClient, GrpcClients, Retry};

/// The flags of every service; flatten them into its own.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,

    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        env = "SVC_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDR",
        help_heading = "service"
    )]
    listen: String,

    /// What clients dial, if it is not the address listened on; without a port, the one listened on
    #[arg(long, env = "SVC_ADVERTISE", value_name = "HOST[:PORT]", help_heading = "service")]
    advertise: Option<String>,

    /// Unique within the service; keep it over restarts, so that drains hold [default: HOSTNAME-PORT]
    #[arg(long, env = "SVC_ID", value_name = "ID", help_heading = "service")]
    id: Option<InstanceId>,

    /// Where it runs, for clients that prefer their own zone
    #[arg(long, env = "SVC_ZONE", value_name = "NAME", help_heading = "service")]
    pub(crate) zone: Option<String>,

    /// The program's version, for clients that ask for one
    #[arg(long, env = "SVC_VERSION_TAG", value_name = "VERSION", help_heading = "service")]
    version_tag: Option<String>,

    /// Its share of the load, relative to the others' [default: 100]
    #[arg(long, env = "SVC_WEIGHT", value_name = "N", help_heading = "service")]
    weight: Option<Weight>,

    /// How long its record outlives a crash
    #[arg(long, env = "SVC_TTL", default_value = "15s", value_name = "DURATION", help_heading = "service",
          value_parser = humantime::parse_duration)]
    ttl: Duration,

    /// Largest message that is taken, in bytes; tonic's own limit unless told otherwise
    #[arg(long, env = "SVC_MAX_MESSAGE_SIZE", default_value_t = 4 * 1024 * 1024, value_name = "BYTES",
          help_heading = "service", value_parser = clap::value_parser!(u32).range(1024..=1 << 30))]
    pub(crate) max_message_size: u32,

    /// Calls at once on one connection; a client that has more opens another connection, or waits
    #[arg(long, env = "SVC_MAX_CONCURRENT_STREAMS", default_value_t = 1024, value_name = "N",
          help_heading = "service", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_concurrent_streams: u32,

    /// What is called and how: a list of {"name", "target", "timeout", "policy", "retry": {"max", "timeout",
    /// "backoff"}}; in the file these are tables [[grpc_clients]]
    #[arg(
        long,
        env = "SVC_GRPC_CLIENTS",
        default_value = "[]",
        value_name = "JSON",
        help_heading = "service",
        hide_default_value = true
    )]
    pub(crate) grpc_clients: GrpcClients,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// Parses the process's arguments; prints help or the error and exits, as `clap` does.
pub fn parse<T: clap::Parser>() -> T {
    cli::try_parse_from(with_rust_log(std::env::args_os().collect())).unwrap_or_else(|error| error.exit())
}

/// `RUST_LOG` as what it is, a flag from the environment: it beats the file, and gives way to `--log-level` and that
/// flag's own variable.
fn with_rust_log(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let (None, Some(filter)) = (set(telemetry::LOG_LEVEL), set(tracing_subscriber::EnvFilter::DEFAULT_ENV))
    {
        let mut flag = OsString::from("--log-level=");
        flag.push(filter);
        // First of all, so that one that is said counts.
        arguments.insert(1.min(arguments.len()), flag);
    }
    arguments
}

impl ServiceArgs {
    /// A server that registers as `service`, as these flags say.
    pub(crate) fn serve(&self, etcd: &Etcd, service: &str) -> Serve {
        let config = RegistrarConfig { ttl: self.ttl, ..RegistrarConfig::default() };
        let serve = Serve::new(etcd, service).listen(&self.listen).registrar(config);
        let serve = match &self.advertise {
            Some(advertise) => serve.advertise(advertise),
            None => serve,
        };
        let args = self.clone();
        serve.instance(move |instance| args.describe(instance))
    }

    /// The etcd that these flags name.
    ///
    /// # Errors
    /// A wrong configuration of etcd.
    pub(crate) fn etcd(&self) -> Result<Etcd, Error> {
        Etcd::new(self.etcd.config()?)
    }

    /// The instance with what the flags say of it.
    fn describe(self, mut instance: Instance) -> Instance {
        if let Some(id) = self.id {
            instance = instance.with_id(id);
        }
        if let Some(zone) = self.zone {
            instance = instance.with_zone(zone);
        }
        if let Some(version) = self.version_tag {
            instance = instance.with_version(version);
        }
        if let Some(weight) = self.weight {
            instance = instance.with_weight(weight);
        }
        instance
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::balance::BalanceArgs;
    use crate::gift::GiftArgs;
    use crate::greeter::GreeterArgs;

    #[test]
    fn every_long_flag_has_its_variable() {
        let commands = [GreeterArgs::command(), BalanceArgs::command(), GiftArgs::command()];
        for arg in commands.iter().flat_map(clap::Command::get_arguments) {
            let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            let variable = arg.get_env().unwrap_or_else(|| panic!("--{long} has none")).to_string_lossy();
            let name = long.replace('-', "_").to_uppercase();
            assert!(variable == format!("SVC_{name}") || variable == format!("ETCDCTL_{name}"), "{variable}");
        }
    }
}
