//! Append: check, number, copy once into the tail buffer. Synchronous, so the order is fixed when it returns.

mod vet;

use std::{cell::RefMut, rc::Rc};

use headwater_protocol::{
    batch::{self, BatchError, Batches, HEADER_LEN, RecordBatch, Seen, TimestampType},
    id::{Offset, Timestamp},
};

pub use self::vet::{Begins, Vetted, VettedBytes};
use super::{DurablePoint, Log, LogConfig, State, Ticket};
use crate::{
    disk::Disk,
    error::AppendError,
    moment::{Moment, Since},
    producers::{Kept, Verdict},
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
        let corrected = match config.timestamp_type {
            TimestampType::LogAppendTime => stamp_append_time(vetted, now.clock),
            TimestampType::CreateTime if has_right_times(vetted) => {
                return self.append_admitted(vetted.batches(), (vetted.size(), vetted.begins()), now);
            }
            TimestampType::CreateTime => correct_times(vetted),
        };
        let batches = Batches::new(&corrected, &config.batch).collect::<Result<Vec<_>, _>>()?;
        self.append_admitted(&batches, (corrected.len(), vetted.begins()), now)
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
        for batch in vetted.batches() {
            let (size, max) = (batch.size(), config.batch.batch_size_max);
            if size > max {
                return Err(BatchError::TooLarge { size, max }.into());
            }
        }
        if config.timestamp_type == TimestampType::CreateTime {
            check_times(vetted, &config, now.get())?;
        }
        Ok(())
    }

    fn append_admitted(
        &self,
        batches: &[RecordBatch<'_>],
        (size, begins): (usize, Begins),
        now: Moment,
    ) -> Result<Appended, AppendError> {
        let state = self.state.borrow_mut();
        if let Some(fence) = &state.fence {
            return Err(fence.clone().into());
        }
        for batch in batches {
            if let Verdict::Duplicate(original) = state.producers.check(batch, begins)? {
                let durable = state.pending.share(original.next_offset);
                return Ok(Appended {
                    base_offset: original.base_offset,
                    next_offset: original.next_offset,
                    duplicate: true,
                    append_time: original.append_time,
                    durable,
                });
            }
            state.check_transaction(batch, self.config().producers.count_max)?;
        }
        let append_time = self.config().timestamp_type == TimestampType::LogAppendTime;
        let appended = self.append_checked(state, batches, size, now);
        Ok(Appended {
            append_time: append_time.then_some(now.clock),
            ..appended
        })
    }

    /// Appends batches about which all has been decided, `size` bytes together.
    pub(super) fn append_checked(
        &self,
        mut state: RefMut<'_, State<D>>,
        batches: &[RecordBatch<'_>],
        size: usize,
        now: Moment,
    ) -> Appended {
        let segment = self.segment_for(&mut state, size, now);
        let base_offset = segment.extent.get().next_offset;
        let epoch = state.leader_epoch;
        if state.epochs.latest() != Some(epoch) {
            state.begin_epoch(epoch, base_offset);
        }
        let config = self.config();
        for batch in batches {
            stamp_and_put(&mut state, &segment, batch, now, &config);
        }
        let Extent { end, next_offset, .. } = segment.extent.get();
        let durable = state.pending.push(DurablePoint {
            segment: segment.base_offset,
            position: end,
            offset: next_offset,
        });
        state.last_append = Some(now.monotonic);
        state.transactions.keep_no_more();
        state.changed();
        state.check();
        drop(state);
        self.appended.notify();
        Appended {
            base_offset,
            next_offset,
            duplicate: false,
            append_time: None,
            durable,
        }
    }

    /// The segment that takes `size` more bytes. A payload is never split over two.
    pub(super) fn segment_for(&self, state: &mut State<D>, size: usize, now: Moment) -> Rc<Segment<D>> {
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

impl<D: Disk> State<D> {
    /// Whether the batch fits its producer's transaction.
    fn check_transaction(&self, batch: &RecordBatch<'_>, count_max: usize) -> Result<(), AppendError> {
        let producer = batch.producer_id();
        if !producer.is_some() {
            return Ok(());
        }
        let is_open = self.transactions.first_of(producer).is_some();
        if is_open && !batch.is_transactional() {
            let producer = producer.get();
            return Err(AppendError::OutsideTransaction { producer });
        }
        if !is_open && batch.is_transactional() && self.transactions.open_count() >= count_max {
            return Err(AppendError::TooManyTransactions { count_max });
        }
        Ok(())
    }
}

/// Gives a batch the next offset and the epoch, on its way into the log.
fn stamp_and_put<D: Disk>(
    state: &mut State<D>,
    segment: &Segment<D>,
    batch: &RecordBatch<'_>,
    now: Moment,
    config: &LogConfig,
) {
    let offset = segment.extent.get().next_offset;
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&batch.bytes()[..HEADER_LEN]);
    batch::stamp(&mut header, offset, state.leader_epoch);
    let header = &header;
    put(
        state,
        segment,
        batch,
        Placed { offset, header },
        Since::now(now),
        config,
    );
}

/// What the log has decided of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    /// Offset of its first record.
    pub(super) offset: Offset,
    /// Its header, as it is stored.
    pub(super) header: &'a [u8],
}

/// The one copy: from the connection's buffer into the tail buffer.
pub(super) fn put<D: Disk>(
    state: &mut State<D>,
    segment: &Segment<D>,
    batch: &RecordBatch<'_>,
    placed: Placed<'_>,
    appended: Since,
    config: &LogConfig,
) {
    let Placed { offset, header } = placed;
    let Extent { end, mut times, .. } = segment.extent.get();
    segment
        .tail
        .borrow_mut()
        .append(end, header, &batch.bytes()[HEADER_LEN..]);
    times.note(batch.max_timestamp(), appended);
    if let Some(index) = segment.index.borrow_mut().as_mut() {
        index.add(offset, end, times.max_timestamp);
    }
    let (filed, high_watermark) = (state.filed.offset, state.watermark.offset());
    state
        .producers
        .note(batch, offset, appended, Kept { filed, high_watermark });
    if batch.is_transactional() || batch.is_control() {
        segment.transactions.has_any.set(true);
        if let Some(aborted) = state.transactions.note(batch, offset) {
            segment.transactions.add(aborted);
        }
    }
    state.spares.note(segment.base_offset, end, config.segment_size_bytes);
    segment.extent.set(Extent {
        end: end + batch.bytes().len() as u64,
        next_offset: offset + u64::from(batch.offset_count()),
        times,
    });
}

/// Refuses timestamps that are too far from the broker's clock.
fn check_times(vetted: &Vetted<'_>, config: &LogConfig, now: i64) -> Result<(), AppendError> {
    let earliest = config.timestamp_behind_ms_max;
    let earliest = earliest.map_or(i64::MIN, |behind| now.saturating_sub_unsigned(behind));
    let latest = now.saturating_add_unsigned(config.timestamp_ahead_ms_max);
    let allowed = earliest..=latest;
    let ends = |seen: &Seen| [Some(seen.latest), seen.earliest].into_iter().flatten();
    let mut times = vetted.seen().iter().flat_map(ends).filter(|(_, time)| time.is_some());
    match times.find(|(_, time)| !allowed.contains(&time.get())) {
        None => Ok(()),
        Some((index, timestamp)) => Err(AppendError::Timestamp {
            index,
            timestamp: timestamp.get(),
            earliest,
            latest,
        }),
    }
}

/// Whether each batch says what the latest timestamp of its records is.
fn has_right_times(vetted: &Vetted<'_>) -> bool {
    let mut batches = vetted.batches().iter().zip(vetted.seen());
    batches.all(|(batch, seen)| batch.max_timestamp() == latest(batch, seen))
}

/// The latest timestamp of a batch, which no batch has before its base.
fn latest(batch: &RecordBatch<'_>, seen: &Seen) -> Timestamp {
    seen.latest.1.max(batch.base_timestamp())
}

/// A copy of the batches that say so: searches by time and retention go by it.
fn correct_times(vetted: &Vetted<'_>) -> Vec<u8> {
    changed(vetted, |bytes, (batch, seen)| {
        batch::set_max_timestamp(bytes, latest(batch, seen));
    })
}

/// A copy of the batches with the broker's time in it.
fn stamp_append_time(vetted: &Vetted<'_>, now: Timestamp) -> Vec<u8> {
    changed(vetted, |bytes, _| batch::set_append_time(bytes, now))
}

/// A copy of which each batch is changed. This alone changes bytes that the checksum covers.
fn changed(vetted: &Vetted<'_>, change: impl Fn(&mut [u8], (&RecordBatch<'_>, &Seen))) -> Vec<u8> {
    let mut copy = vetted.payload().to_vec();
    let mut rest = copy.as_mut_slice();
    for (batch, seen) in vetted.batches().iter().zip(vetted.seen()) {
        let (this, after) = rest.split_at_mut(batch.size());
        change(this, (batch, seen));
        rest = after;
    }
    copy
}
