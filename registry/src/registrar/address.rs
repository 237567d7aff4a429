//! The address and the id under which an instance is found, where its user names none.
//!
//! Advertised is what the user says; else the address listened on; else, where that is unspecified (`0.0.0.0`), the
//! local address of the route towards etcd, which is one that the network can reach. Where no port is advertised it is the
//! bound one; port 0 is refused, for what is published elsewhere is hardly the bound one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::error::Error;
use crate::name::InstanceId;
use crate::record::Address;

/// The address to register for a server that listens on `bound`.
///
/// # Errors
/// `advertise` is not `host[:port]` or unspecified; or nothing is advertised, the server listens on every address,
/// and neither a route towards etcd nor the default route tells which one clients can reach.
pub(crate) async fn advertised(
    advertise: Option<&str>,
    bound: SocketAddr,
    etcd: &[String],
) -> Result<Address, Error> {
    if let Some(text) = advertise {
        return parse(text, bound.port());
    }
    let ip = if bound.ip().is_unspecified() { route(etcd, bound.is_ipv4()).await? } else { bound.ip() };
    Ok(Address::from(SocketAddr::new(ip, bound.port())))
}

/// `host[:port]`; without a port it is the bound one.
fn parse(text: &str, bound: u16) -> Result<Address, Error> {
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let full = if bare_v6 {
        format!("[{text}]:{bound}")
    } else if text.contains(':') && !text.ends_with(']') {
        text.to_owned()
    } else {
        format!("{text}:{bound}")
    };
    let address: Address = full.parse().map_err(|error| {
        match text.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0u16)) {
            true => Error::config(
                "advertise",
                format_args!("{error}; leave the port out for the one listened on"),
            ),
            false => Error::config("advertise", error),
        }
    })?;
    if address.is_unspecified() {
        let reason = format!("{text} cannot be dialled; give an address of this host");
        return Err(Error::config("advertise", reason));
    }
    Ok(address)
}

/// How long the look-up of one name may hold up a start.
const RESOLVE: Duration = Duration::from_secs(2);

/// An address of a network that nobody has (RFC 5737), and one of IPv6 (RFC 3849): the route to it is the default route.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The local address of the route towards the first member that resolves. Where no name resolves now, that of the default
/// route: a service starts although etcd's names are not known yet.
async fn route(etcd: &[String], v4: bool) -> Result<IpAddr, Error> {
    let mut resolved = false;
    for member in etcd {
        // A resolver that is away itself does not say so.
        let Ok(Ok(addresses)) = tokio::time::timeout(RESOLVE, tokio::net::lookup_host(member)).await else {
            continue;
        };
        resolved = true;
        if let Some(local) = addresses.filter_map(|to| towards(to, v4)).next() {
            return Ok(local);
        }
    }
    if !resolved && let Some(local) = ELSEWHERE.into_iter().filter_map(|to| towards(to, v4)).next() {
        tracing::warn!(
            address = %local,
            "no etcd endpoint resolves, so that of the default route is advertised; where that is wrong say --advertise"
        );
        return Ok(local);
    }
    Err(Error::config(
        "advertise",
        "listening on every address, and no route to etcd tells which one clients reach; say --advertise HOST[:PORT]",
    ))
}

/// The local address of the route to there. A connected UDP socket sends nothing.
fn towards(to: SocketAddr, v4: bool) -> Option<IpAddr> {
    // A socket bound to 0.0.0.0 takes no IPv6 connections.
    if v4 && !to.is_ipv4() {
        return None;
    }
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

/// Whether clients on other hosts cannot reach what is advertised, although etcd is on another host.
pub(crate) fn is_out_of_reach(address: &Address, etcd: &[String]) -> bool {
    let local = |member: &String| member.parse::<Address>().is_ok_and(|member| member.is_loopback());
    address.is_loopback() && !etcd.iter().any(local)
}

/// The id where none is given: `<hostname>-<port>`. It is stable as long as the port is.
pub(crate) fn default_id(port: u16) -> Result<InstanceId, Error> {
    let host = gethostname::gethostname();
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let host: String = host.to_string_lossy().chars().map(|c| if valid(c) { c } else { '-' }).collect();
    let host = host.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let host: String = if host.is_empty() { "host".to_owned() } else { host.chars().take(200).collect() };
    InstanceId::new(&format!("{host}-{port}")).map_err(|error| Error::config("id", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(advertise: Option<&str>, bound: &str, etcd: &[&str]) -> Result<String, Error> {
        let etcd: Vec<String> = etcd.iter().map(ToString::to_string).collect();
        advertised(advertise, bound.parse().unwrap(), &etcd).await.map(|address| address.to_string())
    }

    #[tokio::test]
    async fn what_is_said_counts_then_what_is_listened_on_then_the_route() {
        assert_eq!(of(Some("h:1"), "10.0.0.1:5", &[]).await.unwrap(), "h:1");
        assert_eq!(of(Some("h"), "10.0.0.1:5", &[]).await.unwrap(), "h:5", "the bound port");
        assert_eq!(of(Some("10.0.0.2"), "10.0.0.1:5", &[]).await.unwrap(), "10.0.0.2:5");
        assert_eq!(of(Some("::1"), "10.0.0.1:5", &[]).await.unwrap(), "[::1]:5");
        assert_eq!(of(Some("[::1]"), "10.0.0.1:5", &[]).await.unwrap(), "[::1]:5");
        assert_eq!(of(None, "10.0.0.1:5", &[]).await.unwrap(), "10.0.0.1:5");
        assert_eq!(of(None, "0.0.0.0:5", &["127.0.0.1:2379"]).await.unwrap(), "127.0.0.1:5");
    }

    #[tokio::test]
    async fn an_unspecified_address_is_never_advertised() {
        for (advertise, bound) in [(Some("0.0.0.0:1"), "10.0.0.1:5"), (Some("[::]:1"), "10.0.0.1:5")] {
            let error = of(advertise, bound, &[]).await.expect_err("refused");
            assert!(error.to_string().starts_with("advertise"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_of_etcd_that_is_not_known_yet_keeps_no_service_from_starting() {
        let advertised = of(None, "0.0.0.0:5", &["no-such-host.invalid:1"]).await;
        match (towards(ELSEWHERE[0], true), advertised) {
            (Some(local), advertised) => assert_eq!(advertised.unwrap(), format!("{local}:5")),
            // A host without a network.
            (None, advertised) => assert!(advertised.unwrap_err().to_string().contains("--advertise")),
        }
    }

    #[tokio::test]
    async fn port_0_is_never_advertised() {
        for advertise in ["h:0", "h:00", "[::1]:0"] {
            let error = of(Some(advertise), "10.0.0.1:5", &[]).await.expect_err(advertise).to_string();
            assert!(error.starts_with("advertise: ") && error.contains("leave the port out"), "{error}");
        }
    }

    #[test]
    fn loopback_with_an_etcd_elsewhere_is_out_of_reach() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let elsewhere = ["10.0.0.9:2379".to_owned()];
        assert!(is_out_of_reach(&address("127.0.0.1:5"), &elsewhere));
        assert!(!is_out_of_reach(&address("10.0.0.1:5"), &elsewhere));
        assert!(!is_out_of_reach(&address("127.0.0.1:5"), &["127.0.0.1:2379".to_owned()]));
    }

    #[test]
    fn the_default_id_is_a_valid_name_with_the_port() {
        assert!(default_id(50051).unwrap().as_str().ends_with("-50051"));
    }
}
