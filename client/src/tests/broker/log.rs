//! The log of a simulated broker: batches in a `Vec`, and Kafka's rule for idempotent producers.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use headwater_protocol::batch::{BatchHeader, Batches, RecordSet, stamp};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{LeaderEpoch, Offset, ProducerEpoch, Sequence, TopicId};

use super::LIMITS;

/// Batches of a producer that are told from new ones.
const BATCHES_REMEMBERED: usize = 128;

pub(in crate::tests) struct Topic {
    pub(in crate::tests) id: TopicId,
    pub(in crate::tests) partitions: Vec<Partition>,
    /// Bytes of the largest batch that it takes.
    pub(in crate::tests) batch_size_max: usize,
    /// Metadata tell it.
    pub(in crate::tests) tells_batch_size: bool,
}

#[derive(Default)]
pub(in crate::tests) struct Partition {
    pub(in crate::tests) core: u16,
    pub(in crate::tests) log_start: u64,
    pub(in crate::tests) next_offset: u64,
    pub(in crate::tests) batches: Vec<Bytes>,
    /// What is sent instead of a batch, by its number.
    pub(in crate::tests) damaged: HashMap<usize, Bytes>,
    /// Where a response ends is what its last batch says, damaged or not.
    pub(in crate::tests) is_gullible: bool,
    pub(super) producers: HashMap<i64, ProducerState>,
}

pub(super) struct ProducerState {
    epoch: ProducerEpoch,
    /// First and last sequence, and base offset.
    batches: VecDeque<(Sequence, Sequence, u64)>,
}

impl Partition {
    /// All record values, in order.
    pub(in crate::tests) fn values(&self) -> Vec<String> {
        let values = self.batches.iter().flat_map(|batch| {
            let set = RecordSet::decode(batch, 64 << 20).unwrap();
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            set.iter()
                .map(|record| text(record.unwrap().value.unwrap()))
                .collect::<Vec<_>>()
        });
        values.collect()
    }

    pub(super) fn forget_producers(&mut self) {
        self.producers.clear();
    }

    /// Kafka's rule for idempotent producers. `Ok(Some(_))`: an exact repetition of the batch at that offset.
    fn check_sequence(&self, batch: BatchHeader<'_>) -> Result<Option<u64>, ErrorCode> {
        let Some(state) = self.producers.get(&batch.producer_id().get()) else {
            return if batch.base_sequence() == Sequence::ZERO {
                Ok(None)
            } else {
                Err(ErrorCode::UnknownProducerId)
            };
        };
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        if batch.producer_epoch() != state.epoch {
            let new = batch.producer_epoch() > state.epoch && first == Sequence::ZERO;
            return if new {
                Ok(None)
            } else {
                Err(ErrorCode::InvalidProducerEpoch)
            };
        }
        if let Some((_, _, offset)) = state.batches.iter().find(|(f, l, _)| (*f, *l) == (first, last)) {
            return Ok(Some(*offset));
        }
        let newest = state.batches.back().expect("a producer has a batch").1;
        match first {
            first if first == newest.plus(1) => Ok(None),
            first if first.distance(newest) > u32::MAX / 4 => Err(ErrorCode::DuplicateSequenceNumber),
            _ => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    pub(super) fn append(&mut self, records: &[u8]) -> Result<u64, ErrorCode> {
        let mut base = None;
        for batch in Batches::new(records, &LIMITS) {
            let batch = batch.map_err(|_damaged| ErrorCode::CorruptMessage)?;
            if batch.producer_id().is_some() {
                if let Some(old) = self.check_sequence(batch.header())? {
                    base.get_or_insert(old);
                    continue;
                }
                let fresh = || ProducerState {
                    epoch: batch.producer_epoch(),
                    batches: VecDeque::new(),
                };
                let state = self.producers.entry(batch.producer_id().get()).or_insert_with(fresh);
                if state.epoch != batch.producer_epoch() {
                    *state = fresh();
                }
                if state.batches.len() == BATCHES_REMEMBERED {
                    state.batches.pop_front();
                }
                state
                    .batches
                    .push_back((batch.base_sequence(), batch.last_sequence(), self.next_offset));
            }
            base.get_or_insert(self.next_offset);
            let mut stored = batch.bytes().to_vec();
            stamp(&mut stored, Offset::new(self.next_offset), LeaderEpoch::new(0));
            self.next_offset += u64::from(batch.record_count());
            self.batches.push(stored.into());
        }
        base.ok_or(ErrorCode::InvalidRecord)
    }

    /// Batches from `offset` on, at least one and not many more bytes than `max`, and the offset after the last, -1 without any.
    pub(super) fn read(&self, offset: u64, max: usize) -> Result<(Vec<u8>, i64), ErrorCode> {
        if offset < self.log_start || offset > self.next_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let (mut bytes, mut next) = (Vec::new(), -1);
        for (number, batch) in self.batches.iter().enumerate() {
            let end = BatchHeader::read(batch).unwrap().next_offset();
            if end.get() <= offset {
                continue;
            }
            if !bytes.is_empty() && bytes.len() + batch.len() > max {
                break;
            }
            let sent = self.damaged.get(&number).unwrap_or(batch);
            bytes.extend_from_slice(sent);
            let said = BatchHeader::read(sent).ok().filter(|_| self.is_gullible);
            next = said.map_or(end, BatchHeader::next_offset).as_i64();
        }
        Ok((bytes, next))
    }
}
