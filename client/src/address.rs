//! Host and port of a listener, as written in a bootstrap list or given by a broker's metadata.
//!
//! Names are resolved at each connect, never here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;

/// Where a broker listens unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 9292;

/// `host:port`, or `[v6]:port`; without a port it is [`DEFAULT_PORT`]. Cheap to clone.
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
        if text.contains("://") {
            return Err(bad("leave out what is before the host"));
        }
        let (host, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => DEFAULT_PORT,
            None => return Err(bad("a colon comes before the port")),
            Some(port) if port.contains(':') => return Err(bad("an IPv6 address goes in brackets, as [::1]:9292")),
            Some(port) => port
                .parse()
                .map_err(|source| bad(&format!("the port is no number up to 65535 ({source})")))?,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(bad("the host is missing, or has a space in it"));
        }
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
    fn without_a_port_it_is_the_one_where_brokers_listen() {
        for text in ["localhost", "10.0.0.1", "[::1]", "broker-1.example"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), format!("{text}:9292"));
        }
    }

    #[test]
    fn a_list_may_have_spaces_and_a_trailing_comma() {
        let list = Address::parse_list("a:1, b:2, c,").unwrap();
        assert_eq!(
            list,
            [Address::new("a", 1), Address::new("b", 2), Address::new("c", 9292)]
        );
        assert!(Address::parse_list("").unwrap().is_empty());
    }

    #[test]
    fn a_malformed_address_says_what_is_wrong_with_it() {
        for (text, reason) in [
            (":9092", "host is missing"),
            ("no host", "space"),
            ("h:", "no number"),
            ("h:99999", "no number"),
            ("::1:9092", "brackets"),
            ("fe80::1", "brackets"),
            ("[::1:9092", "not closed"),
            ("[::1]9092", "colon"),
            ("http://h:9644", "before the host"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
