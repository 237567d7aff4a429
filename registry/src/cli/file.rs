//! The configuration file: its keys become flags, unless flag or environment has said the same already. Tables, such
//! as `[[grpc_clients]]`, go as JSON to the flags that say by their value's name that they take it.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::etcd::secret::private_file;

/// The value name of flags that take tables.
const JSON: &str = "JSON";

/// `arguments` with what the configuration file adds, right behind the program's name.
pub(super) fn merge(command: &Command, arguments: Vec<OsString>) -> Result<Vec<OsString>, clap::Error> {
    let mut lenient = command.clone().ignore_errors(true);
    // What is wrong in the arguments is reported by the parse that follows, with all of them known.
    let Ok(given) = lenient.try_get_matches_from_mut(arguments.clone()) else { return Ok(arguments) };
    let Some(path) = given.try_get_one::<std::path::PathBuf>("config").ok().flatten() else {
        return Ok(arguments);
    };
    let mut arguments = arguments.into_iter();
    let program = arguments.next();
    let from_file = read(command, path, &given)?;
    Ok(program.into_iter().chain(from_file).chain(arguments).collect())
}

fn read(command: &Command, path: &Path, given: &ArgMatches) -> Result<Vec<OsString>, clap::Error> {
    let refuse = |kind, reason: String| {
        clap::Error::raw(kind, format!("{}: {reason}\n", path.display())).with_cmd(command)
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| refuse(ErrorKind::Io, format!("cannot be read ({error})")))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| refuse(ErrorKind::InvalidValue, error.message().to_owned()))?;

    let mut flags = Vec::new();
    for (key, value) in &table {
        let long = key.replace('_', "-");
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(&long) && arg.get_id() != "config" && !key.contains('-'));
        let Some(arg) = arg else {
            return Err(refuse(
                ErrorKind::UnknownArgument,
                format!("unknown key {key:?}; {}", known(command)),
            ));
        };
        // NAME:PASSWORD, as etcdctl's flag has it.
        if key == "user" && value.as_str().is_some_and(|user| user.contains(':')) {
            private_file("user", path).map_err(|error| {
                refuse(ErrorKind::InvalidValue, format!("{error}, or name a password_file"))
            })?;
        }
        let source = given.value_source(arg.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        match value {
            toml::Value::Boolean(on) if !arg.get_action().takes_values() => {
                if *on {
                    flags.push(format!("--{long}").into());
                }
            }
            value => {
                let text = if takes_json(arg) { serde_json::to_string(value).ok() } else { text_of(value) };
                let Some(text) = text else {
                    let found = value.type_str();
                    let reason = format!("{key}: a {found} is neither a string, a number nor a list of them");
                    return Err(refuse(ErrorKind::InvalidValue, reason));
                };
                flags.push(format!("--{long}={text}").into());
            }
        }
    }
    Ok(flags)
}

fn takes_json(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == JSON))
}

/// The value as it would stand on the command line; lists are comma-separated there.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(text_of).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        toml::Value::Table(_) | toml::Value::Datetime(_) => None,
    }
}

fn known(command: &Command) -> String {
    let mut keys: Vec<String> = command
        .get_arguments()
        .filter(|arg| arg.get_id() != "config")
        .filter_map(|arg| arg.get_long().map(|long| long.replace('-', "_")))
        .filter(|key| key != "help" && key != "version")
        .collect();
    keys.sort_unstable();
    format!("the keys are {}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::cli::{EtcdArgs, try_parse_from};

    #[derive(Debug, clap::Parser)]
    struct Args {
        #[command(flatten)]
        etcd: EtcdArgs,
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:0")]
        listen: String,
        /// Needed, from wherever
        #[arg(long, required = true)]
        weight: u32,
        /// A switch
        #[arg(long)]
        loud: bool,
        /// Tables
        #[arg(long, value_name = "JSON")]
        callees: Option<String>,
    }

    /// A file in the tests' own folder, removed with the guard.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> File {
            let path = std::env::temp_dir().join(format!("svc-cli-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            File(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn parse(file: &File, arguments: &[&str]) -> Result<Args, clap::Error> {
        let config = format!("--config={}", file.0.display());
        try_parse_from(["test", &config].into_iter().chain(arguments.iter().copied()))
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text =
            "listen = '1.2.3.4:5'\nweight = 7\nloud = true\nendpoints = ['a:1', 'b:2']\ndial_timeout = '1s'";
        let file = File::new("order", text);
        let args = parse(&file, &[]).unwrap();
        assert_eq!((args.listen.as_str(), args.weight, args.loud), ("1.2.3.4:5", 7, true));
        let etcd = args.etcd.config().unwrap();
        assert_eq!(etcd.endpoints(), ["a:1", "b:2"]);
        assert_eq!(etcd.dial_timeout(), std::time::Duration::from_secs(1));
        let args = parse(&file, &["--listen", "[::]:9", "--weight=1"]).unwrap();
        assert_eq!((args.listen.as_str(), args.weight), ("[::]:9", 1));
    }

    #[test]
    fn tables_go_as_json_to_the_flags_that_take_it() {
        let text = "[[callees]]\nname = 'balance'\nretry = { max = 3 }\n[[callees]]\nname = 'gift'";
        let file = File::new("tables", text);
        let args = parse(&file, &["--weight=1"]).unwrap();
        let callees: serde_json::Value = serde_json::from_str(&args.callees.unwrap()).unwrap();
        let expected = serde_json::json!([{"name": "balance", "retry": {"max": 3}}, {"name": "gift"}]);
        assert_eq!(callees, expected);
        let args = parse(&file, &["--weight=1", "--callees=[]"]).unwrap();
        assert_eq!(args.callees.as_deref(), Some("[]"), "a flag beats the whole list of the file");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name() {
        for text in ["colour = 1", "config = 'x'", "dial-timeout = '1s'", "help = true"] {
            let error = parse(&File::new("unknown", text), &["--weight=1"]).unwrap_err().to_string();
            let key = text.split(' ').next().unwrap();
            assert!(error.contains(&format!("unknown key {key:?}")), "{error}");
            assert!(error.contains("dial_timeout"), "names what is known: {error}");
        }
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_path() {
        let missing = try_parse_from::<Args, _>(["test", "--config=/nowhere.toml"]).unwrap_err().to_string();
        assert!(missing.contains("/nowhere.toml"), "{missing}");
        for text in ["listen = ", "listen = { a = 1 }", "[listen]\na = 1"] {
            let error = parse(&File::new("broken", text), &["--weight=1"]).unwrap_err().to_string();
            assert!(error.contains("svc-cli-"), "{error}");
        }
        let error = parse(&File::new("value", "weight = 'heavy'"), &[]).unwrap_err().to_string();
        assert!(error.contains("heavy") && error.contains("--weight"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_password_in_a_file_that_everybody_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = File::new("password", "weight = 7\nuser = 'me:hunter2'");
        let open_to =
            |mode| std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(mode)).unwrap();
        open_to(0o640);
        parse(&file, &[]).unwrap();
        open_to(0o644);
        let error = parse(&file, &[]).unwrap_err().to_string();
        assert!(error.contains("user: ") && error.contains("chmod 600"), "{error}");
        assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
        let open = File::new("no-password", "weight = 7\nuser = 'me'");
        std::fs::set_permissions(&open.0, std::fs::Permissions::from_mode(0o644)).unwrap();
        parse(&open, &[]).unwrap();
    }

    #[test]
    fn wrong_files_and_users_are_refused_by_their_flag() {
        for flag in ["--cacert=x", "--user=:secret"] {
            let args: Args = try_parse_from(["test", "--weight=1", flag]).unwrap();
            let error = args.etcd.config().unwrap_err().to_string();
            assert!(error.starts_with(flag.split('=').next().unwrap()), "{error}");
            assert!(!error.contains("secret") && !format!("{args:?}").contains("secret"));
        }
    }
}
