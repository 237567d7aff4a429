//! Command lines of services and tools: the flags for etcd, and a configuration file below flags and environment.
//!
//! In come a program's `clap` parser and its arguments; [`parse`] gives the parsed value, [`EtcdArgs::config`] the
//! [`EtcdConfig`](crate::EtcdConfig) that [`Etcd::new`](crate::Etcd::new) takes.
//!
//! ```
//! use svc_registry::cli::{self, EtcdArgs};
//!
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     etcd: EtcdArgs,
//!     /// Where to listen
//!     #[arg(long, env = "SVC_LISTEN", default_value = "0.0.0.0:0")]
//!     listen: String,
//! }
//!
//! let args: Args = cli::try_parse_from(["my-service", "--endpoints", "10.0.0.1:2379"])?;
//! assert_eq!(args.etcd.config()?.endpoints(), ["10.0.0.1:2379"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod etcd;
mod file;

use std::ffi::OsString;

use clap::Parser;

pub use etcd::EtcdArgs;

/// Parses the process's arguments; prints help or the error and exits, as `clap` does.
pub fn parse<T: Parser>() -> T {
    try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Parses these arguments, the first of which is the program's name.
///
/// A flag beats the environment, which beats the file that `--config` or `SVC_CONFIG` names. The file is TOML; its
/// keys are the long flags, with `_` for `-`. Tables and lists of tables are for flags whose value is named `JSON`
/// (`#[arg(value_name = "JSON")]`), which get them as such.
///
/// # Errors
/// What `clap` refuses; a file that cannot be read or parsed, or holds a key that is no flag, by its name.
pub fn try_parse_from<T, I>(arguments: I) -> Result<T, clap::Error>
where
    T: Parser,
    I: IntoIterator<Item: Into<OsString>>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let merged = file::merge(&T::command(), arguments)?;
    T::try_parse_from(merged)
}
