//! Records that were read from disk for consumers, past the page cache.
//!
//! A piece of a segment file is read by direct I/O into a core's own memory, which is used again and again: the page cache would
//! have the kernel find, zero and map fresh pages for records that are sent once. All pieces of a core share one budget.
//! Nobody owns a piece: one that a consumer has passed gives way to the next, and so does one that nobody has asked for in a
//! while, because its consumer does not read. When nothing gives way there is no memory, and the caller does without.
//!
//! Owned by one core. What it names is durable, so the bytes behind a position change only when a log is
//! truncated.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};

use crate::{
    disk::{BLOCK_SIZE, BlockBuffer, BlockPool, HeldBytes, REGION_SIZE, SegmentFile},
    segment::SegmentId,
};

/// Most bytes of one piece: a disk reads them about as fast as more, and two fit a huge page.
const PIECE_BYTES_MAX: u64 = 1 << 20;

/// A piece is read up to a multiple of this, so that pieces are few.
const UNIT_BYTES: u64 = 64 << 10;

/// A piece that nobody has asked for in this time may give way. Far above the time in which a consumer that reads gets to it.
const PATIENCE: Duration = Duration::from_millis(100);

/// One core's memory for pieces of segment files.
pub struct ColdMemory {
    pool: BlockPool,
    limit: usize,
    /// By segment and position. Those of one segment do not begin at the same position, but may overlap.
    pieces: RefCell<BTreeMap<(SegmentId, u64), Piece>>,
}

struct Piece {
    /// Position after its last byte that may be sent.
    end: u64,
    /// `None` if the disk did not give what the piece should hold.
    read: Shared<LocalBoxFuture<'static, Option<Rc<BlockBuffer>>>>,
    asked: Cell<Instant>,
    /// A consumer has gone on to what follows.
    passed: Cell<bool>,
}

impl fmt::Debug for ColdMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdMemory")
            .field("limit", &self.limit)
            .field("mapped", &self.mapped())
            .finish_non_exhaustive()
    }
}

impl ColdMemory {
    /// At most so many bytes, in whole huge pages; with less than one there never is any.
    pub fn new(limit: usize) -> ColdMemory {
        ColdMemory {
            pool: BlockPool::new(limit),
            limit,
            pieces: RefCell::default(),
        }
    }

    /// Maps the whole budget now, so that no read waits for memory.
    pub(crate) fn prefault(&self) {
        self.pool.prefault(self.limit);
    }

    /// Bytes that it has of the machine.
    pub fn mapped(&self) -> usize {
        self.pool.mapped()
    }

    /// Whether the byte at `position`, which a consumer is about to get, has been read or is being read.
    pub(crate) fn holds(&self, segment: SegmentId, position: u64, now: Instant) -> bool {
        self.ask(segment, position, now).is_some()
    }

    /// Keeps the piece that holds the byte from giving way. Returns its end.
    fn ask(&self, segment: SegmentId, position: u64, now: Instant) -> Option<u64> {
        let pieces = self.pieces.borrow();
        let (_, piece) = piece_at(&pieces, segment, position)?;
        piece.asked.set(now);
        piece.passed.set(false);
        Some(piece.end)
    }

    /// Begins to read what is not there yet of `[position, position + length)`, and perhaps a little more, but nothing at or
    /// after `durable_end`. Returns whether all of it is there or under way: there may be no memory for it.
    pub(crate) fn begin<F: SegmentFile>(
        &self,
        file: &F,
        segment: SegmentId,
        mut position: u64,
        length: u64,
        durable_end: u64,
        now: Instant,
    ) -> bool {
        let end = durable_end.min(position + length);
        while position < end {
            if let Some(end) = self.ask(segment, position, now) {
                position = end;
                continue;
            }
            let start = position / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
            let limit = durable_end
                .next_multiple_of(BLOCK_SIZE as u64)
                .min(start + PIECE_BYTES_MAX);
            let next = next_after(&self.pieces.borrow(), segment, start).unwrap_or(u64::MAX);
            let length = end.next_multiple_of(UNIT_BYTES).min(limit).min(next) - start;
            let Some(buffer) = self.take(length as usize, now) else {
                return false;
            };
            let read = file.read_into(buffer, start, length as usize);
            let read = read.map(|read| {
                read.inspect_err(|error| tracing::debug!(%error, "a direct read failed"))
                    .ok()
            });
            let piece = Piece {
                end: durable_end.min(start + length),
                read: read.map(|buffer| buffer.map(Rc::new)).boxed_local().shared(),
                asked: Cell::new(now),
                passed: Cell::new(false),
            };
            position = piece.end;
            self.pieces.borrow_mut().insert((segment, start), piece);
        }
        true
    }

    /// The bytes from `position` on, up to `end`, as far as one piece holds them, for a consumer that goes on there; waits for
    /// them if they are being read. `None` if nobody has begun to, or they cannot be read.
    pub(crate) async fn bytes(&self, segment: SegmentId, position: u64, end: u64, now: Instant) -> Option<HeldBytes> {
        self.ask(segment, position, now)?;
        self.pass(segment, position);
        let bytes = self.look(segment, position).await?;
        bytes.first((end - position) as usize)
    }

    /// The same, up to the end of the piece, for somebody who only wants to know.
    pub(crate) async fn look(&self, segment: SegmentId, position: u64) -> Option<HeldBytes> {
        let (start, end, read) = {
            let pieces = self.pieces.borrow();
            let (start, piece) = piece_at(&pieces, segment, position)?;
            (start, piece.end, piece.read.clone())
        };
        let range = (position - start) as usize..(end - start) as usize;
        let bytes = read.await.and_then(|buffer| HeldBytes::new(buffer, range));
        if bytes.is_none() {
            // The disk has failed, or the file is shorter: whoever reads it otherwise will find out.
            self.pieces.borrow_mut().remove(&(segment, start));
        }
        bytes
    }

    /// A consumer has gone on to `position`: what lies before has been sent.
    fn pass(&self, segment: SegmentId, position: u64) {
        let pieces = self.pieces.borrow();
        let before = pieces.range((segment, 0)..=(segment, position)).rev().nth(1);
        if let Some((_, before)) = before {
            before.passed.set(true);
        }
    }

    /// The segment was cut at `position`: what was behind it is no longer true.
    pub(crate) fn forget(&self, segment: SegmentId, position: u64) {
        let stays = |key: &(SegmentId, u64), piece: &Piece| key.0 != segment || piece.end <= position;
        self.pieces.borrow_mut().retain(|key, piece| stays(key, piece));
    }

    /// Forgets everything, and returns when no read is under way any more: before the disk goes, which would lose its memory.
    pub async fn close(&self) {
        let pieces = self.pieces.take();
        for (_, piece) in pieces {
            piece.read.await;
        }
    }

    /// An empty buffer, of a power of two, for so many bytes.
    fn take(&self, length: usize, now: Instant) -> Option<BlockBuffer> {
        let capacity = length.next_power_of_two();
        loop {
            if let Some(buffer) = self.pool.take(capacity) {
                return Some(buffer);
            }
            if self.mapped() + REGION_SIZE <= self.limit {
                self.pool.grow();
            } else if !self.give_way(now) {
                return None;
            }
        }
    }

    /// Forgets the piece that was asked for longest ago of those that a consumer has passed, or that nobody waits for any
    /// more. False if there is none.
    fn give_way(&self, now: Instant) -> bool {
        let mut pieces = self.pieces.borrow_mut();
        let may_go = |piece: &Piece| {
            let is_read = piece.read.peek().is_some();
            (piece.passed.get() && is_read) || now.saturating_duration_since(piece.asked.get()) >= PATIENCE
        };
        let first = pieces
            .iter()
            .filter(|(_, piece)| may_go(piece))
            .min_by_key(|(_, piece)| piece.asked.get());
        let key = first.map(|(key, _)| *key);
        key.is_some_and(|key| pieces.remove(&key).is_some())
    }
}

/// The piece that holds the byte, and where it begins.
fn piece_at(pieces: &BTreeMap<(SegmentId, u64), Piece>, segment: SegmentId, position: u64) -> Option<(u64, &Piece)> {
    let (key, piece) = pieces.range((segment, 0)..=(segment, position)).next_back()?;
    (position < piece.end).then_some((key.1, piece))
}

/// Where the next piece after `position` begins.
fn next_after(pieces: &BTreeMap<(SegmentId, u64), Piece>, segment: SegmentId, position: u64) -> Option<u64> {
    let later = pieces.range((segment, position + 1)..=(segment, u64::MAX)).next();
    later.map(|((_, start), _)| *start)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::OnceLock};

    use futures::channel::oneshot;
    use proptest::prelude::*;

    use super::*;
    use crate::disk::ReadOnly;

    const MIB: u64 = 1 << 20;

    /// What a file holds: every MiB of it the same, as bytes that are made one by one take longer than all the rest.
    fn content() -> &'static [u8] {
        static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
        let byte_at = |position: u64| (position / 4096 * 31 + position) as u8;
        CONTENT.get_or_init(|| (0..MIB).map(byte_at).collect())
    }

    /// The same from a position on, piece by piece.
    fn content_from(position: u64, mut length: usize) -> impl Iterator<Item = &'static [u8]> {
        let mut at = (position % MIB) as usize;
        std::iter::from_fn(move || {
            let piece = &content()[at..];
            let piece = &piece[..piece.len().min(length)];
            (at, length) = (0, length - piece.len());
            (!piece.is_empty()).then_some(piece)
        })
    }

    fn is_content(bytes: &[u8], position: u64) -> bool {
        let mut rest = bytes;
        content_from(position, bytes.len()).all(|piece| {
            let (bytes, behind) = rest.split_at(piece.len());
            rest = behind;
            bytes == piece
        })
    }

    /// Reads of a file that wait until they are let go.
    #[derive(Default)]
    struct Reads {
        waiting: RefCell<Vec<oneshot::Sender<io::Result<()>>>>,
        begun: Cell<usize>,
    }

    impl Reads {
        fn file(self: &Rc<Self>, size: u64) -> ReadOnly {
            let reads = Rc::clone(self);
            let read = move |position: u64, length: usize| {
                assert!(position.is_multiple_of(BLOCK_SIZE as u64) && length.is_multiple_of(BLOCK_SIZE));
                reads.begun.set(reads.begun.get() + 1);
                let (end, ended) = oneshot::channel();
                reads.waiting.borrow_mut().push(end);
                async move {
                    ended.await.expect("every read is ended")?;
                    let length = size.min(position + length as u64).saturating_sub(position);
                    Ok(content_from(position, length as usize).collect::<Vec<_>>().concat())
                }
                .boxed_local()
            };
            let read = Rc::new(read);
            ReadOnly { size, read }
        }

        /// Ends all reads that are under way.
        fn end(&self, result: fn() -> io::Result<()>) {
            for end in self.waiting.take() {
                // Nobody may wait for it any more.
                let _ = end.send(result());
            }
        }
    }

    struct Setting {
        memory: ColdMemory,
        reads: Rc<Reads>,
        file: ReadOnly,
        segment: SegmentId,
        now: Instant,
    }

    impl Setting {
        fn new(limit: usize, size: u64) -> Setting {
            let reads = Rc::new(Reads::default());
            Setting {
                memory: ColdMemory::new(limit),
                file: reads.file(size),
                reads,
                segment: SegmentId::next(),
                now: Instant::now(),
            }
        }

        fn begin(&self, position: u64, length: u64) -> bool {
            self.begin_below(position, length, self.file.size)
        }

        fn begin_below(&self, position: u64, length: u64, durable_end: u64) -> bool {
            let (memory, file) = (&self.memory, &self.file);
            memory.begin(file, self.segment, position, length, durable_end, self.now)
        }

        /// What is there at once.
        fn bytes(&self, position: u64, end: u64) -> Option<HeldBytes> {
            let bytes = self.memory.bytes(self.segment, position, end, self.now);
            bytes.now_or_never().expect("the disk is done")
        }

        /// Reads everything in order, piece by piece.
        fn read_on(&self, mut position: u64, end: u64) {
            while position < end {
                let is_there = self.memory.holds(self.segment, position, self.now);
                assert!(
                    is_there || self.begin(position, MIB.min(end - position)),
                    "at {position}"
                );
                self.reads.end(|| Ok(()));
                let bytes = self.bytes(position, end).unwrap();
                assert!(is_content(&bytes, position));
                position += bytes.len() as u64;
            }
        }
    }

    #[test]
    fn whoever_reads_in_order_reads_any_length_in_little_memory_and_nothing_twice() {
        let size = 40 * MIB + 12_345;
        let setting = Setting::new(REGION_SIZE, size);
        setting.read_on(5_000, size);
        assert!(setting.memory.mapped() <= REGION_SIZE);
        assert_eq!(setting.reads.begun.get(), 41);
    }

    #[test]
    fn what_is_not_passed_stays_until_nobody_has_asked_for_it_for_long() {
        let mut setting = Setting::new(REGION_SIZE, 100 * MIB);
        assert!(setting.begin(0, 2 * MIB));
        setting.reads.end(|| Ok(()));
        assert!(!setting.begin(50 * MIB, 1), "both pieces may still be wanted");
        assert_eq!(setting.bytes(0, 2 * MIB).unwrap().len() as u64, MIB);
        assert!(
            !setting.begin(50 * MIB, 1),
            "the first may not have been sent as a whole"
        );
        setting.bytes(MIB, 2 * MIB).unwrap();
        assert!(setting.begin(50 * MIB, 1), "the first was passed");
        setting.reads.end(|| Ok(()));
        assert!(!setting.begin(60 * MIB, MIB));
        setting.now += PATIENCE;
        assert!(setting.begin(60 * MIB, MIB), "its consumer does not read");
        assert!(setting.memory.mapped() <= REGION_SIZE);
    }

    #[test]
    fn a_read_that_nobody_waits_for_any_more_gives_its_memory_back() {
        let mut setting = Setting::new(REGION_SIZE, 100 * MIB);
        assert!(setting.begin(0, 2 * MIB));
        assert!(!setting.begin(10 * MIB, 2 * MIB));
        setting.now += PATIENCE;
        assert!(setting.begin(10 * MIB, 2 * MIB));
        assert!(setting.memory.mapped() <= REGION_SIZE);
    }

    #[test]
    fn a_read_that_fails_or_ends_early_is_nothing_and_can_be_tried_again() {
        let setting = Setting::new(REGION_SIZE, MIB);
        assert!(setting.begin(0, MIB));
        setting.reads.end(|| Err(io::ErrorKind::Other.into()));
        assert!(setting.bytes(0, MIB).is_none());
        assert!(!setting.memory.holds(setting.segment, 0, setting.now));
        setting.read_on(0, MIB);
        // The file is shorter than the log believes.
        assert!(setting.begin_below(MIB, MIB, 2 * MIB));
        setting.reads.end(|| Ok(()));
        assert!(setting.bytes(MIB, 2 * MIB).is_none());
        assert!(!setting.memory.holds(setting.segment, MIB, setting.now));
    }

    #[test]
    fn what_becomes_durable_later_is_read_then() {
        let setting = Setting::new(REGION_SIZE, MIB);
        assert!(setting.begin_below(0, MIB, 10_000));
        setting.reads.end(|| Ok(()));
        assert_eq!(setting.bytes(9_000, MIB).unwrap().len(), 1_000);
        assert!(setting.bytes(10_000, MIB).is_none());
        setting.read_on(10_000, MIB);
    }

    #[test]
    fn behind_a_cut_nothing_is_believed_and_other_segments_are_left_alone() {
        let setting = Setting::new(2 * REGION_SIZE, 3 * MIB);
        let other = SegmentId::next();
        assert!(setting.begin(0, 3 * MIB));
        assert!(setting.memory.begin(&setting.file, other, 0, MIB, MIB, setting.now));
        let holds = |segment, position| setting.memory.holds(segment, position, setting.now);
        setting.memory.forget(setting.segment, MIB);
        assert!(holds(setting.segment, MIB - 1) && holds(other, 0));
        assert!(!holds(setting.segment, MIB) && !holds(setting.segment, 2 * MIB));
        setting.memory.forget(setting.segment, MIB - 1);
        assert!(!holds(setting.segment, 0));
    }

    #[test]
    fn closing_waits_for_what_the_disk_still_reads() {
        let setting = Setting::new(REGION_SIZE, 2 * MIB);
        assert!(setting.begin(0, 2 * MIB));
        let mut closing = Box::pin(setting.memory.close());
        assert!(closing.as_mut().now_or_never().is_none());
        setting.reads.end(|| Ok(()));
        assert!(closing.as_mut().now_or_never().is_some());
        assert!(!setting.memory.holds(setting.segment, 0, setting.now));
    }

    #[test]
    fn without_memory_nothing_is_read() {
        let setting = Setting::new(REGION_SIZE - 1, MIB);
        assert!(!setting.begin(0, MIB));
        assert_eq!((setting.reads.begun.get(), setting.memory.mapped()), (0, 0));
    }

    proptest! {
        #[test]
        fn whatever_readers_ask_for_they_get_what_the_file_holds_within_the_budget(
            regions in 0..4_usize,
            size in 1..8 * MIB,
            steps in prop::collection::vec((0..2_usize, any::<prop::sample::Index>(), 1..3 * MIB, 0..4_u8), 1..60),
        ) {
            let mut setting = Setting::new(regions * REGION_SIZE, size);
            let segments = [SegmentId::next(), SegmentId::next()];
            let mut has_failed = false;
            for (segment, place, length, then) in steps {
                setting.segment = segments[segment];
                let position = place.index(size as usize) as u64;
                let begun = setting.begin(position, length);
                prop_assert!(setting.memory.mapped() <= regions * REGION_SIZE);
                let failing = then == 1;
                has_failed |= failing;
                setting.reads.end(if failing { || Err(io::ErrorKind::Other.into()) } else { || Ok(()) });
                if then == 0 {
                    setting.now += PATIENCE;
                }
                let end = size.min(position + length);
                let bytes = setting.bytes(position, end);
                prop_assert!(bytes.is_some() || has_failed || !begun);
                if let Some(bytes) = bytes {
                    prop_assert!(!bytes.is_empty() && bytes.len() as u64 <= end - position);
                    prop_assert!(is_content(&bytes, position));
                }
            }
        }
    }
}
