//! The first frame of each side: who it is, and whom it means to reach.

use flatbuffers::FlatBufferBuilder;
use headwater_protocol::{
    error::ErrorCode,
    head,
    id::{BrokerId, CoreId},
    schema::{ReplicaHelloRequest, ReplicaHelloRequestT, ReplicaHelloResponse, ReplicaHelloResponseT},
};

use super::{
    error::PeerError,
    frame::{VERSION, finished},
};
use crate::image::{Incarnation, Member};

/// Bytes of a cluster's id, or of a message, that are kept of the other side's.
const TEXT_LEN_MAX: usize = 256;

/// Who connects, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster_id: String,
    pub(crate) from: Member,
    pub(crate) core: CoreId,
    /// Of two streams of one core, the later has the higher one.
    pub(crate) connection: u64,
    pub(crate) to: BrokerId,
    pub(crate) to_core: CoreId,
}

/// The answer of whoever was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) incarnation: Incarnation,
}

impl Hello {
    /// The head of the frame.
    pub(crate) fn head(&self) -> Vec<u8> {
        let table = ReplicaHelloRequestT {
            version_min: VERSION,
            version_max: VERSION,
            cluster_id: Some(self.cluster_id.clone()),
            broker_id: self.from.broker.get(),
            incarnation: self.from.incarnation.get(),
            core: self.core.get(),
            connection: self.connection,
            to_broker_id: self.to.get(),
            to_core: self.to_core.get(),
        };
        let mut builder = FlatBufferBuilder::new();
        let root = table.pack(&mut builder);
        finished(builder, root)
    }

    /// Reads the head of the first frame of whoever has connected.
    pub(crate) fn read(head: &[u8]) -> Result<Hello, PeerError> {
        let hello = head::decode::<ReplicaHelloRequest>(head)?;
        let (min, max) = (hello.version_min(), hello.version_max());
        if !(min..=max).contains(&VERSION) {
            return Err(PeerError::Version {
                min,
                max,
                ours: VERSION,
            });
        }
        Ok(Hello {
            cluster_id: shortened(hello.cluster_id()),
            from: Member {
                broker: BrokerId::new(hello.broker_id()),
                incarnation: Incarnation::new(hello.incarnation()),
            },
            core: CoreId::new(hello.core()),
            connection: hello.connection(),
            to: BrokerId::new(hello.to_broker_id()),
            to_core: CoreId::new(hello.to_core()),
        })
    }
}

/// The head of the frame that answers a hello.
pub(crate) fn write_welcome(welcome: Result<&Welcome, &PeerError>) -> Vec<u8> {
    let table = match welcome {
        Ok(welcome) => ReplicaHelloResponseT {
            version: VERSION,
            incarnation: welcome.incarnation.get(),
            ..ReplicaHelloResponseT::default()
        },
        Err(why) => ReplicaHelloResponseT {
            error: why.code().as_i16(),
            message: Some(why.to_string()),
            ..ReplicaHelloResponseT::default()
        },
    };
    let mut builder = FlatBufferBuilder::new();
    let root = table.pack(&mut builder);
    finished(builder, root)
}

/// Reads the head of the answer: the code and the reason of one who refuses are for the log.
pub(crate) fn read_welcome(head: &[u8]) -> Result<Result<Welcome, (ErrorCode, String)>, PeerError> {
    let answer = head::decode_response::<ReplicaHelloResponse>(head)?;
    let code = ErrorCode::from_i16(answer.error());
    if !code.is_none() {
        return Ok(Err((code, shortened(answer.message()))));
    }
    if answer.version() != VERSION {
        let version = answer.version();
        return Err(PeerError::Version {
            min: version,
            max: version,
            ours: VERSION,
        });
    }
    let incarnation = Incarnation::new(answer.incarnation());
    Ok(Ok(Welcome { incarnation }))
}

fn shortened(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    text[..text.floor_char_boundary(TEXT_LEN_MAX.min(text.len()))].to_owned()
}
