//! `host:port`, the one form in which an address travels.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// The longest host: what DNS allows.
const MAX_HOST: usize = 253;

/// Where an instance is dialled: a host name or an IP address, and a port above 0. IPv6 is bracketed.
///
/// ```
/// use svc_registry::record::Address;
/// let address: Address = "[::1]:50051".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 50051));
/// assert!("10.0.0.1:0".parse::<Address>().is_err());
/// # Ok::<(), svc_registry::record::InvalidAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

/// An address that was refused, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {address:?} is invalid: {why}; write host:port, IPv6 as [::1]:50051")]
pub struct InvalidAddress {
    address: String,
    why: &'static str,
}

impl Address {
    /// Checks `host:port`.
    pub fn new(address: &str) -> Result<Self, InvalidAddress> {
        match parts(address) {
            Ok(_) => Ok(Self(address.into())),
            Err(why) => Err(InvalidAddress { address: address.chars().take(MAX_HOST + 8).collect(), why }),
        }
    }

    /// The host, IPv6 without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }

    /// `0.0.0.0` and `::` can be listened on, but nobody can be sent there.
    pub fn is_unspecified(&self) -> bool {
        self.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Reaches only the machine that it is used on.
    pub fn is_loopback(&self) -> bool {
        self.host().eq_ignore_ascii_case("localhost")
            || self.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as shared text.
    pub fn to_arc(&self) -> Arc<str> {
        self.0.clone()
    }
}

fn parts(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("it has no port")?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or("its port is no number from 1 to 65535")?;
    if port == 0 {
        return Err("port 0 cannot be dialled");
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bracketed {
        Some(ip)
            if ip.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) && printable(ip) =>
        {
            Ok((ip, port))
        }
        Some(_) => Err("what stands in brackets is no IPv6 address"),
        None if host.is_empty() => Err("it has no host"),
        None if host.contains(':') => Err("an IPv6 address needs brackets"),
        None if host.len() > MAX_HOST => Err("its host is longer than DNS allows"),
        None if !printable(host) => Err("its host holds characters that no host has"),
        None => Ok((host, port)),
    }
}

/// Letters of any script are let through (an internationalised name), nothing that steers a terminal or a URL.
fn printable(host: &str) -> bool {
    host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'))
}

impl From<SocketAddr> for Address {
    /// Port 0 and unspecified hosts are the caller's to replace before.
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(s: &str) -> Result<Self, InvalidAddress> {
        Self::new(s)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_come_apart() {
        for (text, host, port) in [
            ("10.0.0.1:50051", "10.0.0.1", 50051),
            ("greeter.local:1", "greeter.local", 1),
            ("[::1]:65535", "::1", 65535),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ] {
            let address = Address::new(text).unwrap();
            assert_eq!((address.host(), address.port()), (host, port));
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for bad in [
            "",
            ":",
            "h",
            "h:",
            ":80",
            "h:0",
            "h:70000",
            "h:-1",
            "h:+80",
            "h:8 0",
            "::1:80",
            "[::1]",
            "[h]:80",
            "a b:80",
            "a/b:80",
            "h\u{1b}[2J:80",
            "[::1%\u{7}]:80",
            "user@h:80",
        ] {
            let error = Address::new(bad).unwrap_err().to_string();
            assert!(error.contains("host:port") && !error.contains('\u{1b}'), "{bad:?}: {error}");
        }
    }

    #[test]
    fn addresses_that_need_care_are_known() {
        assert!(Address::new("0.0.0.0:1").unwrap().is_unspecified());
        assert!(Address::new("[::]:1").unwrap().is_unspecified());
        assert!(!Address::new("10.0.0.1:1").unwrap().is_unspecified());
        assert!(Address::new("127.0.0.1:1").unwrap().is_loopback());
        assert!(Address::new("localhost:1").unwrap().is_loopback());
    }
}
