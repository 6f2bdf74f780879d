//! What was promised and what was seen, of each partition: the only judge of a run.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use super::{judge::Extent, retention::Retention};
use crate::machine::simulated::World;

/// A record that a producer sends: who sends it, and the how-manieth of this partition it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sent {
    pub(super) producer: u32,
    pub(super) number: u32,
    /// Sent again after a failure, it may not be there twice.
    pub(super) is_idempotent: bool,
    /// Alone in its batch it fills a block of the disk, as all others do: so batches that were never acknowledged lie where others come
    /// to lie, and would go on from them.
    is_even: bool,
}

/// Bytes of a value, at least.
const VALUE_MIN: usize = 12;

/// Bytes of the largest value, but for those.
const VALUE_MAX: usize = 9000;

/// Bytes of a value that makes a batch of 4,096 bytes.
const VALUE_EVEN: usize = 4096 - 70;

/// Values are cut out of this. It is no power of two, so that no two blocks of a disk look the same.
const CYCLE: usize = 251;
static PATTERN: [u8; CYCLE + VALUE_MAX] = {
    let mut bytes = [0; CYCLE + VALUE_MAX];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % CYCLE) as u8;
        at += 1;
    }
    bytes
};

impl Sent {
    pub(super) fn new(producer: u32, number: u32, is_idempotent: bool, is_even: bool) -> Sent {
        Sent {
            producer,
            number,
            is_idempotent,
            is_even,
        }
    }

    /// The value, which nothing but this record has.
    pub(super) fn value(self) -> Vec<u8> {
        let mut value = Vec::new();
        value.extend_from_slice(&self.producer.to_le_bytes());
        value.extend_from_slice(&self.number.to_le_bytes());
        let kind = u32::from(self.is_idempotent) + 2 * u32::from(self.is_even);
        value.extend_from_slice(&kind.to_le_bytes());
        let mixed = self.number.wrapping_mul(2_654_435_761).wrapping_add(self.producer);
        // Most are small, some are several blocks.
        let length = if self.is_even {
            (VALUE_EVEN - VALUE_MIN) as u32
        } else if mixed.is_multiple_of(13) {
            mixed % VALUE_MAX as u32
        } else {
            mixed % 120
        };
        let from = (mixed % CYCLE as u32) as usize;
        value.extend_from_slice(&PATTERN[from..from + length as usize]);
        value
    }

    /// Who has sent this value.
    ///
    /// # Panics
    /// When nobody has.
    pub(super) fn of(value: &[u8]) -> Sent {
        let word = |at: usize| {
            let bytes = value.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
            u32::from_le_bytes(*bytes.unwrap_or_else(|| panic!("a value of {} bytes", value.len())))
        };
        assert!(value.len() >= VALUE_MIN, "a value of {} bytes", value.len());
        let sent = Sent {
            producer: word(0),
            number: word(4),
            is_idempotent: word(8) & 1 == 1,
            is_even: word(8) & 2 == 2,
        };
        assert_eq!(sent.value(), value, "nobody has sent this value");
        sent
    }
}

#[derive(Default)]
struct Page {
    /// When each record was given to its producer.
    sent: BTreeMap<Sent, Duration>,
    /// Acknowledged, with the offset that the acknowledgement names.
    promised: BTreeMap<Sent, u64>,
    /// The last of those offsets.
    last_promised: Option<u64>,
    /// What a consumer was handed, by offset.
    seen: BTreeMap<u64, Sent>,
    /// The end of what a consumer may see, the furthest that each reader was told.
    watermarks: BTreeMap<u32, u64>,
    /// What was deleted on purpose ends here, or further on, but not beyond what was asked for.
    deleted: u64,
    delete_max: u64,
    /// Retention has deleted what lies before, or was about to, and deletes no more.
    kept_from: u64,
    /// What members of the group were handed.
    processed: BTreeSet<u64>,
    /// The furthest commit of the group that was acknowledged, and the furthest that there can be.
    committed: u64,
    commit_max: u64,
}

/// Of a whole run.
pub(super) struct Ledger {
    world: Rc<World>,
    pages: RefCell<BTreeMap<i32, Page>>,
    /// What was kept until all was.
    retention: Option<Retention>,
    all_kept_since: Cell<Option<Duration>>,
    /// A new leader may know less of what is acknowledged than the one before.
    has_leaders: bool,
}

/// The broker's clock goes a little faster than the world, and timestamps are whole milliseconds.
const AGE_TOLERANCE: Duration = Duration::from_millis(20);

impl Ledger {
    pub(super) fn new(world: &Rc<World>, retention: Option<Retention>, has_leaders: bool) -> Ledger {
        Ledger {
            has_leaders,
            world: Rc::clone(world),
            pages: RefCell::default(),
            retention,
            all_kept_since: Cell::default(),
        }
    }

    pub(super) fn world(&self) -> &Rc<World> {
        &self.world
    }

    /// A producer is given a record.
    pub(super) fn send(&self, partition: i32, record: Sent) {
        let now = self.world.now();
        self.on(partition, |page| page.sent.insert(record, now));
    }

    /// A record was acknowledged, with this offset.
    pub(super) fn promise(&self, partition: i32, record: Sent, offset: u64) {
        self.on(partition, |page| {
            let before = page.promised.insert(record, offset);
            page.last_promised = page.last_promised.max(Some(offset));
            assert!(
                before.is_none(),
                "{record:?} of partition {partition} was acknowledged before, at {before:?}"
            );
            if let Some(seen) = page.seen.get(&offset) {
                assert_eq!(
                    *seen, record,
                    "two records have offset {offset} of partition {partition}"
                );
            }
        });
    }

    /// A consumer was handed a record.
    pub(super) fn see(&self, partition: i32, offset: u64, record: Sent) {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        let before = page.seen.insert(offset, record);
        assert!(
            before.is_none_or(|before| before == record),
            "offset {offset} of partition {partition} was {before:?} and is {record:?}"
        );
    }

    /// A reader was told how far the partition goes. Returns the furthest that it was told.
    pub(super) fn watermark(&self, reader: u32, partition: i32, now: u64) -> u64 {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        let furthest = page.watermarks.entry(reader).or_default();
        assert!(
            now >= *furthest || self.has_leaders,
            "the high watermark of partition {partition} went back from {furthest} to {now}"
        );
        *furthest = now.max(*furthest);
        *furthest
    }

    /// Somebody asks for the deletion of what lies before.
    pub(super) fn begin_delete(&self, partition: i32, before: u64) {
        self.on(partition, |page| page.delete_max = page.delete_max.max(before));
    }

    /// A deletion is acknowledged: the partition begins here.
    pub(super) fn end_delete(&self, partition: i32, start: u64) {
        self.on(partition, |page| {
            assert!(
                start <= page.delete_max,
                "more of partition {partition} is deleted than was asked for"
            );
            page.deleted = page.deleted.max(start);
        });
    }

    /// Retention deletes nothing any more.
    pub(super) fn keep_all(&self) {
        self.all_kept_since.set(Some(self.world.now()));
    }

    /// As far as that has deleted, now that it has ended.
    pub(super) fn begin_at(&self, partition: i32, start: u64) {
        self.pass_over(partition, 0, start);
        self.on(partition, |page| page.kept_from = start);
    }

    /// A reader was handed nothing of what lies between.
    pub(super) fn pass_over(&self, partition: i32, from: u64, to: u64) {
        self.on(partition, |page| self.may_be_gone(partition, page, from, to));
    }

    /// What is gone was deleted on purpose, or is older than what is kept. Whether it was too much is seen when the whole log is.
    fn may_be_gone(&self, partition: i32, page: &Page, from: u64, to: u64) {
        let gone = from.max(page.delete_max)..to;
        if gone.is_empty() {
            return;
        }
        let Some(retention) = self.retention else {
            panic!("what lies at {gone:?} of partition {partition} is gone");
        };
        let Retention::Age(age) = retention else { return };
        let until = self.all_kept_since.get().unwrap_or(self.world.now()) + AGE_TOLERANCE;
        for (record, offset) in page.promised.iter().filter(|(_, offset)| gone.contains(offset)) {
            let was = until.saturating_sub(page.sent[record]);
            assert!(
                was >= age,
                "{record:?} at {offset} of partition {partition} is gone, and was sent {was:?} ago; {age:?} are kept"
            );
        }
    }

    /// A member of the group was handed a record. From now on it may be committed, by the library too.
    pub(super) fn process(&self, partition: i32, offset: u64) {
        self.on(partition, |page| {
            let next = page.processed.range(..offset).next_back().map_or(0, |last| last + 1);
            self.may_be_gone(partition, page, next, offset);
            page.processed.insert(offset);
            page.commit_max = page.commit_max.max(offset + 1);
        });
    }

    /// How far a partition was committed by what has been acknowledged so far.
    pub(super) fn committed(&self, partition: i32) -> u64 {
        self.on(partition, |page| page.committed)
    }

    /// So much of a partition at least is committed.
    pub(super) fn end_commit(&self, partition: i32, position: u64) {
        self.on(partition, |page| {
            // What is deleted need not be processed.
            self.may_be_gone(partition, page, page.commit_max, position);
            page.committed = page.committed.max(position);
        });
    }

    /// A member learns how far the group has come; `before` it asked so much was committed.
    pub(super) fn found_commit(&self, partition: i32, before: u64, position: u64) {
        self.on(partition, |page| {
            assert!(
                before <= position,
                "the commit of partition {partition} is {position}; {before} was acknowledged"
            );
            self.may_be_gone(partition, page, page.commit_max, position);
        });
    }

    /// Whether the group was handed everything that was acknowledged.
    pub(super) fn is_processed(&self) -> bool {
        let pages = self.pages.borrow();
        pages.values().all(|page| {
            let mut offsets = page.promised.values();
            offsets.all(|offset| page.processed.contains(offset) || *offset < page.delete_max.max(page.kept_from))
        })
    }

    fn on<T>(&self, partition: i32, what: impl FnOnce(&mut Page) -> T) -> T {
        what(self.pages.borrow_mut().entry(partition).or_default())
    }

    /// Compares a whole partition from its start on, as it is read in the end, with what was promised and seen.
    pub(super) fn close(&self, partition: i32, extent: Extent, log: &[(u64, Sent)]) {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        let Extent { start, bytes, .. } = extent;
        self.may_be_gone(partition, page, 0, start);
        if let Some(Retention::Size(least)) = self.retention {
            assert!(
                start == 0 || bytes >= least,
                "{bytes} bytes of partition {partition} are left, from {start} on; {least} are kept"
            );
        }
        let latest = page.delete_max.max(page.kept_from);
        assert!(
            (page.deleted..=latest).contains(&start),
            "partition {partition} begins at {start}; it was to be from {} to {latest}",
            page.deleted
        );
        let by_offset: BTreeMap<u64, Sent> = log.iter().copied().collect();
        assert_eq!(
            by_offset.len(),
            log.len(),
            "an offset of partition {partition} comes twice"
        );
        for (expected, (offset, record)) in (start..).zip(log) {
            assert_eq!(
                expected, *offset,
                "before {record:?} there is a hole in partition {partition}"
            );
        }
        for (offset, record) in page.seen.range(start..) {
            let now = by_offset.get(offset);
            assert_eq!(
                now,
                Some(record),
                "offset {offset} of partition {partition}, which was seen before"
            );
        }
        let mut places: BTreeMap<Sent, Vec<u64>> = BTreeMap::new();
        for (offset, record) in log {
            places.entry(*record).or_default().push(*offset);
        }
        for (record, offset) in page.promised.iter().filter(|(_, offset)| **offset >= start) {
            let place = places.get(record);
            assert!(
                place.is_some_and(|places| places.contains(offset)),
                "{record:?} was acknowledged at offset {offset} of partition {partition}, and is at {place:?}"
            );
        }
        check_order(partition, start > 0, log);
        self.world.tell(
            None,
            format!("partition {partition} holds {} records as it should", log.len()),
        );
    }

    /// The offset of the last record that was acknowledged.
    pub(super) fn last_promised(&self, partition: i32) -> Option<u64> {
        self.on(partition, |page| page.last_promised)
    }

    /// Records that were acknowledged.
    pub(super) fn promised(&self) -> usize {
        self.pages.borrow().values().map(|page| page.promised.len()).sum()
    }
}

/// The records of each producer stand in the order in which they were sent: of an idempotent one each once and none missing, of
/// another the first of each. Where the oldest are deleted, the first of a producer may be any.
fn check_order(partition: i32, is_trimmed: bool, log: &[(u64, Sent)]) {
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let mut known: BTreeSet<Sent> = BTreeSet::new();
    for (offset, record) in log {
        let is_new = known.insert(*record);
        assert!(
            is_new || !record.is_idempotent,
            "{record:?} is twice in partition {partition}, again at {offset}"
        );
        if is_new {
            let first = if is_trimmed { record.number } else { 0 };
            let expected = next.entry(record.producer).or_insert(first);
            // A record that is there twice may be left once, behind its successors.
            let is_again = is_trimmed && !record.is_idempotent && record.number < *expected;
            if is_again {
                continue;
            }
            assert_eq!(
                *expected, record.number,
                "partition {partition} at {offset}: {record:?} is out of order"
            );
            *expected += 1;
        }
    }
}
