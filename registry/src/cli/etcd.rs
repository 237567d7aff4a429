//! The flags by which every program of ours finds etcd, named like etcdctl's.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::etcd::EtcdConfig;
use crate::etcd::config::verification_stays;
use crate::etcd::tls::{TlsFiles, TlsNames};
use crate::etcd::user::{UserGiven, UserNames};

/// Where etcd is; flatten it into a program's own arguments.
#[derive(Clone, Default, clap::Args)]
#[command(next_help_heading = "etcd")]
pub struct EtcdArgs {
    /// Members of the etcd cluster, with or without scheme [default: 127.0.0.1:2379]
    #[arg(long, global = true, env = "ETCDCTL_ENDPOINTS", value_name = "HOST:PORT,...")]
    endpoints: Option<String>,

    /// Root of the service records; -draining and -control lie beside it [default: /services]
    #[arg(long, global = true, env = "SVC_PREFIX", value_name = "PREFIX")]
    prefix: Option<String>,

    /// User of etcd; the password may come from ETCDCTL_PASSWORD or --password-file instead
    #[arg(long, global = true, env = "ETCDCTL_USER", hide_env_values = true, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,

    /// File whose first line is the user's password, readable to its owner and group only
    #[arg(long, global = true, env = "SVC_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// CA that signed etcd's certificate; with it TLS is spoken [default: the system's, for https://]
    #[arg(long, global = true, env = "ETCDCTL_CACERT", value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Certificate shown to etcd
    #[arg(long, global = true, env = "ETCDCTL_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,

    /// Key of that certificate, readable to its owner and group only
    #[arg(long, global = true, env = "ETCDCTL_KEY", value_name = "FILE")]
    key: Option<PathBuf>,

    /// Name that etcd's certificate is for, where it is not the endpoint's host
    #[arg(long, global = true, env = "SVC_TLS_SERVER_NAME", value_name = "NAME")]
    tls_server_name: Option<String>,

    /// Longest wait for a connection to a member [default: 2s]
    #[arg(long, global = true, env = "ETCDCTL_DIAL_TIMEOUT", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    dial_timeout: Option<Duration>,

    /// Longest wait for the answer to a command, members tried in turn [default: 5s]
    #[arg(long, global = true, env = "ETCDCTL_COMMAND_TIMEOUT", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    command_timeout: Option<Duration>,

    /// TOML file whose keys are the long flags; flags and environment win
    #[arg(long, global = true, env = "SVC_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl EtcdArgs {
    /// The configuration that was asked for.
    ///
    /// # Errors
    /// A wrong endpoint, prefix or timeout; a certificate, key or password file that cannot be used.
    pub fn config(&self) -> Result<EtcdConfig, Error> {
        verification_stays(std::env::var("ETCDCTL_INSECURE_SKIP_TLS_VERIFY").ok().as_deref())?;
        let mut config = match &self.endpoints {
            Some(list) => EtcdConfig::from_url(list)?,
            None => EtcdConfig::default(),
        };
        if let Some(prefix) = &self.prefix {
            config = config.with_prefix(prefix)?;
        }
        if let Some(timeout) = self.dial_timeout {
            config = config.with_dial_timeout(timeout)?;
        }
        if let Some(timeout) = self.command_timeout {
            config = config.with_command_timeout(timeout)?;
        }
        let set = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let files = TlsFiles {
            cacert: set(&self.cacert),
            cert: set(&self.cert),
            key: set(&self.key),
            server_name: self.tls_server_name.clone().filter(|name| !name.is_empty()),
        };
        let config = config.with_given_tls(&files, &TlsNames::FLAGS)?;
        let given = UserGiven {
            user: self.user.clone().filter(|user| !user.is_empty()),
            password: std::env::var(UserNames::FLAGS.password).ok().filter(|password| !password.is_empty()),
            password_file: set(&self.password_file),
        };
        config.with_given_user(given, &UserNames::FLAGS)
    }
}

impl fmt::Debug for EtcdArgs {
    /// Without the user, whose value may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdArgs")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("dial_timeout", &self.dial_timeout)
            .field("command_timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
}
