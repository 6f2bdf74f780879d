//! The records of `__consumer_offsets`, in Kafka's own format, so that Kafka's tools read them.
//!
//! ```text
//! key    version i16 = 0, 1: group, topic strings, partition i32                 (OffsetCommitKey)
//!        version i16 = 2:    group string                                        (GroupMetadataKey)
//! value  version i16 = 3:    offset i64, leader epoch i32, metadata string, commit timestamp i64
//!        version i16 = 3:    protocol type, generation i32, protocol, leader, since i64, members …
//! ```
//! Those of groups of type consumer are in [`consumer`].
//! Older versions of values are read; keys that are not known are left alone. No value: the key is deleted.
//! Source: Kafka's `OffsetCommitKey.json`, `OffsetCommitValue.json`, `GroupMetadataKey.json`, `GroupMetadataValue.json`.

pub(crate) mod consumer;
pub(in crate::coordinator) mod flexible;
mod size;
mod stored;

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::{
    classic::{ClassicError, Reader, Writer},
    id::LeaderEpoch,
};

use crate::model::group::{Client, Committed, Generation, GroupId, InstanceId, MemberId, Since, Timeouts};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;

/// Bytes in the shortest member of a [`StoredGroup`]: three strings, two numbers, two lists of bytes, in version 0.
const MEMBER_LEN_MIN: usize = 3 * 2 + 4 + 2 * 4;

/// One record; without a value it deletes what an earlier one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Offset {
        group: GroupId,
        topic: String,
        partition: i32,
        value: Option<Committed>,
    },
    Group {
        group: GroupId,
        value: Option<StoredGroup>,
    },
    /// Of a group of type consumer.
    Consumer {
        group: GroupId,
        told: consumer::Told,
    },
}

/// A group at the end of a rebalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    /// Empty if it never had members.
    pub(crate) protocol_type: String,
    pub(crate) generation: Generation,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<MemberId>,
    pub(crate) since: Since,
    pub(crate) members: Vec<StoredMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMember {
    pub(crate) id: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) client: Client,
    pub(crate) timeouts: Timeouts,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

impl Record {
    /// The key of the record.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Record::Offset {
                group,
                topic,
                partition,
                ..
            } => writer
                .i16(OFFSET_KEY)
                .string(group.as_str())
                .string(topic)
                .i32(*partition),
            Record::Group { group, .. } => writer.i16(GROUP_KEY).string(group.as_str()),
            Record::Consumer { group, told } => told.write_key(group, &mut writer),
        };
        writer.into_bytes()
    }

    /// The value of the record; none for one that deletes.
    pub(crate) fn value(&self) -> Option<Vec<u8>> {
        match self {
            Record::Offset { value, .. } => value.as_ref().map(encode_offset),
            Record::Group { value, .. } => value.as_ref().map(encode_group),
            Record::Consumer { told, .. } => told.value(),
        }
    }

    /// Reads a record; `None` if its key is none of ours.
    pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, ClassicError> {
        let mut reader = Reader::new(key);
        Ok(match reader.i16()? {
            0 | OFFSET_KEY => Some(Record::Offset {
                group: GroupId::new(reader.string()?),
                topic: reader.string()?.to_owned(),
                partition: reader.i32()?,
                value: value.map(decode_offset).transpose()?,
            }),
            GROUP_KEY => Some(Record::Group {
                group: GroupId::new(reader.string()?),
                value: value.map(decode_group).transpose()?,
            }),
            number => consumer::decode(number, &mut reader, value)?,
        })
    }
}

fn encode_offset(committed: &Committed) -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .i16(OFFSET_VALUE)
        .i64(committed.offset)
        .i32(committed.leader_epoch.get());
    writer.string(&committed.metadata).i64(committed.at.clock().get());
    writer.into_bytes()
}

fn decode_offset(bytes: &[u8]) -> Result<Committed, ClassicError> {
    let mut reader = Reader::new(bytes);
    let version = version(&mut reader, OFFSET_VALUE, "an OffsetCommitValue")?;
    let offset = reader.i64()?;
    let leader_epoch = match version {
        3 => LeaderEpoch::new(reader.i32()?),
        _ => LeaderEpoch::NONE,
    };
    Ok(Committed {
        offset,
        leader_epoch,
        metadata: reader.string()?.to_owned(),
        // In version 1 the time of expiry follows; expiry is the broker's matter since.
        at: Since::from(reader.i64()?),
    })
}

fn encode_group(group: &StoredGroup) -> Vec<u8> {
    let mut writer = Writer::new();
    writer
        .i16(GROUP_VALUE)
        .string(&group.protocol_type)
        .i32(group.generation.get());
    writer.nullable_string(group.protocol.as_deref());
    writer.nullable_string(group.leader.as_ref().map(MemberId::as_str));
    writer.i64(group.since.clock().get()).count(group.members.len());
    for member in &group.members {
        writer.string(member.id.as_str());
        writer.nullable_string(member.instance.as_ref().map(InstanceId::as_str));
        writer.string(&member.client.id).string(&member.client.host);
        writer
            .i32(millis(member.timeouts.rebalance))
            .i32(millis(member.timeouts.session));
        writer
            .nullable_bytes(Some(&member.subscription))
            .nullable_bytes(Some(&member.assignment));
    }
    writer.into_bytes()
}

fn decode_group(bytes: &[u8]) -> Result<StoredGroup, ClassicError> {
    let mut reader = Reader::new(bytes);
    let version = version(&mut reader, GROUP_VALUE, "a GroupMetadataValue")?;
    let mut group = StoredGroup {
        protocol_type: reader.string()?.to_owned(),
        generation: Generation::new(reader.i32()?),
        protocol: reader.nullable_string()?.map(str::to_owned),
        leader: reader.nullable_string()?.map(MemberId::new),
        since: match version {
            2.. => Since::from(reader.i64()?),
            _ => Since::UNKNOWN,
        },
        members: Vec::new(),
    };
    for _ in 0..reader.count(MEMBER_LEN_MIN)? {
        let id = MemberId::new(reader.string()?);
        let instance = match version {
            3 => reader.nullable_string()?.map(InstanceId::new),
            _ => None,
        };
        let client = Client {
            id: reader.string()?.to_owned(),
            host: reader.string()?.to_owned(),
        };
        let rebalance = if version >= 1 {
            Some(duration(reader.i32()?))
        } else {
            None
        };
        let session = duration(reader.i32()?);
        group.members.push(StoredMember {
            id,
            instance,
            client,
            timeouts: Timeouts {
                session,
                rebalance: rebalance.unwrap_or(session),
            },
            subscription: Bytes::copy_from_slice(reader.bytes()?),
            assignment: Bytes::copy_from_slice(reader.bytes()?),
        });
    }
    Ok(group)
}

fn version(reader: &mut Reader<'_>, newest: i16, what: &'static str) -> Result<i16, ClassicError> {
    let version = reader.i16()?;
    if (0..=newest).contains(&version) {
        Ok(version)
    } else {
        Err(ClassicError::Version { what, version })
    }
}

/// Timeouts come as 32 bits of milliseconds, so they go back into them.
fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn duration(millis: i32) -> Duration {
    Duration::from_millis(millis.max(1).cast_unsigned().into())
}

#[cfg(test)]
mod tests;
