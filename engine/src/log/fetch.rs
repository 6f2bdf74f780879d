//! Fetch: from an offset to a range of whole batches in one segment, in memory or on disk.
//!
//! A fetch does not read records: it names a contiguous [`LogRange`], and nothing beyond its [`ReadLimit`].

mod lookup;
mod range;

use std::rc::Rc;

use headwater_protocol::{
    batch::{BatchHeader, HEADER_LEN, RecordBatch},
    id::{Offset, Timestamp},
};

pub use self::range::LogRange;
use super::{
    Log, LogOffsets, ReadLimit,
    files::read_index,
    scan::{ScanEnd, Stretch, scan},
    walk::{LOOK_BYTES, Walk},
};
use crate::{
    disk::{Disk, HeldBytes, SegmentFile},
    error::{FetchError, LogError},
    index::Index,
    segment::{Segment, Sight, Stage},
};

/// Bytes read at a time while looking for a header on disk.
const HEADER_READ_BYTES: usize = 4096;

/// Indexes of sealed segments that stay in memory because they could not be written.
const UNSTORED_MAX: usize = 8;

/// What a fetch found.
#[derive(Debug)]
pub struct Fetched<D: Disk> {
    /// The batches, or `None` at the end of what may be read.
    pub range: Option<LogRange<D>>,
    /// High watermark: offset after the last record that clients can fetch now.
    pub high_watermark: Offset,
    /// Last stable offset: the same for clients that read what is committed.
    pub last_stable: Offset,
    /// First offset that can be fetched.
    pub log_start_offset: Offset,
}

impl<D: Disk> Log<D> {
    /// Finds whole batches from the one that holds `offset` on, or from the next one, if compaction has taken that out: at
    /// least one, and more while they fit `max_bytes`, up to the limit.
    pub async fn fetch(&self, offset: Offset, max_bytes: u64, limit: ReadLimit) -> Result<Fetched<D>, FetchError> {
        loop {
            match self.fetch_now(offset, max_bytes, limit).await {
                // Where it looked, the log is another one by now.
                Err(FetchError::Log(LogError::Truncated)) => {}
                found => return found,
            }
        }
    }

    /// The same, in the log as it is now.
    async fn fetch_now(&self, offset: Offset, max_bytes: u64, limit: ReadLimit) -> Result<Fetched<D>, FetchError> {
        let offsets = self.offsets();
        if offset < offsets.start || offset > offsets.end {
            return Err(FetchError::OutOfRange {
                offset,
                start: offsets.start,
                end: offsets.end,
            });
        }
        let mut range = None;
        if offset < offsets.limit(limit) {
            let found = self.range_from(offset, max_bytes, limit).await;
            let LogOffsets { start, end, .. } = self.offsets();
            if found.is_err() && (offset < start || offset > end) {
                // It was deleted meanwhile.
                return Err(FetchError::OutOfRange { offset, start, end });
            }
            range = found?;
        }
        Ok(Fetched {
            range,
            high_watermark: offsets.high_watermark,
            last_stable: offsets.last_stable,
            log_start_offset: offsets.start,
        })
    }

    /// Whole batches from the one on that holds `offset`, which may be read, or that follows it.
    async fn range_from(
        &self,
        mut offset: Offset,
        max_bytes: u64,
        read_limit: ReadLimit,
    ) -> Result<Option<LogRange<D>>, LogError> {
        loop {
            let Readable {
                segment,
                mut limit,
                stop,
                durable_end,
            } = self.readable_part_of(offset, read_limit);
            if let Some(stop) = stop {
                let (position, before) = self.batch_start(&segment, stop).await?;
                if offset >= before {
                    return Ok(None);
                }
                limit = Place {
                    position,
                    offset: before,
                };
            }
            let Some((position, first)) = self.find(&segment, offset, limit.position).await? else {
                offset = segment.extent.get().next_offset;
                if offset >= self.offsets().limit(read_limit) {
                    return Ok(None);
                }
                continue;
            };
            let first_end = Place {
                position: position + first.size,
                offset: first.next_offset,
            };
            let wanted = position.saturating_add(max_bytes);
            let end = self.cut(&segment, first_end, wanted, limit).await?;
            segment.check()?;
            segment.named.set(segment.named.get().max(end.position));
            segment.goes_on.set(Some((end.position, end.offset)));
            return Ok(Some(LogRange {
                segment,
                position,
                length: end.position - position,
                next_offset: end.offset,
                durable_end,
            }));
        }
    }

    /// The segment that holds `offset`, which may be read, and where the part of it ends that may be.
    fn readable_part_of(&self, offset: Offset, limit: ReadLimit) -> Readable<D> {
        let state = self.state.borrow();
        let segment = Sight::of(state.segment_of(offset));
        let durable_end = state.durable_end_of(&segment);
        let (all, durable) = (segment.extent.get(), state.durable.offset);
        let wanted = match limit {
            ReadLimit::Durable => durable,
            ReadLimit::HighWatermark => state.watermark.offset(),
            ReadLimit::LastStable => state.last_stable(),
            ReadLimit::LogEnd => all.next_offset,
        };
        // Where the durable part ends is known; where another does has to be looked up.
        let (position, offset) = if wanted == durable {
            (durable_end, durable.min(all.next_offset))
        } else {
            (all.end, all.next_offset)
        };
        Readable {
            stop: Some(wanted).filter(|wanted| *wanted < offset),
            segment,
            limit: Place { position, offset },
            durable_end,
        }
    }

    /// Position and header of the batch that holds `offset`, or of the next one in the segment if compaction has taken that out.
    /// `None` if nothing follows there either.
    ///
    /// Headers are not believed here, as whoever reads the batch looks at its checksum: damage may lead to a wrong batch, but never
    /// past the right one. What no checksum covers, the length and the base offset, must fit what lies before.
    async fn find(&self, segment: &Sight<D>, offset: Offset, limit: u64) -> Result<Option<(u64, Header)>, LogError> {
        self.load_index(segment).await?;
        let has_holes = segment.has_holes.get();
        let indexed = with_index(segment, |index| index.floor(offset));
        // Between two entries of the index may lie many small batches. In front of a hole the last one has to be looked at.
        let known = segment.goes_on.get().filter(|(_, next)| !has_holes && *next <= offset);
        let (mut position, mut expected) = indexed.max(known).unwrap_or((0, segment.base_offset));
        let mut may_be_later = has_holes && indexed.is_none();
        let mut passed = None;
        while position < limit {
            let header = self.header_at(segment, position).await?;
            self.check_place(segment, position, &header, expected, may_be_later)?;
            if header.size > limit - position {
                let reason = format!(
                    "a batch claims {} bytes of {} that are left",
                    header.size,
                    limit - position
                );
                return Err(self.corrupt(segment, position, &reason));
            }
            if header.next_offset > offset {
                if header.base_offset > offset {
                    segment.still(self.check_passed(segment, passed).await)?;
                }
                return Ok(Some((position, header)));
            }
            passed = Some((position, header));
            position += header.size;
            (expected, may_be_later) = (header.next_offset, has_holes);
        }
        if has_holes {
            segment.still(self.check_passed(segment, passed).await)?;
            return Ok(None);
        }
        Err(self.corrupt(segment, position, &format!("the batch of offset {offset} is not there")))
    }

    /// Whether a batch begins at the offset that it should, or may begin at.
    fn check_place(
        &self,
        segment: &Segment<D>,
        position: u64,
        header: &Header,
        expected: Offset,
        may_be_later: bool,
    ) -> Result<(), LogError> {
        let base_offset = header.base_offset;
        let follows = base_offset == expected || (may_be_later && base_offset > expected);
        if follows && header.next_offset <= segment.extent.get().next_offset {
            return Ok(());
        }
        let reason = format!("a batch of offset {base_offset} is not the one that belongs there, which is {expected}");
        Err(self.corrupt(segment, position, &reason))
    }

    /// The batch that was passed over last, in front of a gap. That it ends before the gap is only what its header says, and the
    /// records behind a wrong end would be missed. One that is not durable is in memory, as it was appended.
    async fn check_passed(&self, segment: &Segment<D>, passed: Option<(u64, Header)>) -> Result<(), LogError> {
        let is_durable = |(position, header): &(u64, Header)| position + header.size <= segment.durable.get();
        let Some((position, header)) = passed.filter(is_durable) else {
            return Ok(());
        };
        let file = segment.open(&self.disk).await?;
        let stretch = Stretch {
            position,
            size: position + header.size,
            expected: header.base_offset,
            has_holes: false,
        };
        let mut walk = Walk::over(self, segment, &file, stretch, LOOK_BYTES);
        walk.next().await.map(drop)
    }

    /// Position and first offset of the batch that holds `offset`; in a hole, where the next batch begins, and `offset`.
    pub(super) async fn batch_start(
        &self,
        segment: &Rc<Segment<D>>,
        offset: Offset,
    ) -> Result<(u64, Offset), LogError> {
        let Some((position, header)) = self.find(&Sight::of(segment), offset, segment.end()).await? else {
            return Ok((segment.end(), offset));
        };
        Ok((position, header.base_offset.min(offset)))
    }

    /// End of the last whole batch that ends at or before the position `wanted`: as far as the index knows, and then batch by
    /// batch.
    async fn cut(&self, segment: &Sight<D>, first_end: Place, wanted: u64, limit: Place) -> Result<Place, LogError> {
        if wanted >= limit.position {
            return Ok(limit);
        }
        self.load_index(segment).await?;
        let (position, offset) = with_index(segment, |index| index.boundary(wanted));
        let mut end = first_end;
        if position > first_end.position {
            end = Place { position, offset };
        }
        // Between two entries of the index lie small batches only, so this is short.
        while end.position < wanted && end.position + u64::from(self.config().index_interval_bytes) > wanted {
            let header = match self.next_header(segment, end).await {
                Ok(header) => header,
                // The batches before it are good; whoever wants this one is told.
                Err(LogError::Corrupt { .. }) => break,
                Err(error) => return Err(error),
            };
            if end.position + header.size > wanted {
                break;
            }
            end = Place {
                position: end.position + header.size,
                offset: header.next_offset,
            };
        }
        Ok(if end.position < limit.position { end } else { limit })
    }

    /// The header of the batch that begins at a place.
    async fn next_header(&self, segment: &Sight<D>, at: Place) -> Result<Header, LogError> {
        let header = self.header_at(segment, at.position).await?;
        self.check_place(segment, at.position, &header, at.offset, segment.has_holes.get())?;
        Ok(header)
    }

    async fn header_at(&self, segment: &Sight<D>, position: u64) -> Result<Header, LogError> {
        let in_tail = segment.tail_slice(position, segment.end());
        let mut held = in_tail.filter(|bytes| bytes.len() >= HEADER_LEN);
        let mut read = Vec::new();
        if held.is_none() {
            if let Some(copy) = segment.tail_copy(position, HEADER_LEN) {
                read = copy;
            } else if let Some(cold) = self.held_header(segment, position).await? {
                held = Some(cold);
            } else {
                let file = segment.still(segment.open(&self.disk).await)?;
                let bytes = file.read(position, HEADER_READ_BYTES).await;
                read = segment.still(bytes.map_err(LogError::io("read", &segment.path)))?;
            }
        }
        let bytes = held.as_deref().unwrap_or(&read);
        match BatchHeader::read(bytes) {
            Ok(header) => Ok(Header {
                size: header.size() as u64,
                base_offset: header.base_offset(),
                next_offset: header.next_offset(),
            }),
            Err(error) => Err(self.corrupt(segment, position, &error.to_string())),
        }
    }

    /// The header among what was read for consumers, or is read now: where somebody looks, a consumer goes on.
    async fn held_header(&self, segment: &Sight<D>, position: u64) -> Result<Option<HeldBytes>, LogError> {
        let file = segment.still(segment.open(&self.disk).await)?;
        let (cold, length, now) = (&segment.cold, HEADER_LEN as u64, self.disk.now());
        if !cold.holds(segment.id, position, now) && !file.is_cached(position, length) {
            cold.begin(&file, segment.id, position, length, segment.durable.get(), now);
        }
        let held = cold.look(segment.id, position).await;
        segment.check()?;
        Ok(held.filter(|bytes| bytes.len() >= HEADER_LEN))
    }

    /// Makes sure that the segment's index is in memory.
    pub(super) async fn load_index(&self, segment: &Sight<D>) -> Result<(), LogError> {
        if segment.index.borrow().is_some() {
            return Ok(());
        }
        let (base_offset, size) = (segment.base_offset, segment.end());
        let interval = self.config().index_interval_bytes;
        let stored = if segment.retired.get() {
            None
        } else {
            let stored = read_index(
                &self.disk,
                &self.directory,
                base_offset,
                size,
                interval,
                &self.memory.indexes,
            )
            .await;
            segment.check()?;
            stored
        };
        // The side files may have become those of another segment while they were read.
        let stored = stored.filter(|_| !segment.retired.get());
        let is_stored = stored.is_some();
        let index = match stored {
            Some(index) => index,
            None => segment.still(self.rebuild_index(segment).await)?,
        };
        let mut known = segment.index.borrow_mut();
        if known.is_none() {
            *known = Some(index);
            segment.index_stored.set(is_stored);
        }
        Ok(())
    }

    async fn rebuild_index(&self, segment: &Sight<D>) -> Result<Index, LogError> {
        if !segment.retired.get() {
            self.memory.indexes.one_rebuilt();
        }
        let mut index = Index::new(segment.base_offset, self.config().index_interval_bytes);
        let mut max_timestamp = Timestamp::NONE;
        let file = segment.open(&self.disk).await?;
        let note = |batch: &RecordBatch<'_>, position| {
            max_timestamp = max_timestamp.max(batch.max_timestamp());
            index.add(batch.base_offset(), position, max_timestamp);
        };
        let batch_size_max = self.config().batch.batch_size_max;
        let stretch = Stretch::up_to(segment, segment.end());
        let scanned = scan(&file, stretch, batch_size_max, note).await;
        let scanned = segment.still(scanned.map_err(LogError::io("read", &segment.path)))?;
        match scanned.end {
            ScanEnd::Bad(reason) => Err(self.corrupt(segment, scanned.position, &reason)),
            ScanEnd::EndOfFile | ScanEnd::Reserved => Ok(index),
        }
    }

    /// Drops the indexes of sealed segments: they are read again when a consumer needs them. The newest of those that cannot be
    /// written stay, which have else to be made anew each time.
    pub(super) fn forget_sealed_indexes(&self) {
        let mut unstored = 0;
        for segment in self.state.borrow().segments.iter().rev() {
            if segment.stage.get() == Stage::Sealed {
                segment.transactions.forget_stored();
            }
            if segment.stage.get() != Stage::Sealed || segment.index.borrow().is_none() {
                continue;
            }
            unstored += usize::from(!segment.index_stored.get());
            if segment.index_stored.get() || unstored > UNSTORED_MAX {
                segment.index.borrow_mut().take();
            }
        }
    }

    pub(super) fn corrupt(&self, segment: &Segment<D>, position: u64, reason: &str) -> LogError {
        let indexed = segment
            .index
            .borrow()
            .as_ref()
            .and_then(|index| index.offset_after(position));
        let next_segment = || {
            let state = self.state.borrow();
            let behind = |other: &&Rc<Segment<D>>| other.base_offset > segment.base_offset;
            state.segments.iter().find(behind).map(|other| other.base_offset)
        };
        let error = LogError::Corrupt {
            path: segment.path.clone(),
            position,
            reason: reason.to_owned(),
            resume_at: indexed.or_else(next_segment),
        };
        if let Some(unsaid) = self.unreadable.may_speak(self.disk.now()) {
            tracing::error!(directory = %self.directory.display(), %error, unsaid, "durable bytes do not read back");
        }
        error
    }
}

/// The part of a segment that a fetch may read.
struct Readable<D: Disk> {
    segment: Sight<D>,
    /// Batches end there at the latest.
    limit: Place,
    /// An offset below that of the limit, which nothing may reach beyond.
    stop: Option<Offset>,
    durable_end: u64,
}

/// Where a batch ends, and the offset after it.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: u64,
    offset: Offset,
}

/// What a walk over batches needs of a header.
#[derive(Debug, Clone, Copy)]
struct Header {
    size: u64,
    base_offset: Offset,
    next_offset: Offset,
}

fn with_index<D: Disk, T>(segment: &Segment<D>, look: impl FnOnce(&Index) -> T) -> T {
    let index = segment.index.borrow();
    look(
        index
            .as_ref()
            .expect("loaded by load_index, and only dropped by maintenance between awaits"),
    )
}
