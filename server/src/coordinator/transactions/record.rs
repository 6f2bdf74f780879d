//! The records of `__transaction_state`, in Kafka's own format, so that Kafka's tools read them.
//!
//! ```text
//! key    version i16 = 0:  transactional id string                                                   (TransactionLogKey)
//! value  version i16 = 0, 1: producer id i64, epoch i16, time-out i32, state i8, partitions by topic or null,
//!                          last update i64, beginning i64                                            (TransactionLogValue)
//!        1 is flexible, with tags: 0 the producer id before, 1 the next, 2 the version of the client's transactions
//! ```
//! Version 1 is written, both are read. No value: the transactional id is forgotten.

use std::collections::BTreeSet;

use headwater_protocol::{
    classic::{ClassicError, Reader, Writer},
    id::{ProducerEpoch, ProducerId, Timestamp},
};

use crate::{
    coordinator::groups::record::flexible::{In, Out},
    model::transaction::{Phase, Place, Producer, TransactionalId},
};

const KEY: i16 = 0;
const VALUE: i16 = 1;
/// As it is in memory when an id is being forgotten; of no use afterwards.
const DEAD: i8 = 6;

const PREVIOUS_TAG: usize = 0;
const NEXT_TAG: usize = 1;
const CLIENT_TAG: usize = 2;

/// Bytes of the shortest topic in version 0: its name and the number of its partitions.
const TOPIC_LEN_MIN: usize = 2 + 4;

/// What is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) producer: Producer,
    /// Whom it was before its epochs were used up.
    pub(crate) previous: ProducerId,
    /// Whom it becomes once the transaction is complete, as its epochs are used up.
    pub(crate) next: ProducerId,
    pub(crate) timeout_ms: i32,
    pub(crate) phase: Phase,
    pub(crate) places: BTreeSet<Place>,
    pub(crate) updated: Timestamp,
    pub(crate) began: Timestamp,
    /// 2: the epoch rises with each end.
    pub(crate) client_version: i16,
}

impl State {
    /// Of an id that is new.
    pub(crate) fn new(timeout_ms: i32, now: Timestamp) -> State {
        State {
            producer: Producer::NONE,
            previous: ProducerId::NONE,
            next: ProducerId::NONE,
            timeout_ms,
            phase: Phase::Empty,
            places: BTreeSet::new(),
            updated: now,
            began: Timestamp::NONE,
            client_version: 0,
        }
    }
}

/// One record; without a value it deletes what an earlier one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: TransactionalId,
    pub(crate) value: Option<State>,
}

impl Record {
    /// The key of the record.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.i16(KEY).string(self.id.as_str());
        writer.into_bytes()
    }

    /// The value of the record; none for one that deletes.
    pub(crate) fn value(&self) -> Option<Vec<u8>> {
        self.value.as_ref().map(encode)
    }

    /// Reads a record; `None` if its key is none of ours.
    pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, ClassicError> {
        let mut reader = Reader::new(key);
        if reader.i16()? != KEY {
            return Ok(None);
        }
        let id = TransactionalId::new(reader.string()?);
        let value = value.map(decode).transpose()?.flatten();
        Ok(Some(Record { id, value }))
    }
}

fn encode(state: &State) -> Vec<u8> {
    let mut out = Out::default();
    let (producer, epoch) = (state.producer.id.get(), state.producer.epoch.get());
    out.i16(VALUE).i64(producer).i16(epoch).i32(state.timeout_ms);
    out.i8(state.phase.number());
    let places: Vec<&Place> = state.places.iter().collect();
    let topics: Vec<&[&Place]> = places.chunk_by(|(one, _), (other, _)| one == other).collect();
    out.count(topics.len());
    for topic in topics {
        out.string(&topic[0].0).count(topic.len());
        for (_, partition) in topic {
            out.i32(*partition);
        }
        out.no_tags();
    }
    out.i64(state.updated.get()).i64(state.began.get());
    let mut tags = Vec::new();
    for (tag, id) in [(PREVIOUS_TAG, state.previous), (NEXT_TAG, state.next)] {
        if id.is_some() {
            let mut field = Out::default();
            field.i64(id.get());
            tags.push((tag, field));
        }
    }
    if state.client_version != 0 {
        let mut field = Out::default();
        field.i16(state.client_version);
        tags.push((CLIENT_TAG, field));
    }
    out.tags(&tags).take()
}

/// `None` of one that is being forgotten.
fn decode(bytes: &[u8]) -> Result<Option<State>, ClassicError> {
    let mut reader = Reader::new(bytes);
    match reader.i16()? {
        0 => decode_plain(reader),
        VALUE => decode_flexible(In::fields(&bytes[2..])),
        version => {
            let what = "a TransactionLogValue";
            Err(ClassicError::Version { what, version })
        }
    }
}

fn phase_of(number: i8) -> Result<Option<Phase>, ClassicError> {
    if number == DEAD {
        return Ok(None);
    }
    let phase = Phase::ALL.into_iter().find(|phase| phase.number() == number);
    phase.map(Some).ok_or(ClassicError::Version {
        what: "a transaction's state",
        version: number.into(),
    })
}

fn decode_plain(mut reader: Reader<'_>) -> Result<Option<State>, ClassicError> {
    let producer = Producer {
        id: ProducerId::new(reader.i64()?),
        epoch: ProducerEpoch::new(reader.i16()?),
    };
    let timeout_ms = reader.i32()?;
    let number = reader.i8()?;
    let mut places = BTreeSet::new();
    for _ in 0..reader.count(TOPIC_LEN_MIN)? {
        let topic = reader.string()?.to_owned();
        for _ in 0..reader.count(4)? {
            places.insert((topic.clone(), reader.i32()?));
        }
    }
    let (updated, began) = (Timestamp::new(reader.i64()?), Timestamp::new(reader.i64()?));
    Ok(phase_of(number)?.map(|phase| State {
        producer,
        phase,
        places,
        began,
        ..State::new(timeout_ms, updated)
    }))
}

fn decode_flexible(mut fields: In<'_>) -> Result<Option<State>, ClassicError> {
    let producer = Producer {
        id: ProducerId::new(fields.i64()?),
        epoch: ProducerEpoch::new(fields.i16()?),
    };
    let timeout_ms = fields.i32()?;
    let number = fields.i8()?;
    let mut places = BTreeSet::new();
    for _ in 0..fields.nullable_count()?.unwrap_or_default() {
        let topic = fields.string()?.to_owned();
        for _ in 0..fields.count()? {
            places.insert((topic.clone(), fields.i32()?));
        }
        fields.tag(usize::MAX)?;
    }
    let (updated, began) = (Timestamp::new(fields.i64()?), Timestamp::new(fields.i64()?));
    let tag = |number| fields.clone().tag(number);
    let id = |number| match tag(number)? {
        Some(mut field) => field.i64().map(ProducerId::new),
        None => Ok(ProducerId::NONE),
    };
    let client_version = match tag(CLIENT_TAG)? {
        Some(mut field) => field.i16()?,
        None => 0,
    };
    let (previous, next) = (id(PREVIOUS_TAG)?, id(NEXT_TAG)?);
    Ok(phase_of(number)?.map(|phase| State {
        producer,
        previous,
        next,
        phase,
        places,
        began,
        client_version,
        ..State::new(timeout_ms, updated)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::transaction::End;

    fn state() -> State {
        State {
            producer: Producer::new(7, 3),
            phase: Phase::Prepare(End::Commit),
            places: [("a", 2), ("a", 0), ("b", 1)]
                .map(|(topic, at)| (topic.to_owned(), at))
                .into(),
            began: Timestamp::new(99),
            client_version: 2,
            next: ProducerId::new(8),
            ..State::new(60_000, Timestamp::new(100))
        }
    }

    #[test]
    fn records_read_back_and_are_kafkas() {
        for value in [Some(state()), Some(State::new(1, Timestamp::new(2))), None] {
            let id = TransactionalId::new("shop");
            let record = Record { id, value };
            let (key, value) = (record.key(), record.value());
            assert_eq!(key, b"\0\0\0\x04shop");
            assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)));
        }
        let id = TransactionalId::new("x");
        let value = Some(State {
            places: [("t".to_owned(), 1)].into(),
            next: ProducerId::NONE,
            ..state()
        });
        let mut expected = vec![0, 1];
        expected.extend(7_i64.to_be_bytes());
        expected.extend([0, 3, 0, 0, 0xea, 0x60, 2, 2, 2, b't', 2, 0, 0, 0, 1, 0]);
        expected.extend(100_i64.to_be_bytes());
        expected.extend(99_i64.to_be_bytes());
        // One tag: number 2, of 2 bytes.
        expected.extend([1, 2, 2, 0, 2]);
        assert_eq!(Record { id, value }.value().unwrap(), expected);
    }

    #[test]
    fn values_of_version_0_are_read() {
        let mut value = Writer::new();
        value.i16(0).i64(7).i16(3).i32(60_000);
        let mut value = value.into_bytes();
        value.push(1);
        let mut rest = Writer::new();
        rest.count(1).string("t").count(1).i32(4).i64(100).i64(99);
        value.extend(rest.into_bytes());
        let read = Record::decode(b"\0\0\0\x01x", Some(&value))
            .unwrap()
            .unwrap()
            .value
            .unwrap();
        let expected = State {
            phase: Phase::Ongoing,
            places: [("t".to_owned(), 4)].into(),
            next: ProducerId::NONE,
            client_version: 0,
            ..state()
        };
        assert_eq!(read, expected);
        assert!(Record::decode(b"\0\0\0\x01x", Some(&value[..20])).is_err());
    }
}
