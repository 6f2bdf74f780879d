//! Whether a part of a produce request may be taken in, as far as the request and the forms of records tell it.

use std::{borrow::Cow, time::Duration};

use headwater_kafka::{
    TopicRef,
    produce::{Part, Request},
};
use headwater_protocol::{
    batch::{self, BatchHeader},
    error::ErrorCode,
    id::Timestamp,
};

use crate::{
    model::{
        access::{Asker, Operation, ResourceKind},
        id::PartitionId,
        internal,
        records::Acks,
        refusal::Refusal,
        transaction::{Adding, Producer},
    },
    ops::{self, transactions::Within},
    session::kafka::asking::{find_topic, find_topic_by_id, partition_of},
};

/// No producer waits longer for replicas, which bounds for how long they keep what its request holds.
const REPLICAS_WAIT_MAX: Duration = Duration::from_mins(5);

/// From this version on a broker may be given records that are compressed with zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// From this version on clients know of transactions that can only be aborted.
pub(super) const ABORTABLE_FROM: i16 = 10;

/// From this version on the broker makes partitions part of transactions (KIP-890).
pub(super) const ADDS_FROM: i16 = 12;

/// Where they lie in a batch.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 22;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;

const PRODUCER_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;

/// Bytes before those that the length counts.
const LENGTH_END: usize = 12;

/// What the attributes say.
const CODEC: u8 = 7;
const ZSTD: u8 = 4;
const APPEND_TIME: u8 = 8;
const TRANSACTIONAL: u8 = 16;

/// Records that may be taken in.
pub(super) struct Judged<'a> {
    pub(super) id: PartitionId,
    pub(super) acks: Acks,
    pub(super) records: Cow<'a, [u8]>,
    /// In which transaction, if they are in one.
    pub(super) within: Option<Within>,
}

pub(super) fn judge<'a>(
    (ops, asker): (&ops::Ops, &Asker),
    request: &Request<'_>,
    part: &Part<'_>,
    (version, records): (i16, &'a [u8]),
) -> Result<Judged<'a>, Refusal> {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All {
            within: Duration::from_millis(request.timeout_ms.max(0).cast_unsigned().into()).min(REPLICAS_WAIT_MAX),
        },
        other => {
            let message = format!("acks is {other}; it may be 0 (none), 1 (leader) or -1 (all)");
            return Err(Refusal::new(ErrorCode::InvalidRequiredAcks, message));
        }
    };
    if let Some(id) = request.transactional_id {
        ops.judge(asker)
            .need(Operation::Write, (ResourceKind::TransactionalId, id))?;
    }
    let id = find(ops, asker, part).map_err(|code| Refusal::new(code, code.description()))?;
    check_form(version, records)?;
    let within = within(request, (version, records))?;
    let records = in_order(records).map_or(Cow::Borrowed(records), Cow::Owned);
    Ok(Judged {
        id,
        acks,
        records,
        within,
    })
}

/// In which transaction the records say they are: one batch, as of every producer that numbers them. Called of whole batches.
fn within(request: &Request<'_>, (version, records): (i16, &[u8])) -> Result<Option<Within>, Refusal> {
    let attributes = records.get(ATTRIBUTES_AT).copied().unwrap_or_default();
    if attributes & TRANSACTIONAL == 0 {
        return Ok(None);
    }
    let Some(id) = request.transactional_id else {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        return Err(Refusal::new(
            code,
            "the records are in a transaction, and the request does not say in which",
        ));
    };
    let (Some(producer), Some(epoch)) = (time_at(records, PRODUCER_AT), records.get(PRODUCER_EPOCH_AT..)) else {
        return Err(Refusal::new(ErrorCode::InvalidRecord, "a record batch is cut off"));
    };
    let epoch = epoch.first_chunk().map_or(-1, |epoch| i16::from_be_bytes(*epoch));
    let adding = if version >= ADDS_FROM {
        Adding::Add
    } else {
        Adding::Verify
    };
    Ok(Some(Within {
        id: id.to_owned(),
        producer: Producer::new(producer, epoch),
        adding,
    }))
}

fn find(ops: &ops::Ops, asker: &Asker, part: &Part<'_>) -> Result<PartitionId, ErrorCode> {
    let image = ops.partitions.image();
    let may = |name: &str| {
        let may = ops.judge(asker).need(Operation::Write, (ResourceKind::Topic, name));
        may.map_err(|refusal| refusal.code)
    };
    let topic = match part.topic {
        TopicRef::Name(name) => {
            may(name)?;
            find_topic(&image, name)?
        }
        TopicRef::Id(id) => {
            let topic = find_topic_by_id(&image, id)?;
            may(topic.name.as_str())?;
            topic
        }
    };
    if internal::is_internal(topic.name.as_str()) {
        return Err(ErrorCode::InvalidTopicException);
    }
    partition_of(topic, part.partition)
}

/// What this protocol says of forms of records that no other has: whole batches of magic 2, which have not been anywhere else, and
/// zstd where it may be.
fn check_form(version: i16, records: &[u8]) -> Result<(), Refusal> {
    let refuse = |code, message: String| Err(Refusal::new(code, message));
    if records.is_empty() {
        return refuse(ErrorCode::InvalidRecord, "there is no record batch".to_owned());
    }
    let mut rest = records;
    while !rest.is_empty() {
        let cut = || "a record batch is cut off".to_owned();
        let (Some(length), Some(magic)) = (i32_at(rest, LENGTH_AT), rest.get(MAGIC_AT)) else {
            return refuse(ErrorCode::InvalidRecord, cut());
        };
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| LENGTH_END + length > MAGIC_AT)
        else {
            let message = format!("a record batch says that it has {length} bytes");
            return refuse(ErrorCode::CorruptMessage, message);
        };
        let Some((batch, after)) = rest.split_at_checked(LENGTH_END + length) else {
            return refuse(ErrorCode::InvalidRecord, cut());
        };
        rest = after;
        match magic {
            2 => {}
            0..=1 => {
                let message = format!("the records have the form of magic {magic}, which is older than record batches");
                return refuse(ErrorCode::InvalidRecord, message);
            }
            _ => {
                let message = format!("Invalid magic found in record: {magic}");
                return refuse(ErrorCode::CorruptMessage, message);
            }
        }
        let attributes = batch.get(ATTRIBUTES_AT).copied().unwrap_or_default();
        if version < ZSTD_FROM && attributes & CODEC == ZSTD {
            let message = "zstd may be used from version 7 of produce requests on";
            return refuse(ErrorCode::UnsupportedCompressionType, message.to_owned());
        }
    }
    Ok(())
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(i32::from_be_bytes(*field))
}

fn time_at(batch: &[u8], at: usize) -> Option<i64> {
    let field = batch.get(at..)?.first_chunk()?;
    Some(i64::from_be_bytes(*field))
}

/// A copy of a lone batch that says that its latest timestamp is before its first, as some clients have it that write down the last
/// record's: of the copy the first is. The log finds out which it is. `None` if it is right, or not whole: then nothing is mended.
fn in_order(batch: &[u8]) -> Option<Vec<u8>> {
    let (base, max) = (time_at(batch, BASE_TIMESTAMP_AT)?, time_at(batch, MAX_TIMESTAMP_AT)?);
    let is_theirs = batch.get(ATTRIBUTES_AT)? & APPEND_TIME == 0;
    let is_alone = usize::try_from(i32_at(batch, LENGTH_AT)?).ok()? + LENGTH_END == batch.len();
    if max >= base || !is_theirs || !is_alone {
        return None;
    }
    let mut mended = batch.to_vec();
    // The checksum must have been right before.
    batch::set_max_timestamp(&mut mended, Timestamp::new(max));
    let crc = |batch: &[u8]| i32_at(batch, CRC_AT);
    if crc(&mended) != crc(batch) {
        return None;
    }
    batch::set_max_timestamp(&mut mended, Timestamp::new(base));
    BatchHeader::read(&mended).is_ok().then_some(mended)
}
