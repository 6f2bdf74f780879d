//! The records of a group of type consumer: one for each thing that changes by itself, so that a heartbeat writes little.
//!
//! ```text
//! key    version i16 = 3: group            value  version i16 = 0: epoch i32; tag 0: hash of the topics i64
//!        version i16 = 5: group, member           who the member is, and what it subscribes to; tag 0: how it speaks the classic protocol
//!        version i16 = 6: group                   the epoch of the target assignment i32
//!        version i16 = 7: group, member           partitions that it is to have
//!        version i16 = 8: group, member           epoch i32, previous i32, state i8, partitions that it has, and that it gives up
//! ```
//! Source: Kafka's `ConsumerGroupMetadataValue.json`, `ConsumerGroupMemberMetadataValue.json`,
//! `ConsumerGroupTargetAssignmentMetadataValue.json`, `ConsumerGroupTargetAssignmentMemberValue.json`,
//! `ConsumerGroupCurrentMemberAssignmentValue.json`. What patterns match (16) is found out anew instead.

use bytes::Bytes;
use headwater_protocol::classic::{ClassicError, Reader, Writer};

use super::{
    Record, duration,
    flexible::{In, Out},
    millis,
};
use crate::{
    coordinator::groups::consumers::state::{Classic, Current, State, Subscriber},
    model::{
        consumer::{ServerAssignor, Share},
        group::{Client, GroupId, InstanceId, MemberId, Protocol},
    },
};

const EPOCH_KEY: i16 = 3;
const MEMBER_KEY: i16 = 5;
const TARGET_EPOCH_KEY: i16 = 6;
const TARGET_KEY: i16 = 7;
const CURRENT_KEY: i16 = 8;

/// What a record says. Without a value it takes back what an earlier one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Epoch(Option<Epoch>),
    Member(MemberId, Option<Subscriber>),
    TargetEpoch(Option<i32>),
    Target(MemberId, Option<Share>),
    Current(MemberId, Option<Current>),
}

/// How often the group has changed, and what its topics were then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) epoch: i32,
    pub(crate) hash: i64,
}

impl Told {
    pub(super) fn write_key<'a>(&self, group: &GroupId, writer: &'a mut Writer) -> &'a mut Writer {
        let number = match self {
            Told::Epoch(_) => EPOCH_KEY,
            Told::Member(..) => MEMBER_KEY,
            Told::TargetEpoch(_) => TARGET_EPOCH_KEY,
            Told::Target(..) => TARGET_KEY,
            Told::Current(..) => CURRENT_KEY,
        };
        writer.i16(number).string(group.as_str());
        match self {
            Told::Epoch(_) | Told::TargetEpoch(_) => writer,
            Told::Member(member, _) | Told::Target(member, _) | Told::Current(member, _) => {
                writer.string(member.as_str())
            }
        }
    }

    pub(super) fn value(&self) -> Option<Vec<u8>> {
        let mut out = Out::value();
        match self {
            Told::Epoch(epoch) => {
                let epoch = epoch.as_ref()?;
                let mut hash = Out::default();
                hash.i64(epoch.hash);
                out.i32(epoch.epoch).tag(0, &hash);
            }
            Told::Member(_, subscriber) => write_subscriber(subscriber.as_ref()?, &mut out),
            Told::TargetEpoch(epoch) => {
                out.i32((*epoch)?).no_tags();
            }
            Told::Target(_, share) => {
                out.share(share.as_ref()?).no_tags();
            }
            Told::Current(_, current) => {
                let current = current.as_ref()?;
                out.i32(current.epoch).i32(current.previous_epoch);
                out.i8(current.state.number()).share(&current.assigned);
                out.share(&current.revoking).no_tags();
            }
        }
        Some(out.take())
    }
}

fn write_subscriber(subscriber: &Subscriber, out: &mut Out) {
    out.nullable(subscriber.instance.as_ref().map(InstanceId::as_str));
    out.nullable(subscriber.rack.as_deref());
    out.string(&subscriber.client.id).string(&subscriber.client.host);
    out.count(subscriber.topics.len());
    for topic in &subscriber.topics {
        out.string(topic);
    }
    out.nullable(subscriber.pattern.as_deref());
    out.i32(millis(subscriber.rebalance_timeout));
    out.nullable(subscriber.assignor.map(ServerAssignor::name));
    let Some(classic) = &subscriber.classic else {
        out.no_tags();
        return;
    };
    let mut field = Out::default();
    // It is not null.
    field.i8(1).i32(millis(classic.session_timeout));
    field.count(classic.protocols.len());
    for protocol in &classic.protocols {
        field.string(&protocol.name).bytes(&protocol.metadata).no_tags();
    }
    field.no_tags();
    out.tag(0, &field);
}

fn read_subscriber(bytes: &[u8]) -> Result<Subscriber, ClassicError> {
    let mut fields = In::value(bytes, "a ConsumerGroupMemberMetadataValue")?;
    let mut subscriber = Subscriber {
        instance: fields.nullable()?.map(InstanceId::new),
        rack: fields.nullable()?.map(str::to_owned),
        client: Client {
            id: fields.string()?.to_owned(),
            host: fields.string()?.to_owned(),
        },
        ..Subscriber::default()
    };
    for _ in 0..fields.count()? {
        subscriber.topics.insert(fields.string()?.to_owned());
    }
    subscriber.pattern = fields
        .nullable()?
        .filter(|pattern| !pattern.is_empty())
        .map(str::to_owned);
    subscriber.rebalance_timeout = duration(fields.i32()?);
    subscriber.assignor = fields.nullable()?.and_then(ServerAssignor::named);
    subscriber.classic = fields.tag(0)?.map(read_classic).transpose()?.flatten();
    Ok(subscriber)
}

fn read_classic(mut fields: In<'_>) -> Result<Option<Classic>, ClassicError> {
    if fields.i8()? < 0 {
        return Ok(None);
    }
    let mut classic = Classic {
        session_timeout: duration(fields.i32()?),
        protocols: Vec::new(),
    };
    for _ in 0..fields.count()? {
        let name = fields.string()?.to_owned();
        let metadata = Bytes::copy_from_slice(fields.bytes()?);
        fields.tag(usize::MAX)?;
        classic.protocols.push(Protocol { name, metadata });
    }
    Ok(Some(classic))
}

fn read_current(bytes: &[u8]) -> Result<Current, ClassicError> {
    let mut fields = In::value(bytes, "a ConsumerGroupCurrentMemberAssignmentValue")?;
    Ok(Current {
        epoch: fields.i32()?,
        previous_epoch: fields.i32()?,
        state: State::numbered(fields.i8()?),
        assigned: fields.share()?,
        revoking: fields.share()?,
    })
}

/// Reads a record whose key begins with this number; `None` if it is none of ours.
pub(super) fn decode(number: i16, key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<Option<Record>, ClassicError> {
    if ![EPOCH_KEY, MEMBER_KEY, TARGET_EPOCH_KEY, TARGET_KEY, CURRENT_KEY].contains(&number) {
        return Ok(None);
    }
    let group = GroupId::new(key.string()?);
    let mut member = || key.string().map(MemberId::new);
    let told = match number {
        EPOCH_KEY => Told::Epoch(value.map(read_epoch).transpose()?),
        MEMBER_KEY => Told::Member(member()?, value.map(read_subscriber).transpose()?),
        TARGET_EPOCH_KEY => {
            let read = |value| In::value(value, "a ConsumerGroupTargetAssignmentMetadataValue")?.i32();
            Told::TargetEpoch(value.map(read).transpose()?)
        }
        TARGET_KEY => {
            let read = |value| In::value(value, "a ConsumerGroupTargetAssignmentMemberValue")?.share();
            Told::Target(member()?, value.map(read).transpose()?)
        }
        _ => Told::Current(member()?, value.map(read_current).transpose()?),
    };
    Ok(Some(Record::Consumer { group, told }))
}

fn read_epoch(bytes: &[u8]) -> Result<Epoch, ClassicError> {
    let mut fields = In::value(bytes, "a ConsumerGroupMetadataValue")?;
    let epoch = fields.i32()?;
    let hash = fields.tag(0)?.map(|mut field| field.i64()).transpose()?;
    Ok(Epoch {
        epoch,
        hash: hash.unwrap_or(0),
    })
}
