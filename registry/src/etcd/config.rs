//! How to reach etcd: endpoints, prefix and timeouts, from code, a URL or the environment.
//!
//! Plain data, checked once: every wrong value is refused with the name of its field and what to write instead.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use svc_channel::TlsConfig;
use svc_channel::{Address, Connect, Connecting, Resolving, SocketConnector};

use super::tls::{TlsFiles, TlsNames};
use super::user::{User, UserGiven, UserNames};
use crate::error::Error;
use crate::keys::Prefix;

/// Where etcd is and how long to wait for it.
///
/// Endpoints without a scheme are plain, or TLS where TLS is configured. Certificates are always verified.
///
/// # Defaults
/// - `endpoints`: `127.0.0.1:2379`, etcd's own default.
/// - `prefix`: `/services`.
/// - `dial_timeout`: 2 s, short enough to try three members within a command.
/// - `command_timeout`: 5 s, as etcdctl has it; covers one call with its repetitions at other members.
/// - TLS: none, or for `https://` endpoints with the authorities that the system trusts.
///
/// ```
/// # fn main() -> Result<(), svc_registry::Error> {
/// use svc_registry::EtcdConfig;
/// let config = EtcdConfig::new(["10.0.0.1:2379", "http://10.0.0.2:2379"])?;
/// assert_eq!(config.endpoints(), ["10.0.0.1:2379", "10.0.0.2:2379"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    endpoints: Vec<String>,
    prefix: Prefix,
    dial_timeout: Duration,
    command_timeout: Duration,
    connector: Connector,
    /// What the endpoints' schemes say on TLS; `None` where none has a scheme.
    secure: Option<bool>,
    user: Option<User>,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for EtcdConfig {
    fn default() -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![DEFAULT_ENDPOINT.to_owned()],
            prefix: Prefix::default(),
            dial_timeout: DIAL_TIMEOUT,
            command_timeout: COMMAND_TIMEOUT,
            connector: Connector::default(),
            secure: None,
            user: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl EtcdConfig {
    /// A configuration for these members, each `host:port`, `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// No endpoint, one without a port, or schemes that differ.
    pub fn new<I>(endpoints: I) -> Result<EtcdConfig, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        EtcdConfig::default().with_endpoints(endpoints)
    }

    /// The same configuration for other members, as [`EtcdConfig::new`] takes them.
    ///
    /// # Errors
    /// As there; plain endpoints where TLS is configured.
    pub fn with_endpoints<I>(mut self, endpoints: I) -> Result<EtcdConfig, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let (mut parsed, mut secure) = (Vec::new(), None);
        for endpoint in endpoints {
            let (address, scheme) = parse_endpoint(endpoint.as_ref())?;
            if scheme.is_some() && secure.is_some() && scheme != secure {
                let reason =
                    "some are http:// and some https://; a cluster speaks TLS at all members or at none";
                return Err(Error::config("endpoints", reason));
            }
            secure = secure.or(scheme);
            if !parsed.contains(&address) {
                parsed.push(address);
            }
        }
        if parsed.is_empty() {
            return Err(Error::config("endpoints", "none given; write host:port[,host:port...]"));
        }
        (self.endpoints, self.secure) = (parsed, secure);
        self.checked_schemes()
    }

    fn checked_schemes(self) -> Result<EtcdConfig, Error> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() && self.secure == Some(false) {
            let reason = "http:// while TLS is configured; write https://, or leave the TLS settings out";
            return Err(Error::config("endpoints", reason));
        }
        #[cfg(not(feature = "tls"))]
        if self.secure == Some(true) {
            return Err(Error::config("endpoints", format_args!("https://: {}", super::tls::NO_TLS)));
        }
        Ok(self)
    }

    /// Speaks TLS with these settings: whom to trust, what to show, which name to expect. Certificates in files are
    /// loaded anew when they change.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use svc_channel::TlsConfig;
    /// use svc_registry::EtcdConfig;
    /// let tls = TlsConfig::ca_file("/etc/etcd/ca.pem")?.identity_files("/etc/etcd/me.pem", "/etc/etcd/me.key")?;
    /// let config = EtcdConfig::new(["https://10.0.0.1:2379"])?.with_tls(tls)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The endpoints are `http://`.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, tls: TlsConfig) -> Result<EtcdConfig, Error> {
        self.tls = Some(tls);
        self.checked_schemes()
    }

    /// Speaks TLS with what is in these PEM files, as `--cacert`, `--cert` and `--key` of etcdctl say it. Without a CA the
    /// system's authorities are trusted; a certificate and its key go together.
    ///
    /// # Errors
    /// A file cannot be read or used, or a key that everybody may read: with the field's name (`cacert`, `cert` or `key`).
    /// The endpoints are `http://`.
    pub fn with_tls_files(
        self,
        cacert: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<EtcdConfig, Error> {
        let (cert, key) = identity.unzip();
        self.with_given_tls(&TlsFiles { cacert, cert, key, server_name: None }, &TlsNames::FIELDS)
    }

    /// The same where each field has the name by which it was given.
    pub(crate) fn with_given_tls(self, files: &TlsFiles, names: &TlsNames) -> Result<EtcdConfig, Error> {
        match files.first(names) {
            None => Ok(self),
            #[cfg(feature = "tls")]
            Some(_) => self.with_tls(files.load(names)?),
            #[cfg(not(feature = "tls"))]
            Some(field) => Err(Error::config(field, super::tls::NO_TLS)),
        }
    }

    /// What the channels are told: the settings, or those that `https://` alone asks for.
    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Result<Option<TlsConfig>, Error> {
        match &self.tls {
            None if self.secure == Some(true) => TlsFiles::default().load(&TlsNames::FIELDS).map(Some),
            tls => Ok(tls.clone()),
        }
    }

    /// A configuration from a comma-separated list, as in `ETCDCTL_ENDPOINTS`, or from a URL
    /// `etcd://host:port[,host:port...][/prefix]`.
    ///
    /// # Errors
    /// As [`EtcdConfig::new`], and a prefix that is not valid.
    pub fn from_url(url: &str) -> Result<EtcdConfig, Error> {
        let Some(rest) = url.trim().strip_prefix("etcd://") else {
            return EtcdConfig::new(url.split(',').filter(|part| !part.trim().is_empty()));
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let config = EtcdConfig::new(hosts.split(',').filter(|part| !part.trim().is_empty()))?;
        match path.trim_end_matches('/') {
            "" => Ok(config),
            path => config.with_prefix(&format!("/{path}")),
        }
    }

    /// A configuration from the environment, with etcdctl's names: `ETCDCTL_ENDPOINTS`, `ETCDCTL_DIAL_TIMEOUT`,
    /// `ETCDCTL_COMMAND_TIMEOUT`, `ETCDCTL_CACERT`, `ETCDCTL_CERT`, `ETCDCTL_KEY`, `ETCDCTL_USER`,
    /// `ETCDCTL_PASSWORD`, and our `SVC_PREFIX`, `SVC_TLS_SERVER_NAME` and `SVC_PASSWORD_FILE`; what is unset keeps its default.
    ///
    /// # Errors
    /// As [`EtcdConfig::new`]; a file that cannot be used; a user without a password; a variable that asks for certificates
    /// not to be verified (`ETCDCTL_INSECURE_SKIP_TLS_VERIFY`).
    pub fn from_env() -> Result<EtcdConfig, Error> {
        EtcdConfig::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<EtcdConfig, Error> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        verification_stays(set(NO_VERIFICATION).as_deref())?;
        let mut config = match set("ETCDCTL_ENDPOINTS") {
            Some(list) => EtcdConfig::from_url(&list)?,
            None => EtcdConfig::default(),
        };
        if let Some(prefix) = set("SVC_PREFIX") {
            config = config.with_prefix(&prefix)?;
        }
        if let Some(text) = set("ETCDCTL_DIAL_TIMEOUT") {
            config = config.with_dial_timeout(parse_duration("ETCDCTL_DIAL_TIMEOUT", &text)?)?;
        }
        if let Some(text) = set("ETCDCTL_COMMAND_TIMEOUT") {
            config = config.with_command_timeout(parse_duration("ETCDCTL_COMMAND_TIMEOUT", &text)?)?;
        }
        let path = |name: &str| set(name).map(PathBuf::from);
        let names = TlsNames::ENVIRONMENT;
        let files = TlsFiles {
            cacert: path(names.cacert),
            cert: path(names.cert),
            key: path(names.key),
            server_name: set(names.server_name),
        };
        let config = config.with_given_tls(&files, &names)?;
        let names = UserNames::ENVIRONMENT;
        let given = UserGiven {
            user: set(names.user),
            password: set(names.password),
            password_file: path(names.password_file),
        };
        config.with_given_user(given, &names)
    }

    /// Keeps records under `prefix` (such as `/services`) instead of the default.
    ///
    /// # Errors
    /// A prefix that does not start with `/`, ends with one, or has empty segments.
    pub fn with_prefix(mut self, prefix: &str) -> Result<EtcdConfig, Error> {
        self.prefix = Prefix::new(prefix).map_err(|error| Error::config("prefix", error))?;
        Ok(self)
    }

    /// Calls and streams are this user's. Its tokens, simple or JWT, are renewed whenever etcd says that they are stale; an
    /// etcd without authentication is spoken to without.
    ///
    /// # Errors
    /// An empty name.
    pub fn with_user(self, name: &str, password: &str) -> Result<EtcdConfig, Error> {
        let (user, password) = (Some(name.to_owned()), Some(password.to_owned()));
        self.with_given_user(UserGiven { user, password, password_file: None }, &UserNames::FIELDS)
    }

    /// The same with the password in the first line of a file, which is read at each authentication: a password that was
    /// changed needs no restart.
    ///
    /// # Errors
    /// The file cannot be read, holds nothing, or everybody may read it.
    pub fn with_password_file(self, name: &str, file: impl Into<PathBuf>) -> Result<EtcdConfig, Error> {
        let (user, password_file) = (Some(name.to_owned()), Some(file.into()));
        self.with_given_user(UserGiven { user, password: None, password_file }, &UserNames::FIELDS)
    }

    /// The same where each field has the name by which it was given.
    pub(crate) fn with_given_user(
        mut self,
        given: UserGiven,
        names: &UserNames,
    ) -> Result<EtcdConfig, Error> {
        self.user = given.check(names)?.or(self.user);
        Ok(self)
    }

    /// How long one attempt to connect to a member may take.
    ///
    /// # Errors
    /// Zero, or more than an hour.
    pub fn with_dial_timeout(mut self, timeout: Duration) -> Result<EtcdConfig, Error> {
        self.dial_timeout = checked("dial-timeout", timeout)?;
        Ok(self)
    }

    /// How long one call may take, with its repetitions at other members.
    ///
    /// # Errors
    /// Zero, or more than an hour.
    pub fn with_command_timeout(mut self, timeout: Duration) -> Result<EtcdConfig, Error> {
        self.command_timeout = checked("command-timeout", timeout)?;
        Ok(self)
    }

    /// Makes connections to members with `connector` instead of over TCP: in memory, or simulated.
    #[must_use]
    pub fn with_connector(self, connector: impl Connect) -> EtcdConfig {
        EtcdConfig { connector: Connector(Arc::new(connector)), ..self }
    }

    /// The members, each `host:port`, without scheme, in the order given.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The root of the records.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// How long one attempt to connect to a member may take.
    pub fn dial_timeout(&self) -> Duration {
        self.dial_timeout
    }

    /// How long one call may take.
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    pub(super) fn connector(&self) -> Connector {
        self.connector.clone()
    }
}

/// How members are dialled.
#[derive(Clone)]
pub(super) struct Connector(Arc<dyn Connect>);

impl Default for Connector {
    fn default() -> Connector {
        Connector(Arc::new(SocketConnector::default()))
    }
}

impl Connect for Connector {
    fn connect(&self, address: &Address) -> Connecting {
        self.0.connect(address)
    }

    fn resolve(&self, address: &Address) -> Resolving {
        self.0.resolve(address)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// etcdctl's way to trust anybody. A man in the middle would get the password; there is no switch for that here.
const NO_VERIFICATION: &str = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";

/// Refuses to leave certificates unverified.
pub(crate) fn verification_stays(value: Option<&str>) -> Result<(), Error> {
    match value {
        // As Go's ParseBool has it.
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(()),
        Some(_) => Err(Error::config(
            NO_VERIFICATION,
            "certificates are always verified; unset it and name the CA with --cacert or ETCDCTL_CACERT, and another name \
             in the certificate with --tls-server-name",
        )),
    }
}

/// The address, and whether its scheme asks for TLS.
fn parse_endpoint(text: &str) -> Result<(String, Option<bool>), Error> {
    let text = text.trim();
    let refuse = |reason: String| Err(Error::config("endpoints", reason));
    let (rest, secure) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (rest, Some(false)),
        (_, Some(rest)) => (rest, Some(true)),
        _ => (text, None),
    };
    let rest = rest.trim_end_matches('/');
    if rest.contains('@') {
        return refuse("an endpoint holds a user; name it with --user or ETCDCTL_USER instead".to_owned());
    }
    if let Some((scheme, _)) = rest.split_once("://") {
        return refuse(format!(
            "{text:?} has the unknown scheme {scheme:?}; write host:port, http://host:port or https://host:port"
        ));
    }
    // The authority's own parser knows brackets of IPv6 and the charset of hosts.
    match rest.parse::<http::uri::Authority>() {
        Ok(authority) if authority.host().is_empty() => refuse(format!("{text:?} has no host")),
        Ok(authority) => match authority.port_u16() {
            Some(1..) => Ok((authority.to_string(), secure)),
            _ => refuse(format!("{text:?} has no port from 1 to 65535; etcd listens for clients on 2379")),
        },
        Err(error) => refuse(format!("{text:?} is not host:port ({error})")),
    }
}

fn parse_duration(field: &str, text: &str) -> Result<Duration, Error> {
    humantime::parse_duration(text)
        .map_err(|_| Error::config(field, format!("{text:?} is not a duration; write 150ms, 5s or 2m")))
}

fn checked(field: &str, timeout: Duration) -> Result<Duration, Error> {
    const MOST: Duration = Duration::from_secs(3600);
    if timeout.is_zero() || timeout > MOST {
        return Err(Error::config(
            field,
            format!("{timeout:?} is out of range; write more than 0 and at most 1h"),
        ));
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<EtcdConfig, Error>) -> String {
        let error = result.expect_err("refused");
        assert!(error.is_config());
        error.to_string()
    }

    fn env(pairs: &[(&str, &str)]) -> Result<EtcdConfig, Error> {
        EtcdConfig::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn endpoints_are_taken_with_or_without_scheme_and_once() {
        let config = EtcdConfig::new(["http://a:1/", "a:1", "[::1]:2379", " b:2 "]).unwrap();
        assert_eq!(config.endpoints(), ["a:1", "[::1]:2379", "b:2"]);
    }

    #[test]
    fn a_url_may_carry_a_prefix() {
        let config = EtcdConfig::from_url("etcd://a:1,b:2/my/root/").unwrap();
        assert_eq!(config.endpoints(), ["a:1", "b:2"]);
        assert_eq!(config.prefix().to_string(), "/my/root");
        assert_eq!(EtcdConfig::from_url("a:1,http://b:2").unwrap().endpoints(), ["a:1", "b:2"]);
    }

    #[test]
    fn a_wrong_endpoint_is_refused_with_the_field_and_the_remedy() {
        for (text, part) in [
            ("", "host"),
            ("a", "2379"),
            ("a:0", "65535"),
            ("a:70000", "65535"),
            ("ftp://a:1", "scheme"),
            ("u:p@a:1", "user"),
            ("a b:1", "host:port"),
        ] {
            let message = refused(EtcdConfig::new([text]));
            assert!(message.starts_with("endpoints: ") && message.contains(part), "{text:?}: {message}");
        }
        assert!(refused(EtcdConfig::new(Vec::<String>::new())).contains("host:port"));
        assert!(!refused(EtcdConfig::new(["u:secret@a:1"])).contains("secret"), "no secret in a message");
    }

    #[test]
    fn the_environment_has_etcdctls_names() {
        let config = env(&[
            ("ETCDCTL_ENDPOINTS", "http://a:1,b:2"),
            ("ETCDCTL_DIAL_TIMEOUT", "150ms"),
            ("ETCDCTL_COMMAND_TIMEOUT", "1m30s"),
            ("SVC_PREFIX", "/x"),
        ])
        .unwrap();
        assert_eq!(config.endpoints(), ["a:1", "b:2"]);
        assert_eq!(config.dial_timeout(), Duration::from_millis(150));
        assert_eq!(config.command_timeout(), Duration::from_secs(90));
        assert_eq!(config.prefix().to_string(), "/x");
        assert_eq!(env(&[]).unwrap().endpoints(), EtcdConfig::default().endpoints());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn schemes_say_whether_tls_is_spoken_and_have_to_agree() {
        let mixed = refused(EtcdConfig::new(["http://a:1", "https://b:1"]));
        assert!(mixed.starts_with("endpoints: ") && mixed.contains("at none"), "{mixed}");
        assert_eq!(EtcdConfig::new(["https://a:1", "b:1"]).unwrap().endpoints(), ["a:1", "b:1"]);
        let tls = || TlsConfig::with_webpki_roots().unwrap();
        let plain = refused(EtcdConfig::new(["http://a:1"]).unwrap().with_tls(tls()));
        assert!(plain.starts_with("endpoints: ") && plain.contains("https://"), "{plain}");
        let config = EtcdConfig::new(["a:1"]).unwrap().with_tls(tls()).unwrap();
        assert!(config.tls().unwrap().is_some(), "no scheme, but settings");
        assert!(config.with_endpoints(["http://a:1"]).is_err());
        assert!(EtcdConfig::default().tls().unwrap().is_none());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn files_in_the_environment_are_refused_by_their_variable() {
        for (name, value, part) in [
            ("ETCDCTL_CACERT", "/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true", "ETCDCTL_CACERT"),
        ] {
            let message = refused(env(&[(name, value)]));
            assert!(message.starts_with(name) && message.contains(part), "{message}");
        }
        env(&[("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "false")]).expect("nothing is asked for");
    }

    #[test]
    fn a_user_in_the_environment_is_taken_and_never_shown() {
        let config = env(&[("ETCDCTL_USER", "me"), ("ETCDCTL_PASSWORD", "hunter2")]).unwrap();
        assert_eq!(config.user().unwrap().name, "me");
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        let message = refused(env(&[("ETCDCTL_USER", "me")]));
        assert!(message.starts_with("ETCDCTL_USER") && message.contains("ETCDCTL_PASSWORD"), "{message}");
        let message = refused(env(&[("ETCDCTL_PASSWORD", "hunter2")]));
        assert!(message.starts_with("ETCDCTL_USER") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_wrong_timeout_in_the_environment_is_refused_by_its_variable() {
        assert!(refused(env(&[("ETCDCTL_DIAL_TIMEOUT", "soon")])).contains("150ms"));
        assert!(refused(env(&[("ETCDCTL_COMMAND_TIMEOUT", "0s")])).contains("out of range"));
    }
}
