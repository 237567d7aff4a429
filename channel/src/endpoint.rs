//! What the channel balances over: an [`Endpoint`] is an address with the facts that policies read. It comes in
//! through the `Discover`, is kept by the owner and shown to policies as part of a
//! [`Subchannel`](crate::Subchannel).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::Authority;
use tokio::time::Instant;

/// The weight of an endpoint that names none. Weights are relative; 100 leaves room below and above.
pub const DEFAULT_WEIGHT: u32 = 100;

/// The largest weight: sums over ten thousand endpoints stay far from overflow.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// Where an endpoint listens.
///
/// ```
/// use svc_channel::Address;
/// let tcp: Address = "10.0.0.1:50051".parse()?;
/// let v6: Address = "[::1]:50051".parse()?;
/// let unix: Address = "unix:/run/greeter.sock".parse()?;
/// assert_eq!(unix.to_string(), "unix:/run/greeter.sock");
/// assert!("10.0.0.1".parse::<Address>().is_err(), "a port is owed");
/// # Ok::<(), svc_channel::InvalidAddress>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host name or IP address and a port; names are resolved at every connect.
    Tcp(Authority),
    /// The path of a unix domain socket.
    Unix(PathBuf),
}

/// An address that cannot be dialled, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address:?}: {reason}; write host:port, [v6]:port or unix:/path")]
pub struct InvalidAddress {
    address: String,
    reason: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |reason| InvalidAddress { address: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid("no path")) } else { Ok(Self::Unix(path.into())) };
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let authority = Authority::from_str(bare).map_err(|_| invalid("not a host and port"))?;
        if bare.contains('@') {
            return Err(invalid("user information has no place here"));
        }
        if authority.host().is_empty() {
            return Err(invalid("no host"));
        }
        match authority.port_u16() {
            None => Err(invalid("no port")),
            Some(0) => Err(invalid("port 0 cannot be dialled")),
            Some(_) => Ok(Self::Tcp(authority)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One backend: an address, and the facts by which policies choose.
///
/// ```
/// use svc_channel::Endpoint;
/// let endpoint = Endpoint::new("10.0.0.1:50051")?.instance("greeter-1").weight(200).zone("a").tag("version", "v2");
/// assert_eq!(endpoint.address.to_string(), "10.0.0.1:50051");
/// # Ok::<(), svc_channel::InvalidAddress>(())
/// ```
///
/// # Defaults
/// One address; the instance is that address, the weight [`DEFAULT_WEIGHT`]; no zone, no tags, no wish for TLS, not held.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Other addresses of the same process, tried in order where the one before cannot be connected (gRPC's
    /// `pick_first` within an endpoint). All of them together have the connect timeout, each a fair part of what is left.
    pub further: Vec<Address>,
    /// The `:authority` of its requests; the address unless told otherwise.
    pub authority: Authority,
    /// The name by which errors, dumps and load accounting know it.
    pub instance: Arc<str>,
    /// Its share relative to the others', 0 to 1,000,000; 0 takes no traffic where a policy reads weights.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Anything else that is known of it.
    pub tags: BTreeMap<String, String>,
    /// It wants TLS: a channel without TLS says so instead of dialling it. A channel with TLS speaks it to all.
    pub secure: bool,
    /// Discovery has lost it but does not believe so yet: it serves on until then, is let go at once when its
    /// connection ends or leaves a PING unanswered for two seconds, and is never dialled again.
    pub held_until: Option<Instant>,
}

impl Endpoint {
    /// An endpoint at `address`: `host:port`, `[v6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// Where the address cannot be dialled as it is written.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        Ok(Self::from(Address::from_str(address.as_ref())?))
    }

    /// Adds an address at which the same process listens too, tried after the others.
    ///
    /// ```
    /// # use svc_channel::Endpoint;
    /// let endpoint = Endpoint::new("10.0.0.1:50051")?.or_at("[fd00::1]:50051")?;
    /// assert_eq!(endpoint.addresses().count(), 2);
    /// # Ok::<(), svc_channel::InvalidAddress>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn or_at(mut self, address: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        self.further.push(Address::from_str(address.as_ref())?);
        Ok(self)
    }

    /// All its addresses, in the order in which they are tried.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.address).chain(&self.further)
    }

    /// Sets the name by which errors, dumps and load accounting know it.
    #[must_use]
    pub fn instance(self, instance: impl Into<Arc<str>>) -> Self {
        Self { instance: instance.into(), ..self }
    }

    /// Sets the weight; what is above 1,000,000 counts as that.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight: weight.min(MAX_WEIGHT), ..self }
    }

    /// Sets the zone.
    #[must_use]
    pub fn zone(self, zone: impl Into<Arc<str>>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// The authority that it was given, if it is not its address's.
    pub(crate) fn given_authority(&self) -> Option<&Authority> {
        Some(&self.authority).filter(|authority| **authority != self.address.authority())
    }

    /// Marks it as held until `instant`, or as not held.
    #[must_use]
    pub fn held_until(self, instant: Option<Instant>) -> Self {
        Self { held_until: instant, ..self }
    }

    /// Says whether it wants TLS.
    #[must_use]
    pub fn secure(self, secure: bool) -> Self {
        Self { secure, ..self }
    }

    /// Sets the `:authority` of its requests, whose host is also the name that its certificate must be for.
    #[must_use]
    pub fn authority(self, authority: Authority) -> Self {
        Self { authority, ..self }
    }
}

impl Address {
    /// The authority of an endpoint that was given none.
    fn authority(&self) -> Authority {
        match self {
            Self::Tcp(authority) => authority.clone(),
            // A path is no authority; "localhost" is what grpc-go sends over unix sockets.
            Self::Unix(_) => Authority::from_static("localhost"),
        }
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        let authority = address.authority();
        Self {
            instance: address.to_string().into(),
            address,
            further: Vec::new(),
            authority,
            weight: DEFAULT_WEIGHT,
            zone: None,
            tags: BTreeMap::new(),
            secure: false,
            held_until: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_dialled_is_refused_with_the_remedy() {
        for bad in
            ["", "host", "host:", "host:0", "host:70000", ":1", "a b:1", "unix:", "u@h:1", "http://h:1/x"]
        {
            let error = bad.parse::<Address>().expect_err(bad).to_string();
            assert!(error.contains("write host:port"), "{error}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for good in ["h:1", "10.0.0.1:50051", "[::1]:50051", "unix:/a/b"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        assert_eq!("http://h:1".parse::<Address>().map(|a| a.to_string()), Ok("h:1".to_owned()));
        assert_eq!("unix:///a".parse::<Address>(), Ok(Address::Unix("/a".into())));
    }
}
