//! Texts and lists of a closed form: identities, hosts, CPUs, and how logs are written.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use tracing_subscriber::EnvFilter;

use super::{Optional, Value};

macro_rules! text {
    ($(#[$doc:meta])* $Type:ident or $none:literal, $valid:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $Type(String);

        impl $Type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Value for $Type {
            fn read(&mut self, text: &str) -> Result<(), String> {
                let valid: fn(&str) -> bool = $valid;
                if !valid(text) {
                    return Err($expected.to_owned());
                }
                text.clone_into(&mut self.0);
                Ok(())
            }

            fn show(&self) -> String {
                self.0.clone()
            }
        }

        impl Optional for $Type {
            const NONE: &'static [&'static str] = &[$none];
        }

        impl std::str::FromStr for $Type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut value = Self::default();
                value.read(text)?;
                Ok(value)
            }
        }
    };
}

text!(
    /// Identity of a cluster: 1 to 64 of `[a-zA-Z0-9_-]`, by default a UUID.
    ClusterId or "auto",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
    "1 to 64 letters, digits, _ and -"
);

impl ClusterId {
    /// A new identity, which no other cluster has if the UUID is random.
    pub fn from_uuid(id: uuid::Uuid) -> Self {
        Self(id.to_string())
    }
}

text!(
    /// Name or IP address of a host, as clients resolve it (RFC 1123 limits it to 253 characters).
    HostName or "auto",
    |text| text.parse::<std::net::IpAddr>().is_ok_and(|ip| !ip.is_unspecified())
        || ((1..=253).contains(&text.len())
            && text.parse::<std::net::IpAddr>().is_err()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))),
    "a host name or an IP address, without a port"
);

text!(
    /// What a broker has in common with those that fail with it: 1 to 64 of `[a-zA-Z0-9._-]`.
    Rack or "none",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
    "1 to 64 letters, digits, ., _ and -"
);

/// CPUs by number, in rising order. Written as in taskset: `0,2-3`. Empty: not chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u16>);

impl CpuSet {
    /// Largest number of a CPU that Linux is built for (`CONFIG_NR_CPUS`).
    const CPU_MAX: u16 = 8191;

    /// The CPUs in rising order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// How many CPUs were chosen.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if none was chosen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u16> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u16>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl Value for CpuSet {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let expected = || format!("CPU numbers up to {}, such as 0,2-3", Self::CPU_MAX);
        let number = |part: &str| {
            part.trim()
                .parse()
                .ok()
                .filter(|cpu| *cpu <= Self::CPU_MAX)
                .ok_or_else(expected)
        };
        let mut cpus = BTreeSet::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (number(first)?, number(last)?);
            if first > last {
                return Err(expected());
            }
            cpus.extend(first..=last);
        }
        self.0 = cpus;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Form of the lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}

impl Value for LogFormat {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return Err("\"text\" or \"json\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

/// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter for the subscriber. What openraft has to say is for its developers, unless somebody wants to hear it.
    pub fn env_filter(&self) -> EnvFilter {
        EnvFilter::new(format!("openraft=error,{}", self.0))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Value for LogFilter {
    fn read(&mut self, text: &str) -> Result<(), String> {
        EnvFilter::try_new(text)
            .map_err(|error| format!("directives such as \"info,headwater_engine=debug\" ({error})"))?;
        text.clone_into(&mut self.0);
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where an HTTP endpoint listens, if it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress(SocketAddr);

impl HttpAddress {
    /// Listens there; port 0 takes any free port.
    pub const fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// The address and port.
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl Default for HttpAddress {
    fn default() -> Self {
        Self((Ipv4Addr::LOCALHOST, 0).into())
    }
}

impl Value for HttpAddress {
    fn read(&mut self, text: &str) -> Result<(), String> {
        self.0.read(text)
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

impl Optional for HttpAddress {
    const NONE: &'static [&'static str] = &["off"];
}
