//! Who a node is and where it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name a node gives itself: 40 hexadecimal digits in Redis and Valkey, taken as they come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Arc<str>);

/// Where a node listens: `host:port`, the host a name or an IP address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Arc<str>);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Address {
    /// Reads `host:port`, `[v6]:port` or, as nodes write it, `v6:port`. An empty host stands for `known`, the host the
    /// node was reached at. `?` is how nodes name a host they do not know, as with `cluster-preferred-endpoint-type
    /// hostname` that of a node without a host name: it may be any, so that is no address.
    pub fn parse(text: &str, known: Option<&Self>) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        match host {
            "?" => None,
            "" => Some(Self(format!("{}:{port}", known?.host()).into())),
            _ => Some(Self(format!("{host}:{port}").into())),
        }
    }

    /// The host without brackets.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.as_ref().to_owned()
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text, None).ok_or_else(|| format!("{text:?} is not an address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let known = Address::parse("10.0.0.9:7000", None);
        let check = |text, expected: Option<&str>| {
            assert_eq!(
                Address::parse(text, known.as_ref()).map(|a| a.to_string()).as_deref(),
                expected,
                "{text}"
            );
        };
        check("127.0.0.1:7001", Some("127.0.0.1:7001"));
        check("[::1]:7001", Some("::1:7001"));
        check("::1:7001", Some("::1:7001"));
        check(":7001", Some("10.0.0.9:7001"));
        check("?:7001", None);
        check("node-1.example:7001", Some("node-1.example:7001"));
        check("host", None);
        check("host:0", None);
        check("host:99999", None);
        assert_eq!(Address::parse(":7001", None), None);
    }
}
