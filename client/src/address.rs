//! Host and port of a listener, as written in a bootstrap list or given by a broker's metadata.
//!
//! Names are resolved at each connect, never here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;

/// `host:port`, or `[v6]:port`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    /// An address from its parts; `host` is a name or an IP address, without brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: Arc::from(host),
            port,
        }
    }

    /// Name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host, another port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self {
            host: Arc::clone(&self.host),
            port,
        }
    }

    /// Parses a list separated by commas, as `Client::connect` takes it.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, Error> {
        list.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::parse)
            .collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::config("bootstrap", format!("{text:?} is not host:port: {reason}"));
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .ok_or_else(|| bad("the bracket is not closed"))?,
            None if host.contains(':') => return Err(bad("an IPv6 address goes in brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        let port = port
            .parse()
            .map_err(|source| bad(&format!("the port is no number up to 65535 ({source})")))?;
        Ok(Self::new(host, port))
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_kinds_of_ip_addresses_are_read_and_shown_alike() {
        for text in ["localhost:9092", "10.0.0.1:1", "[::1]:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]:7".parse::<Address>().unwrap().host(), "::1");
    }

    #[test]
    fn a_list_may_have_spaces_and_a_trailing_comma() {
        let list = Address::parse_list("a:1, b:2,").unwrap();
        assert_eq!(list, [Address::new("a", 1), Address::new("b", 2)]);
        assert!(Address::parse_list("").unwrap().is_empty());
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_with_it() {
        for (text, reason) in [
            ("localhost", "port is missing"),
            (":9092", "host is missing"),
            ("h:99999", "no number"),
            ("::1:9092", "brackets"),
            ("[::1:9092", "not closed"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
