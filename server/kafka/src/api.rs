//! Which request has which number, at which versions, and with which headers.

include!(concat!(env!("OUT_DIR"), "/apis.rs"));

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Its number.
    pub key: ApiKey,
    /// Kafka's name of it, such as `ListOffsets`.
    pub name: &'static str,
    /// The first version that can be served.
    pub version_min: i16,
    /// The last version that can be offered. One more may be known, which Kafka still calls unstable.
    pub version_max: i16,
    /// The first version in the flexible form (KIP-482); `i16::MAX` if none is.
    pub flexible_from: i16,
    /// The first version whose answers begin with `ThrottleTimeMs`; `i16::MAX` if none do.
    pub throttle_from: i16,
}

impl ApiKey {
    /// The number.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// Whether this version can be served.
    pub const fn serves(self, version: i16) -> bool {
        let api = self.api();
        api.version_min <= version && version <= api.version_max
    }

    /// The version of the request's header.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if version >= self.api().flexible_from { 2 } else { 1 }
    }

    /// The version of the response's header. That of `ApiVersions` is always 0: its client does not yet know what the broker can do.
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ if version >= self.api().flexible_from => 1,
            _ => 0,
        }
    }
}
