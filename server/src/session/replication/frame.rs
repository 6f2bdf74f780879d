//! The frame: what kind it is, how large it may be, and what its head is made in.

use flatbuffers::{FlatBufferBuilder, WIPOffset};
use headwater_protocol::{frame::FrameHeader, head::ALIGNMENT, id::CorrelationId};

use super::error::PeerError;

/// The version of the protocol that this broker speaks.
pub(super) const VERSION: u16 = 0;

/// What a frame is. Beyond the numbers of the native protocol's apis, so that neither is taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    /// Who speaks.
    Hello = 1000,
    /// What a follower has and wants, and a leader's answers.
    Fetch = 1001,
    /// What comes before all that where brokers share a secret.
    Proof = 1002,
    /// Something that is done for a transaction. It says who speaks itself.
    Errand = 1003,
}

/// What a frame with this header is; `greeted` is whether the other side has said who it is, which comes first and once.
pub(crate) fn kind_of(header: &FrameHeader, greeted: bool) -> Result<Kind, PeerError> {
    let kind = match header.api {
        1000 if !greeted => Kind::Hello,
        1001 if greeted => Kind::Fetch,
        1002 if !greeted => return Err(PeerError::NoSecret),
        other => return Err(PeerError::Kind(other)),
    };
    if header.version != VERSION {
        let version = header.version;
        return Err(PeerError::Version {
            min: version,
            max: version,
            ours: VERSION,
        });
    }
    if kind == Kind::Hello && header.payload_len() > 0 {
        return Err(PeerError::Contradiction("a hello has no records"));
    }
    Ok(kind)
}

/// Header and head of a frame; `records` bytes follow.
///
/// # Panics
/// If the frame would be larger than 4 GiB: both sides keep to limits far below.
pub(crate) fn begin(kind: Kind, head: &[u8], records: usize) -> Vec<u8> {
    let header = FrameHeader::new(kind as u16, VERSION, CorrelationId::new(0), head.len(), records);
    let header = header.expect("frames between brokers never pass 4 GiB: records are read by a limit far below");
    [&header.encode()[..], head].concat()
}

/// The bytes of a head.
pub(super) fn finished<T>(mut builder: FlatBufferBuilder<'_>, root: WIPOffset<T>) -> Vec<u8> {
    builder.finish_minimal(root);
    let mut bytes = builder.finished_data().to_vec();
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}
