//! The form of everything that the quorum writes to disk or sends to a peer: a byte that says which version of the form it is,
//! and postcard. Fields are known by their place and variants by their number, so both are only ever added at the end, under the
//! next version if an older broker could not do without them; it is written only at the feature level that unlocks it
//! (`replicas/features.rs`).

use serde::{Serialize, de::DeserializeOwned};

/// The version that this broker writes. It reads the first one too, which knew nothing of brokers and replicas, and the third, which
/// knew nothing of Kafka's protocol; the second was never released.
pub(super) const FORMAT_VERSION: u8 = 4;

/// The version of a state in which somebody may do something, or there are users.
pub(super) const WITH_ACCESS: u8 = 5;

/// The version of a state in which somebody has a quota.
pub(super) const WITH_QUOTAS: u8 = 6;

/// Why bytes cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// There are none.
    #[error("there is nothing to read")]
    Empty,
    /// Nobody, or another version of the broker, wrote them.
    #[error(
        "they are in format version {found}, but this broker knows only 1, 3, {FORMAT_VERSION}, {WITH_ACCESS} and {WITH_QUOTAS}: run the broker that wrote them"
    )]
    Version {
        /// What they say.
        found: u8,
    },
    /// They are not what they should be.
    #[error("they cannot be read: {source}")]
    Malformed {
        /// Why not.
        #[from]
        source: postcard::Error,
    },
    /// More follows than what was read.
    #[error("{len} bytes follow behind the end")]
    Trailing {
        /// How many.
        len: usize,
    },
}

/// Writes a value.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let bytes = postcard::to_extend(value, vec![FORMAT_VERSION]);
    bytes.expect("a vector takes all bytes, and every sequence of ours has a known length")
}

/// Writes a state in a version that it needs for what is in it.
pub(super) fn encode_as(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = encode(value);
    bytes[0] = version;
    bytes
}

/// The version in which a value was written.
pub(super) fn version(bytes: &[u8]) -> Result<u8, CodecError> {
    match *bytes.first().ok_or(CodecError::Empty)? {
        version @ (1 | 3 | FORMAT_VERSION | WITH_ACCESS | WITH_QUOTAS) => Ok(version),
        found => Err(CodecError::Version { found }),
    }
}

/// Reads a value, which must be all that is there. What is allocated is in proportion to the bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    version(bytes)?;
    let bytes = &bytes[1..];
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::Trailing { len: rest.len() })
    }
}
