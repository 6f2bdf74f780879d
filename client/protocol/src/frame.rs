//! The native protocol's frame: a fixed header, a FlatBuffers head, then a raw payload.
//!
//! ```text
//! 0          4       6          8                  12           16            16 + head_size
//! | size u32 | api u16 | version u16 | correlation_id u32 | head_size u32 | head … | payload … |
//! ```
//!
//! All little endian; `size` counts what follows it. Requests and responses have the same form, and a response repeats
//! the api, version and correlation id of its request. Responses may come in any order.

use crate::head::{self, Head};
use crate::id::CorrelationId;

/// Bytes in a frame's header, the size field included.
pub const HEADER_LEN: usize = 16;

/// Bytes in the size field, which does not count itself.
const SIZE_LEN: usize = 4;

/// Defines the enum and its tables from one row for each api, so that they cannot disagree.
macro_rules! apis {
    ($($(#[$doc:meta])* $Api:ident = $number:literal, $name:literal;)+) => {
        /// What a request asks for, and its response answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Api { $($(#[$doc])* $Api = $number,)+ }

        impl Api {
            const ALL: &[Self] = &[$(Self::$Api,)+];

            /// The api with this number.
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$Api),)+
                    _ => None,
                }
            }

            /// What it is called in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Api => $name,)+ }
            }
        }
    };
}

apis! {
    /// Only a response: to a request of which the broker understood no more than the frame's header.
    Error = 0, "error";
    /// The first exchange on a connection: which apis and versions the broker speaks, and its limits.
    ApiVersions = 1, "api_versions";
    /// Brokers, topics, partitions, and the core that owns each partition.
    Metadata = 2, "metadata";
    /// Creates a topic.
    CreateTopic = 3, "create_topic";
    /// Deletes a topic with its records.
    DeleteTopic = 4, "delete_topic";
    /// Configuration and partitions of one topic.
    DescribeTopic = 5, "describe_topic";
    /// An identity for an idempotent producer.
    InitProducerId = 6, "init_producer_id";
    /// Appends record batches to one partition.
    Produce = 7, "produce";
    /// Reads record batches from partitions.
    Fetch = 8, "fetch";
    /// Looks up offsets by timestamp.
    ListOffsets = 9, "list_offsets";
    /// Deletes the oldest records of a partition.
    DeleteRecords = 10, "delete_records";
    /// Changes the configuration of a topic, or gives it more partitions.
    AlterTopic = 11, "alter_topic";
    /// The settings in force on a broker.
    DescribeBroker = 12, "describe_broker";
    /// Which broker and core runs a group.
    FindGroup = 13, "find_group";
    /// Becomes a member of a group, or stays one in its next generation.
    JoinGroup = 14, "join_group";
    /// Hands in or asks for the assignment of a generation.
    SyncGroup = 15, "sync_group";
    /// Says that a member is alive, and asks whether the group rebalances.
    Heartbeat = 16, "heartbeat";
    /// Takes members out of a group.
    LeaveGroup = 17, "leave_group";
    /// Commits offsets of a group.
    OffsetCommit = 18, "offset_commit";
    /// Committed offsets of a group.
    OffsetFetch = 19, "offset_fetch";
    /// Forgets committed offsets of a group.
    OffsetDelete = 20, "offset_delete";
    /// The groups that a broker runs.
    ListGroups = 21, "list_groups";
    /// State and members of one group.
    DescribeGroup = 22, "describe_group";
    /// Deletes an empty group with its offsets.
    DeleteGroup = 23, "delete_group";
    /// The members of the coordinator quorum, and how they are.
    DescribeQuorum = 24, "describe_quorum";
    /// Makes others members of the coordinator quorum.
    AddQuorumMembers = 25, "add_quorum_members";
    /// Takes a member out of the coordinator quorum.
    RemoveQuorumMember = 26, "remove_quorum_member";
    /// The brokers of the cluster, and how its partitions are.
    ListBrokers = 27, "list_brokers";
    /// Has a broker get no further replicas, or get them again.
    CordonBroker = 28, "cordon_broker";
    /// Takes a broker out of the cluster that is not there any more.
    ForgetBroker = 29, "forget_broker";
    /// Moves all replicas of a broker to others.
    DrainBroker = 30, "drain_broker";
    /// Has other replicas lead partitions.
    ElectLeaders = 31, "elect_leaders";
    /// Moves partitions to other brokers.
    ReassignPartitions = 32, "reassign_partitions";
    /// Has the cluster be at another feature level.
    FinaliseFeatures = 33, "finalise_features";
    /// Proves who the client is.
    Authenticate = 34, "authenticate";
    /// The rules about who may do what.
    DescribeAcls = 35, "describe_acls";
    /// Makes rules.
    CreateAcls = 36, "create_acls";
    /// Removes rules.
    DeleteAcls = 37, "delete_acls";
    /// The users that have passwords.
    DescribeUsers = 38, "describe_users";
    /// Gives a user a password.
    SetUser = 39, "set_user";
    /// Takes a user's passwords away.
    RemoveUser = 40, "remove_user";
    /// What users, clients and addresses may use.
    DescribeQuotas = 41, "describe_quotas";
    /// Says what one of them may use.
    AlterQuotas = 42, "alter_quotas";
}

impl Api {
    /// Every api that can be requested.
    pub const REQUESTS: &[Self] = Self::ALL.split_at(1).1;

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// The lowest and the highest version that this crate's schema describes.
    pub const fn versions(self) -> (u16, u16) {
        (0, 0)
    }
}

/// A frame's header. From [`FrameHeader::parse`] its sizes are consistent and within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The api's number, as it came; [`Api::from_u16`] tells whether it is known.
    pub api: u16,
    /// The version of the api.
    pub version: u16,
    /// Ties the response to the request.
    pub correlation_id: CorrelationId,
    /// Bytes in the head.
    pub head_size: u32,
    /// Bytes in the payload.
    payload_size: u32,
}

impl FrameHeader {
    /// The header of a frame with a head and a payload of these sizes in bytes; `None` if no frame can be that large.
    pub fn new(api: u16, version: u16, correlation_id: CorrelationId, head: usize, payload: usize) -> Option<Self> {
        let head_size = u32::try_from(head).ok()?;
        let payload_size = u32::try_from(payload).ok()?;
        let rest = (HEADER_LEN - SIZE_LEN) as u32;
        rest.checked_add(head_size)?.checked_add(payload_size)?;
        Some(Self {
            api,
            version,
            correlation_id,
            head_size,
            payload_size,
        })
    }

    /// Reads the header at the start of `bytes`; `None` while there are fewer than [`HEADER_LEN`] of them.
    ///
    /// `frame_size_max` limits the size field, which is looked at as soon as it is there: who speaks another protocol may say
    /// less than a header and wait for an answer. After an error the stream cannot be read any further, as it is not known
    /// where the next frame begins; the error has the correlation id, so that it can be answered before closing.
    pub fn parse(bytes: &[u8], frame_size_max: u32) -> Result<Option<Self>, FrameError> {
        let too_large = |size, correlation_id| FrameError::TooLarge {
            correlation_id,
            size,
            max: frame_size_max,
        };
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            let size = bytes.first_chunk().map(|size| u32::from_le_bytes(*size));
            let size = size.filter(|size| *size > frame_size_max);
            return size.map_or(Ok(None), |size| Err(too_large(size, CorrelationId::new(0))));
        };
        let size = u32_at(header, 0);
        let correlation_id = CorrelationId::new(u32_at(header, 8));
        let head_size = u32_at(header, 12);
        if size > frame_size_max {
            return Err(too_large(size, correlation_id));
        }
        let rest = (HEADER_LEN - SIZE_LEN) as u32;
        let Some(payload_size) = size.checked_sub(rest).and_then(|body| body.checked_sub(head_size)) else {
            return Err(FrameError::HeadBeyondFrame {
                correlation_id,
                size,
                head_size,
            });
        };
        let api = u16::from_le_bytes([header[4], header[5]]);
        let version = u16::from_le_bytes([header[6], header[7]]);
        Ok(Some(Self {
            api,
            version,
            correlation_id,
            head_size,
            payload_size,
        }))
    }

    /// Bytes in the whole frame, the size field included.
    pub const fn frame_len(&self) -> usize {
        HEADER_LEN + self.head_size as usize + self.payload_size as usize
    }

    /// Bytes in the head.
    pub const fn head_len(&self) -> usize {
        self.head_size as usize
    }

    /// Bytes in the payload.
    pub const fn payload_len(&self) -> usize {
        self.payload_size as usize
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let size = (HEADER_LEN - SIZE_LEN) as u32 + self.head_size + self.payload_size;
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&size.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.api.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.correlation_id.get().to_le_bytes());
        bytes[12..16].copy_from_slice(&self.head_size.to_le_bytes());
        bytes
    }
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Why a stream cannot be read as frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than the reader allows.
    #[error("a frame of {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// From the frame's header; 0 if that has not come.
        correlation_id: CorrelationId,
        /// Bytes that follow the size field.
        size: u32,
        /// The reader's limit.
        max: u32,
    },
    /// The frame ends before its header or its head does.
    #[error("a frame of {size} bytes cannot hold its header and a head of {head_size} bytes")]
    HeadBeyondFrame {
        /// From the frame's header.
        correlation_id: CorrelationId,
        /// Bytes that follow the size field.
        size: u32,
        /// Bytes in the head.
        head_size: u32,
    },
}

impl FrameError {
    /// The correlation id in the header that was refused, for a reply.
    pub const fn correlation_id(&self) -> CorrelationId {
        match *self {
            Self::TooLarge { correlation_id, .. } | Self::HeadBeyondFrame { correlation_id, .. } => correlation_id,
        }
    }
}

/// The header and the head of a frame, padding included; `payload_len` bytes of payload are to be written after it.
///
/// `head` is a finished `FlatBuffer`. The payload is not taken here, so that it is never copied into a frame.
///
/// # Panics
/// When the frame would be larger than `u32::MAX` bytes; both sides keep to limits far below.
pub fn encode(api: Api, version: u16, correlation_id: CorrelationId, head: &[u8], payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + head.len().next_multiple_of(head::ALIGNMENT));
    append(api, version, correlation_id, head, payload_len, &mut bytes);
    bytes
}

fn append(
    api: Api,
    version: u16,
    correlation_id: CorrelationId,
    head: &[u8],
    payload_len: usize,
    frames: &mut Vec<u8>,
) {
    let head_len = head.len().next_multiple_of(head::ALIGNMENT);
    let header = FrameHeader::new(api.as_u16(), version, correlation_id, head_len, payload_len)
        .expect("a frame never passes 4 GiB: heads are small and payloads within the peer's frame limit");
    let end = frames.len() + HEADER_LEN + head_len;
    frames.extend_from_slice(&header.encode());
    frames.extend_from_slice(head);
    frames.resize(end, 0);
}

/// [`encode`] for a head in its owned form, with the api that it belongs to.
///
/// # Panics
/// As [`encode`] does.
pub fn encode_head<H: Head>(head: &H, version: u16, correlation_id: CorrelationId, payload_len: usize) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    head.finish(&mut builder);
    encode(H::API, version, correlation_id, builder.finished_data(), payload_len)
}

/// Appends to `frames` what [`encode_head`] makes. The head is made in the memory of `builder`, which is kept for the next.
///
/// # Panics
/// As [`encode`] does.
pub fn append_head<H: Head>(
    head: &H,
    version: u16,
    correlation_id: CorrelationId,
    payload_len: usize,
    builder: &mut flatbuffers::FlatBufferBuilder<'_>,
    frames: &mut Vec<u8>,
) {
    builder.reset();
    head.finish(builder);
    append(
        H::API,
        version,
        correlation_id,
        builder.finished_data(),
        payload_len,
        frames,
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use flatbuffers::FlatBufferBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::schema::ProduceResponseT;

    proptest! {
        #[test]
        fn any_header_reads_back(api: u16, version: u16, id: u32, head in 0..1_usize << 31, payload in 0..1_usize << 30) {
            let header = FrameHeader::new(api, version, CorrelationId::new(id), head, payload).unwrap();
            prop_assert_eq!(FrameHeader::parse(&header.encode(), u32::MAX), Ok(Some(header)));
            prop_assert_eq!((header.head_len(), header.payload_len()), (head, payload));
        }

        #[test]
        fn any_sixteen_bytes_are_a_header_or_refused(bytes: [u8; HEADER_LEN], max: u32) {
            if let Ok(header) = FrameHeader::parse(&bytes, max) {
                prop_assert_eq!(header.map(|header| header.encode()), Some(bytes));
            }
        }
    }

    const MAX: u32 = 1 << 20;

    fn header(size: u32, head_size: u32) -> Vec<u8> {
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[7, 0, 2, 0, 9, 0, 0, 0]);
        bytes.extend_from_slice(&head_size.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_is_little_endian_and_reads_back() {
        let header = FrameHeader::new(0x0102, 0x0304, CorrelationId::new(0x0506_0708), 24, 1000).unwrap();
        let bytes = header.encode();
        assert_eq!(bytes, [0x0c, 4, 0, 0, 2, 1, 4, 3, 8, 7, 6, 5, 24, 0, 0, 0]);
        assert_eq!(FrameHeader::parse(&bytes, MAX), Ok(Some(header)));
        assert_eq!(header.frame_len(), 16 + 24 + 1000);
        assert_eq!(header.payload_len(), 1000);
    }

    #[test]
    fn a_header_that_is_not_all_there_is_waited_for() {
        let bytes = header(12, 0);
        for len in 0..HEADER_LEN {
            assert_eq!(FrameHeader::parse(&bytes[..len], MAX), Ok(None));
        }
        let parsed = FrameHeader::parse(&bytes, MAX).unwrap().unwrap();
        assert_eq!(
            (parsed.api, parsed.version, parsed.frame_len(), parsed.payload_len()),
            (7, 2, 16, 0)
        );
    }

    #[test]
    fn sizes_that_contradict_each_other_or_the_limit_are_refused_with_the_correlation_id() {
        let correlation_id = CorrelationId::new(9);
        let too_large = FrameHeader::parse(&header(MAX + 1, 0), MAX);
        assert_eq!(
            too_large,
            Err(FrameError::TooLarge {
                correlation_id,
                size: MAX + 1,
                max: MAX
            })
        );
        assert!(FrameHeader::parse(&header(MAX, MAX - 12), MAX).unwrap().is_some());
        for (size, head_size) in [(0, 0), (11, 0), (12, 1), (100, 89), (100, u32::MAX)] {
            let error = FrameHeader::parse(&header(size, head_size), MAX).unwrap_err();
            assert_eq!(
                error,
                FrameError::HeadBeyondFrame {
                    correlation_id,
                    size,
                    head_size
                }
            );
            assert_eq!(error.correlation_id(), correlation_id);
        }
        assert!(FrameHeader::parse(&header(u32::MAX, 0), u32::MAX).unwrap().is_some());
    }

    #[test]
    fn encoded_heads_are_padded_and_counted() {
        let bytes = encode(Api::Produce, 0, CorrelationId::new(3), &[1, 2, 3], 100);
        let header = FrameHeader::parse(&bytes, MAX).unwrap().unwrap();
        assert_eq!(bytes[HEADER_LEN..], [1, 2, 3, 0, 0, 0, 0, 0]);
        assert_eq!(
            (header.head_len(), header.payload_len(), header.frame_len()),
            (8, 100, 16 + 8 + 100)
        );
        assert_eq!(Api::from_u16(header.api), Some(Api::Produce));
    }

    #[test]
    fn frames_made_in_the_same_memory_are_those_made_apart() {
        let heads = [None, Some("a".repeat(1_000)), Some("b".to_owned()), None].map(|message| ProduceResponseT {
            message,
            ..ProduceResponseT::default()
        });
        let (mut builder, mut frames, mut apart) = (FlatBufferBuilder::new(), Vec::new(), Vec::new());
        for (number, head) in (0..).zip(&heads) {
            let (id, payload_len) = (CorrelationId::new(number), 100);
            append_head(head, 0, id, payload_len, &mut builder, &mut frames);
            apart.extend(encode_head(head, 0, id, payload_len));
        }
        assert_eq!(frames, apart);
    }

    #[test]
    fn every_api_has_a_name_of_its_own() {
        let names: HashSet<&str> = Api::REQUESTS.iter().map(|api| api.name()).collect();
        assert_eq!(names.len(), Api::REQUESTS.len());
    }

    #[test]
    fn api_numbers_read_back_and_others_are_unknown() {
        let known: Vec<u16> = (0..=u16::MAX)
            .filter(|&number| Api::from_u16(number).is_some())
            .collect();
        assert_eq!(known, (0..=42).collect::<Vec<_>>());
        for &api in Api::REQUESTS {
            assert_eq!(Api::from_u16(api.as_u16()), Some(api));
        }
    }
}
