//! One segment of a log: a file of whole record batches, its indexes, and the part of it that is in memory.
//!
//! Owned by its log and shared (`Rc`) with fetches under way, for which the file stays open after retention has removed it.
//! Positions: `durable <= end <= prepared`, where `prepared` is how far space was reserved, and `zeroed <= prepared`, how far its
//! blocks have been written before. Only the last segment grows.

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use headwater_protocol::id::{Offset, Timestamp};

use crate::{
    cold::ColdMemory,
    disk::{Disk, FileSlot, HeldBytes},
    error::LogError,
    index::Index,
    memory::Memory,
    moment::{Moment, Since, age_of},
    tail::Tail,
    transactions::aborted::SegmentTransactions,
    unsealed::{Unsealed, Waiting},
};

/// Path of a segment's file of one kind: 20 digits of base offset, then the extension.
pub(crate) fn segment_path(directory: &Path, base_offset: Offset, extension: &str) -> PathBuf {
    directory.join(format!("{:020}.{extension}", base_offset.get()))
}

/// The base offset in a segment file's name.
pub(crate) fn base_offset_of(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset = digits.parse::<i64>().ok()?;
    Offset::try_from(offset).ok()
}

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Size in bytes.
    pub(crate) end: u64,
    /// Offset after the last record.
    pub(crate) next_offset: Offset,
    pub(crate) times: Times,
}

/// When the records of a segment are from, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Largest timestamp, -1 if none has one.
    pub(crate) max_timestamp: Timestamp,
    /// There are batches without any timestamp.
    pub(crate) untimed: bool,
    /// The last append.
    pub(crate) appended: Since,
}

impl Times {
    /// Of no record.
    pub(crate) const NONE: Times = Times {
        max_timestamp: Timestamp::NONE,
        untimed: false,
        appended: Since::UNKNOWN,
    };

    /// Takes in a batch with this largest timestamp.
    pub(crate) fn note(&mut self, max_timestamp: Timestamp, appended: Since) {
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        self.untimed |= !max_timestamp.is_some();
        self.appended = appended;
    }

    /// How old the newest record is.
    pub(crate) fn age(&mut self, now: Moment) -> Duration {
        let appended = self.appended.age(now);
        let age = age_of(self.max_timestamp, appended, now.clock);
        if self.untimed { age.min(appended) } else { age }
    }
}

/// Where a segment is on its way from memory to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The last segment: takes appends.
    Active,
    /// Rolled: no more appends, perhaps not yet durable.
    Rolled,
    /// Durable, cut to size, its indexes on disk.
    Sealed,
}

/// Tells segments apart for as long as the process runs; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId(u64);

impl SegmentId {
    pub(crate) fn next() -> SegmentId {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        SegmentId(COUNT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
pub(crate) struct Segment<D: Disk> {
    pub(crate) id: SegmentId,
    pub(crate) base_offset: Offset,
    pub(crate) path: PathBuf,
    pub(crate) file: Rc<FileSlot<D::File>>,
    pub(crate) extent: Cell<Extent>,
    pub(crate) durable: Cell<u64>,
    /// End of what fetches have named.
    pub(crate) named: Cell<u64>,
    /// Where the last fetch ended, and the offset there: whoever reads in order goes on there.
    pub(crate) goes_on: Cell<Option<(u64, Offset)>>,
    /// How often a truncation has dropped something of it that somebody could know; counted when that is decided, before anything is done.
    cuts: Cell<u64>,
    pub(crate) prepared: Cell<u64>,
    pub(crate) zeroed: Cell<u64>,
    /// Space is being reserved or filled with zeros, or the file is being cut: it must not be cut meanwhile.
    pub(crate) preparing: Cell<bool>,
    pub(crate) stage: Cell<Stage>,
    /// Monotonic time of the first append, for rolling by age.
    pub(crate) began: Cell<Option<Duration>>,
    /// `None`: in the side files, or to be made of the segment.
    pub(crate) index: RefCell<Option<Index>>,
    /// The side files hold the whole index.
    pub(crate) index_stored: Cell<bool>,
    /// It waits to be sealed.
    pub(crate) waiting: RefCell<Option<Waiting>>,
    pub(crate) tail: RefCell<Tail>,
    pub(crate) cold: Rc<ColdMemory>,
    /// Its names are not its own: they are another log's or another segment's by now, or this one has not got them yet. A file
    /// that is not open is then not opened by its name, and no index is read.
    pub(crate) retired: Cell<bool>,
    /// Its names are those of its log, which was opened anew.
    pub(crate) replaced: Cell<bool>,
    /// Compaction may have taken out offsets.
    pub(crate) has_holes: Cell<bool>,
    pub(crate) transactions: SegmentTransactions,
}

impl<D: Disk> Segment<D> {
    /// A new, empty segment; its file is made by the first flush.
    pub(crate) fn new(directory: &Path, base_offset: Offset, memory: &Memory, interval_bytes: u32) -> Segment<D> {
        let extent = Extent {
            end: 0,
            next_offset: base_offset,
            times: Times::NONE,
        };
        let index = Some(Index::new(base_offset, interval_bytes));
        Segment {
            id: SegmentId::next(),
            base_offset,
            path: segment_path(directory, base_offset, "log"),
            file: FileSlot::new(),
            extent: Cell::new(extent),
            durable: Cell::new(0),
            named: Cell::new(0),
            goes_on: Cell::new(None),
            cuts: Cell::new(0),
            prepared: Cell::new(0),
            zeroed: Cell::new(0),
            preparing: Cell::new(false),
            stage: Cell::new(Stage::Active),
            began: Cell::new(None),
            index: RefCell::new(index),
            index_stored: Cell::new(false),
            waiting: RefCell::new(None),
            tail: RefCell::new(Tail::new(Rc::clone(&memory.tail))),
            cold: Rc::clone(&memory.cold),
            retired: Cell::new(false),
            replaced: Cell::new(false),
            has_holes: Cell::new(false),
            transactions: SegmentTransactions::new(),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.extent.get().end
    }

    /// Bytes from a record to its end.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let Extent { end, next_offset, .. } = self.extent.get();
        if offset >= next_offset {
            return 0;
        }
        let Some(before) = offset.distance_from(self.base_offset).filter(|before| *before > 0) else {
            return end;
        };
        let indexed = self.index.borrow().as_ref().and_then(|index| index.floor(offset));
        let all = next_offset.get() - self.base_offset.get();
        let position = indexed.map_or_else(
            || (u128::from(end) * u128::from(before) / u128::from(all)) as u64,
            |(position, _)| position,
        );
        end.saturating_sub(position)
    }

    /// How old its newest record is, for retention and compaction.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        let mut extent = self.extent.get();
        let age = extent.times.age(now);
        self.extent.set(extent);
        age
    }

    /// Whether nothing is left to write or flush.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.get() == self.end()
    }

    /// Whether nothing will be done to its file any more but to cut it to its size.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.stage.get() != Stage::Active && self.is_durable() && !self.preparing.get()
    }

    /// Whether the next segment may begin at `offset`. Where a truncation has left a hole at the end, it then ends there.
    pub(crate) fn reaches(&self, offset: Offset) -> bool {
        let mut extent = self.extent.get();
        if self.has_holes.get() && extent.next_offset < offset {
            extent.next_offset = offset;
            self.extent.set(extent);
        }
        extent.next_offset == offset
    }

    /// The open file, opened now if need be.
    pub(crate) async fn open(&self, disk: &D) -> Result<D::File, LogError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        self.check_names()?;
        let opened = disk.open(&self.path, false).await;
        if let Some(file) = self.file.get() {
            // Somebody else has opened it meanwhile, perhaps retention, which then took its name away.
            return Ok(file);
        }
        self.check_names()?;
        let file = opened.map_err(LogError::io("open", &self.path))?;
        self.file.put(file.clone(), disk.open_files());
        Ok(file)
    }

    /// If it was rolled and is at rest, it waits to be sealed from now on. Returns whether it did not before.
    pub(crate) fn await_sealing(&self, unsealed: &Rc<Unsealed>) -> bool {
        let is_due = self.stage.get() == Stage::Rolled && self.is_at_rest();
        let mut waiting = self.waiting.borrow_mut();
        let is_new = is_due && waiting.is_none();
        if is_new {
            *waiting = Some(unsealed.begin());
        }
        is_new
    }

    /// Its names are its own no longer. What is open of it stays open.
    pub(crate) fn retire(&self) {
        self.waiting.take();
        self.retired.set(true);
        self.file.keep(true);
    }

    /// It has got names of its own: it is opened by them when somebody needs it.
    pub(crate) fn is_named(&self) {
        self.retired.set(false);
        self.file.keep(false);
        self.file.close();
    }

    fn check_names(&self) -> Result<(), LogError> {
        if self.retired.get() {
            let directory = self.path.parent().unwrap_or(&self.path).to_owned();
            return Err(if self.replaced.get() {
                LogError::Replaced { directory }
            } else {
                LogError::Retired { directory }
            });
        }
        Ok(())
    }

    /// A truncation drops something of it that is durable or was named, or all: whoever has it in [`Sight`] is told so.
    pub(crate) fn cut(&self) {
        self.cuts.set(self.cuts.get() + 1);
        self.goes_on.set(None);
    }

    /// Bytes at `position` from memory, copied together if they go over the end of a chunk; `None` if they are not all there.
    pub(crate) fn tail_copy(&self, position: u64, length: usize) -> Option<Vec<u8>> {
        let end = position + length as u64;
        let mut copy = Vec::with_capacity(length);
        while copy.len() < length {
            copy.extend_from_slice(&self.tail_slice(position + copy.len() as u64, end)?);
        }
        Some(copy)
    }

    /// Bytes at `position` from memory, up to `end`.
    pub(crate) fn tail_slice(&self, position: u64, end: u64) -> Option<HeldBytes> {
        self.tail.borrow().slice(position, end)
    }
}

/// A segment as somebody has found it, who waits for the disk and goes on with what he knows of it. What was appended never
/// changes, unless a truncation drops it; then [`LogError::Truncated`] takes the place of whatever was read since.
#[derive(Debug)]
pub(crate) struct Sight<D: Disk> {
    segment: Rc<Segment<D>>,
    cuts: u64,
}

impl<D: Disk> Sight<D> {
    /// As it is now.
    pub(crate) fn of(segment: &Rc<Segment<D>>) -> Sight<D> {
        Sight {
            segment: Rc::clone(segment),
            cuts: segment.cuts.get(),
        }
    }

    /// Whether what is known of it is still true. Not for longer than until the next await.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.segment.cuts.get() == self.cuts {
            Ok(())
        } else {
            Err(LogError::Truncated)
        }
    }

    /// What somebody has waited for, or could not get, if the segment is still the same.
    pub(crate) fn still<T>(&self, found: Result<T, LogError>) -> Result<T, LogError> {
        self.check()?;
        found
    }
}

impl<D: Disk> Clone for Sight<D> {
    fn clone(&self) -> Self {
        Sight {
            segment: Rc::clone(&self.segment),
            cuts: self.cuts,
        }
    }
}

impl<D: Disk> Deref for Sight<D> {
    type Target = Rc<Segment<D>>;

    fn deref(&self) -> &Rc<Segment<D>> {
        &self.segment
    }
}
