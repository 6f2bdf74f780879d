//! Who the members of a coordinator quorum are.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use headwater_protocol::id::BrokerId;

use super::{HostName, Optional, Value};

/// Where a member listens for the others, if it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerListen(SocketAddr);

impl PeerListen {
    /// The address and port.
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl Default for PeerListen {
    fn default() -> Self {
        Self(([127, 0, 0, 1], 0).into())
    }
}

impl Value for PeerListen {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let mut address = self.0;
        address.read(text)?;
        if address.port() == 0 {
            return Err("an address with a port, which the other members know".to_owned());
        }
        self.0 = address;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

impl Optional for PeerListen {
    const NONE: &'static [&'static str] = &["off"];
}

/// What a process is in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It serves clients, and is a member of the quorum.
    #[default]
    Both,
    /// It is a member of the quorum and nothing else.
    Coordinator,
}

impl Value for Role {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "both" => Self::Both,
            "coordinator" => Self::Coordinator,
            _ => return Err("\"both\" or \"coordinator\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Both => "both".to_owned(),
            Self::Coordinator => "coordinator".to_owned(),
        }
    }
}

/// What a coordinator spreads over the brokers by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Nothing.
    Off,
    /// Who is to lead a partition leads it again once it can.
    #[default]
    Leaders,
    /// Replicas move as well.
    Replicas,
}

impl Value for Balance {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "off" => Self::Off,
            "leaders" => Self::Leaders,
            "replicas" => Self::Replicas,
            _ => return Err("\"off\", \"leaders\" or \"replicas\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        let name = match self {
            Self::Off => "off",
            Self::Leaders => "leaders",
            Self::Replicas => "replicas",
        };
        name.to_owned()
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: HostName,
    port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.host.as_str(), self.port);
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

impl HostPort {
    fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host: HostName = inner.unwrap_or(host).parse().ok()?;
        let is_ambiguous = inner.is_none() && host.as_str().contains(':');
        let port = port.parse().ok().filter(|port| *port != 0 && !is_ambiguous)?;
        Some(HostPort { host, port })
    }
}

/// The members by number, each with where the others reach it. Written as `0@one.example:9293,1@two.example:9293`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(BTreeMap<BrokerId, HostPort>);

impl Members {
    /// All of them in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (BrokerId, &HostPort)> {
        self.0.iter().map(|(id, address)| (*id, address))
    }

    /// Where the others reach one of them.
    pub fn address(&self, id: BrokerId) -> Option<&HostPort> {
        self.0.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nobody is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for Members {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let expected =
            || "numbers of brokers with host and port, each once, such as 0@10.0.0.1:9293,1@10.0.0.2:9293".to_owned();
        let mut members = BTreeMap::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (number, address) = part.trim().split_once('@').ok_or_else(expected)?;
            let mut id = BrokerId::new(0);
            id.read(number)?;
            let address = HostPort::parse(address).ok_or_else(expected)?;
            if members.insert(id, address).is_some() {
                return Err(expected());
            }
        }
        self.0 = members;
        Ok(())
    }

    fn show(&self) -> String {
        let members = self.iter().map(|(id, address)| format!("{id}@{address}"));
        members.collect::<Vec<_>>().join(",")
    }
}
