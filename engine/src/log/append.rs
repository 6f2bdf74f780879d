//! Append: check, number, copy once into the tail buffer. Synchronous, so the order is fixed when it returns.

use std::rc::Rc;

use headwater_protocol::{
    batch::{self, BatchError, Batches, HEADER_LEN, RecordBatch, TimestampType},
    id::{Offset, Timestamp},
};

use super::{DurablePoint, Log, State, Ticket, Vetted};
use crate::{
    disk::Disk,
    error::AppendError,
    moment::{Moment, Since},
    producers::Verdict,
    segment::{Extent, Segment},
};

/// What became of an append.
#[derive(Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset after the last record.
    pub next_offset: Offset,
    /// The batch was in the log already (an idempotent producer sent it again); nothing was appended.
    pub duplicate: bool,
    /// The timestamp that the broker gave to the records, with [`TimestampType::LogAppendTime`].
    pub append_time: Option<Timestamp>,
    /// Resolves when the records are durable.
    pub durable: Ticket,
}

impl<D: Disk> Log<D> {
    /// Appends one or more whole record batches: all of them or none. Looks at every record of them before.
    ///
    /// Their base offsets and leader epochs are stamped here; everything else stays as the producer made it. Something must
    /// poll [`flush`](Self::flush) for the ticket to resolve.
    pub fn append(&self, payload: &[u8], now: impl Into<Moment>) -> Result<Appended, AppendError> {
        let vetted = Vetted::at_once(payload, &self.config().batch)?;
        self.append_vetted(&vetted, now)
    }

    /// [`append`](Self::append) for batches that were looked at before.
    pub fn append_vetted(&self, vetted: &Vetted<'_>, now: impl Into<Moment>) -> Result<Appended, AppendError> {
        let now = now.into();
        self.admit(vetted, now.clock)?;
        let config = self.config();
        if config.timestamp_type == TimestampType::CreateTime {
            return self.append_admitted(vetted.batches(), vetted.size(), now);
        }
        let stamped = stamp_append_time(vetted, now.clock);
        let batches = Batches::new(&stamped, &config.batch).collect::<Result<Vec<_>, _>>()?;
        self.append_admitted(&batches, stamped.len(), now)
    }

    /// Applies every rule that is this log's own and does not depend on what is in it.
    fn admit(&self, vetted: &Vetted<'_>, now: Timestamp) -> Result<(), AppendError> {
        let config = self.config();
        let size = vetted.size() as u64;
        if size > config.segment_size_bytes {
            return Err(AppendError::TooLarge {
                size,
                segment_size_bytes: config.segment_size_bytes,
            });
        }
        if config.compaction.is_some() {
            vetted.check_keys()?;
        }
        let latest = now.get().saturating_add_unsigned(config.timestamp_ahead_ms_max);
        for batch in vetted.batches() {
            let (size, max) = (batch.size(), config.batch.batch_size_max);
            if size > max {
                return Err(BatchError::TooLarge { size, max }.into());
            }
            let timestamp = batch.max_timestamp().get();
            if timestamp > latest && config.timestamp_type == TimestampType::CreateTime {
                return Err(AppendError::Timestamp {
                    timestamp,
                    ahead_ms_max: config.timestamp_ahead_ms_max,
                });
            }
        }
        Ok(())
    }

    fn append_admitted(&self, batches: &[RecordBatch<'_>], size: usize, now: Moment) -> Result<Appended, AppendError> {
        let mut state = self.state.borrow_mut();
        if let Some(fence) = &state.fence {
            return Err(fence.clone().into());
        }
        for batch in batches {
            if let Verdict::Duplicate(original) = state.producers.check(batch)? {
                let durable = state.pending.share(original.next_offset);
                return Ok(Appended {
                    base_offset: original.base_offset,
                    next_offset: original.next_offset,
                    duplicate: true,
                    append_time: original.append_time,
                    durable,
                });
            }
        }
        let segment = self.segment_for(&mut state, size, now);
        let base_offset = segment.extent.get().next_offset;
        let epoch = state.leader_epoch;
        if state.epochs.latest() != Some(epoch) {
            state.begin_epoch(epoch, base_offset);
        }
        let config = self.config();
        for batch in batches {
            let position = segment.end();
            copy_batch(&mut state, &segment, batch, now);
            state
                .spares
                .note(segment.base_offset, position, config.segment_size_bytes);
        }
        let Extent { end, next_offset, .. } = segment.extent.get();
        let durable = state.pending.push(DurablePoint {
            segment: segment.base_offset,
            position: end,
            offset: next_offset,
        });
        state.last_append = Some(now.monotonic);
        state.changed();
        state.check();
        drop(state);
        self.appended.notify();
        let append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now.clock);
        Ok(Appended {
            base_offset,
            next_offset,
            duplicate: false,
            append_time,
            durable,
        })
    }

    /// The segment that takes `size` more bytes. A payload is never split over two.
    fn segment_for(&self, state: &mut State<D>, size: usize, now: Moment) -> Rc<Segment<D>> {
        let config = self.config();
        let is_full = state.active().end() > 0 && state.active().end() + size as u64 > config.segment_size_bytes;
        // An index entry has four bytes for the distance from the base offset.
        let is_long = state.end().get() - state.active().base_offset.get() > u64::from(i32::MAX.cast_unsigned());
        if is_full || is_long {
            state.spares.filled(now);
            state.roll(&self.directory, &self.memory, config.index_interval_bytes);
        }
        let segment = Rc::clone(state.active());
        if segment.began.get().is_none() {
            segment.began.set(Some(now.monotonic));
        }
        segment
    }
}

/// The one copy: from the connection's buffer into the tail buffer, with the offset and epoch stamped on the way.
fn copy_batch<D: Disk>(state: &mut State<D>, segment: &Segment<D>, batch: &RecordBatch<'_>, now: Moment) {
    let Extent {
        end,
        next_offset,
        mut times,
    } = segment.extent.get();
    let (header, records) = batch.bytes().split_at(HEADER_LEN);
    let mut stamped = [0; HEADER_LEN];
    stamped.copy_from_slice(header);
    batch::stamp(&mut stamped, next_offset, state.leader_epoch);
    segment.tail.borrow_mut().append(end, &stamped, records);
    times.note(batch.max_timestamp(), Since::now(now));
    if let Some(index) = segment.index.borrow_mut().as_mut() {
        index.add(next_offset, end, times.max_timestamp);
    }
    let durable = state.durable.offset;
    state.producers.note(batch, next_offset, Since::now(now), durable);
    segment.extent.set(Extent {
        end: end + batch.bytes().len() as u64,
        next_offset: next_offset + u64::from(batch.offset_count()),
        times,
    });
}

/// A copy of the batches with the broker's time in it. This alone changes bytes that the checksum covers.
fn stamp_append_time(vetted: &Vetted<'_>, now: Timestamp) -> Vec<u8> {
    let mut stamped = vetted.payload().to_vec();
    let mut rest = stamped.as_mut_slice();
    for batch in vetted.batches() {
        let (this, after) = rest.split_at_mut(batch.size());
        batch::set_append_time(this, now);
        rest = after;
    }
    stamped
}
