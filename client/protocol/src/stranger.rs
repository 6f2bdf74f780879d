//! What a peer speaks that does not speak this protocol, as far as its first bytes tell.
//!
//! Only for bytes that could not be read as a frame: to say what is there instead, never to decide what to do with it.

/// A protocol that is met on a wrong port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stranger {
    /// A web browser, a scraper of metrics, a health check; or a web server.
    Http,
    /// An encrypted connection.
    Tls,
    /// A client of Apache Kafka.
    Kafka,
}

impl Stranger {
    /// Every stranger that is told apart.
    pub const ALL: [Self; 3] = [Self::Http, Self::Tls, Self::Kafka];

    /// Its name in lower case, as metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Kafka => "kafka",
        }
    }

    /// Who begins a request or a response so, if it is one of them. For Kafka only requests are known.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        const HTTP: [&[u8]; 9] = [
            b"HTTP", b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"CONN", b"PRI ",
        ];
        if HTTP.iter().any(|begin| bytes.starts_with(begin)) {
            return Some(Self::Http);
        }
        match *bytes {
            // RFC 8446, 5.1: an alert or a handshake, under any version since SSL 3.0.
            [0x15 | 0x16, 3, 0..=4, ..] => Some(Self::Tls),
            // Size, api key, and version, big endian; there are about a hundred apis with up to twenty versions.
            [0, _, _, _, 0, 0..=127, 0, 0..=31, ..] => Some(Self::Kafka),
            _ => None,
        }
    }
}

impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Kafka => "Kafka's protocol",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_begin_with_is_told_by_its_name() {
        // ClientHello; fatal alert protocol_version; ApiVersions 0 and 4.
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        let alert = [0x15, 3, 3, 0, 2, 2, 70];
        let versions = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        for (bytes, stranger) in [
            (&b"GET /metrics HTTP/1.1\r\n"[..], Some(Stranger::Http)),
            (b"HTTP/1.1 400 Bad Request\r\n", Some(Stranger::Http)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Stranger::Http)),
            (&hello, Some(Stranger::Tls)),
            (&alert, Some(Stranger::Tls)),
            (&versions, Some(Stranger::Kafka)),
            (b"SSH-2.0-OpenSSH_9.6\r\n", None),
            (b"GE", None),
            (&[], None),
        ] {
            assert_eq!(Stranger::of(bytes), stranger, "{bytes:?}");
        }
    }
}
