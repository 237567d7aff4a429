//! Targets: what a client names when it wants a service.
//!
//! Text comes in; a [`Target`] that holds no nonsense goes out, or an error that names the part and the remedy.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use svc_registry::ServiceName;

use crate::Error;
use crate::policy::Balancing;

/// A service, where it is looked for, and how it is balanced.
///
/// | text | means |
/// |---|---|
/// | `greeter` or `etcd:///greeter` | the service in the resolver's own etcd |
/// | `etcd://h1:2379,h2:2379/greeter` | the service in that etcd |
/// | `static:///h:50051,[::1]:50051,unix:/path` | exactly these endpoints |
///
/// After a `?`, joined by `&`, percent-encoded where need be: `policy=round_robin` (see [`Balancing`]), `version=v2`
/// and `tag.<name>=<value>` (only such instances), `zone=a` (where the client runs: calls stay in that zone while they
/// can).
///
/// ```
/// use svc_resolver::Target;
/// let target: Target = "etcd:///greeter?policy=round_robin&version=v2".parse()?;
/// assert_eq!(target.name(), "greeter");
/// let error = "etcd:///gree ter".parse::<Target>().unwrap_err();
/// assert!(error.to_string().contains("service"));
/// # Ok::<(), svc_resolver::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) source: Source,
    pub(crate) wanted: Wanted,
    pub(crate) balancing: Option<Balancing>,
    pub(crate) zone: Option<Arc<str>>,
    text: String,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A service; in the resolver's etcd if no endpoints are named.
    Etcd { endpoints: Vec<String>, service: ServiceName },
    /// These addresses.
    Static(Vec<String>),
}

/// Which instances of the service are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub(crate) version: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
}

const FORMS: &str = "write greeter, etcd:///greeter, etcd://host:2379/greeter or static:///host:50051";

impl Target {
    /// The service's name; of a static target its addresses.
    pub fn name(&self) -> String {
        match &self.source {
            Source::Etcd { service, .. } => service.to_string(),
            Source::Static(addresses) => addresses.join(","),
        }
    }

    /// Where the client runs: its calls stay in this zone while that is healthy enough (see
    /// [`ChannelBuilder::zone`](svc_channel::ChannelBuilder::zone)).
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let fail = |part: &str, why: String| Error::target(text, part, why);
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let source = match path.split_once("://") {
            None => Source::Etcd { endpoints: Vec::new(), service: service(text, path)? },
            Some(("etcd", rest)) => {
                let (hosts, name) = rest.split_once('/').ok_or_else(|| {
                    fail("service", format!("no path names it; write etcd://{rest}/greeter"))
                })?;
                let hosts = hosts.split(',').filter(|host| !host.is_empty());
                let endpoints = hosts.map(|host| endpoint(text, host)).collect::<Result<_, _>>()?;
                Source::Etcd { endpoints, service: service(text, name)? }
            }
            Some(("static", rest)) => Source::Static(addresses(text, rest)?),
            Some((scheme, _)) => return Err(fail("scheme", format!("{scheme:?} is unknown; {FORMS}"))),
        };
        let target =
            Self { source, wanted: Wanted::default(), balancing: None, zone: None, text: text.to_owned() };
        query.split('&').filter(|pair| !pair.is_empty()).try_fold(target, Self::with_parameter)
    }

    fn with_parameter(mut self, pair: &str) -> Result<Self, Error> {
        let fail = |target: &Self, why: String| Error::target(&target.text, "parameter", why);
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
            return Err(fail(&self, format!("{pair:?} is not percent-encoded UTF-8")));
        };
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(fail(&self, format!("{name:?} needs a printable value; write {name}=<value>")));
        }
        match name.as_str() {
            "policy" => self.balancing = Some(value.parse().map_err(|why: String| fail(&self, why))?),
            "zone" => self.zone = Some(value.into()),
            "version" => self.wanted.version = Some(value),
            _ => match name.strip_prefix("tag.").filter(|tag| !tag.is_empty()) {
                Some(tag) => drop(self.wanted.tags.insert(tag.to_owned(), value)),
                None => {
                    let known = "policy, version, zone and tag.<name>";
                    return Err(fail(&self, format!("{name:?} is unknown; known are {known}")));
                }
            },
        }
        Ok(self)
    }
}

fn service(target: &str, name: &str) -> Result<ServiceName, Error> {
    if name.is_empty() {
        return Err(Error::target(target, "service", format!("it is missing; {FORMS}")));
    }
    ServiceName::new(name).map_err(|error| Error::target(target, "service", error))
}

fn endpoint(target: &str, host: &str) -> Result<String, Error> {
    match host.parse::<svc_registry::record::Address>() {
        Ok(address) => Ok(address.to_string()),
        Err(error) => Err(Error::target(target, "etcd endpoint", error)),
    }
}

fn addresses(target: &str, rest: &str) -> Result<Vec<String>, Error> {
    let list = rest.strip_prefix('/').ok_or_else(|| {
        let why = "a static target has three slashes and its addresses in the path";
        Error::target(target, "address", format!("{why}; write static:///{rest}"))
    })?;
    let list: Vec<String> = list.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
    if list.is_empty() {
        return Err(Error::target(target, "address", "none is given; write static:///host:50051,host:50052"));
    }
    for address in &list {
        address.parse::<svc_channel::Address>().map_err(|error| Error::target(target, "address", error))?;
    }
    Ok(list)
}

impl FromStr for Target {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_forms_of_a_target() {
        for text in ["greeter", "etcd:///greeter"] {
            let Source::Etcd { endpoints, service } = target(text).source else { panic!("{text}") };
            assert_eq!((endpoints.len(), service.as_str()), (0, "greeter"));
        }
        let Source::Etcd { endpoints, .. } = target("etcd://h1:2379,[::1]:2379/greeter?zone=a").source else {
            panic!("it names an etcd")
        };
        assert_eq!(endpoints, ["h1:2379", "[::1]:2379"]);
        let fixed = target("static:///h:1,[::1]:2,unix:/run/g.sock");
        assert_eq!(
            fixed.source,
            Source::Static(vec!["h:1".into(), "[::1]:2".into(), "unix:/run/g.sock".into()])
        );
    }

    #[test]
    fn parameters_select_and_balance() {
        let target = target("etcd:///greeter?policy=round_robin&version=v%201&tag.team=a%26b&zone=z");
        assert_eq!(target.balancing, Some(Balancing::RoundRobin));
        assert_eq!(target.wanted.version.as_deref(), Some("v 1"));
        assert_eq!(target.wanted.tags, BTreeMap::from([("team".into(), "a&b".into())]));
        assert_eq!(target.zone(), Some("z"));
    }

    #[test]
    fn a_bad_target_is_refused_with_its_part_and_the_remedy() {
        for (text, part, remedy) in [
            ("", "service", "write greeter"),
            ("gree ter", "service", "use letters"),
            ("etcd:///", "service", "etcd:///greeter"),
            ("etcd://", "service", "write etcd://"),
            ("etcd://h:2379", "service", "write etcd://h:2379/greeter"),
            ("etcd:///a/b", "service", "use letters"),
            ("etcd://h/greeter", "etcd endpoint", "host:port"),
            ("etcd://h:0/greeter", "etcd endpoint", "port 0"),
            ("http://h:1/greeter", "scheme", "etcd:///greeter"),
            ("dns:///greeter", "scheme", "unknown"),
            ("static://h:1", "address", "static:///h:1"),
            ("static:///", "address", "static:///host:50051"),
            ("static:///h", "address", "host:port"),
            ("greeter?policy=fastest", "parameter", "round_robin"),
            ("greeter?policy", "parameter", "policy=<value>"),
            ("greeter?color=red", "parameter", "known are"),
            ("greeter?version=%ff", "parameter", "percent-encoded"),
            ("greeter?version=%1b[2J", "parameter", "printable"),
            ("gree\u{1b}ter", "service", "use letters"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            let message = error.to_string();
            assert!(error.is_target() && message.contains(&format!(": {part}: ")), "{text:?}: {message}");
            assert!(
                message.contains(remedy) && !message.chars().any(char::is_control),
                "{text:?}: {message}"
            );
        }
    }
}
