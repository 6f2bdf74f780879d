//! What was promised and what was seen, of each partition: the only judge of a run.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::machine::simulated::World;

/// A record that a producer sends: who sends it, and the how-manieth of this partition it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sent {
    pub(super) producer: u32,
    pub(super) number: u32,
    /// Sent again after a failure, it may not be there twice.
    pub(super) is_idempotent: bool,
}

/// Bytes of a value, at least.
const VALUE_MIN: usize = 12;

impl Sent {
    /// The value, which nothing but this record has.
    pub(super) fn value(self) -> Vec<u8> {
        let mut value = Vec::new();
        value.extend_from_slice(&self.producer.to_le_bytes());
        value.extend_from_slice(&self.number.to_le_bytes());
        value.extend_from_slice(&u32::from(self.is_idempotent).to_le_bytes());
        let mixed = self.number.wrapping_mul(2_654_435_761).wrapping_add(self.producer);
        // Most are small, some are several blocks.
        let length = if mixed.is_multiple_of(13) {
            mixed % 9000
        } else {
            mixed % 120
        };
        value.extend((0..length).map(|at| (mixed.wrapping_add(at) % 251) as u8));
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
            is_idempotent: word(8) == 1,
        };
        assert_eq!(sent.value(), value, "nobody has sent this value");
        sent
    }
}

#[derive(Default)]
struct Page {
    /// Acknowledged, with the offset that the acknowledgement names.
    promised: BTreeMap<Sent, u64>,
    /// What a consumer was handed, by offset.
    seen: BTreeMap<u64, Sent>,
    /// The end of what a consumer may see, as each reader was told last.
    watermarks: BTreeMap<u32, u64>,
    /// What was deleted on purpose ends here.
    deleted: u64,
    /// What members of the group were handed.
    processed: BTreeSet<u64>,
    /// The newest commit of the group that was acknowledged, and the highest that was asked for.
    committed: u64,
    commit_max: u64,
}

/// Of a whole run.
pub(super) struct Ledger {
    world: Rc<World>,
    pages: RefCell<BTreeMap<i32, Page>>,
}

impl Ledger {
    pub(super) fn new(world: &Rc<World>) -> Ledger {
        Ledger {
            world: Rc::clone(world),
            pages: RefCell::default(),
        }
    }

    /// The broker has acknowledged these records; the first has the offset.
    pub(super) fn promise(&self, partition: i32, records: &[Sent], base_offset: i64) {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        for (offset, record) in (base_offset.cast_unsigned()..).zip(records) {
            let before = page.promised.insert(*record, offset);
            assert!(
                before.is_none() || !record.is_idempotent || before == Some(offset),
                "{record:?} in partition {partition} was at {before:?} and is at {offset}"
            );
            if let Some(seen) = page.seen.get(&offset) {
                assert_eq!(
                    seen, record,
                    "two records have offset {offset} of partition {partition}"
                );
            }
        }
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

    /// A reader was told how far the partition goes.
    pub(super) fn watermark(&self, reader: u32, partition: i32, high_watermark: i64) {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        let now = high_watermark.cast_unsigned();
        let before = page.watermarks.insert(reader, now).unwrap_or_default();
        assert!(
            now >= before,
            "the high watermark of partition {partition} went back from {before} to {now}"
        );
    }

    /// A member of the group was handed a record.
    pub(super) fn process(&self, partition: i32, offset: u64) {
        self.on(partition, |page| page.processed.insert(offset));
    }

    /// A member asks for a commit.
    pub(super) fn begin_commit(&self, partition: i32, position: u64) {
        self.on(partition, |page| {
            if let Some(last) = position.checked_sub(1) {
                assert!(
                    page.processed.contains(&last),
                    "what lies before {position} of partition {partition} was not processed"
                );
            }
            page.commit_max = page.commit_max.max(position);
        });
    }

    /// A commit is acknowledged.
    pub(super) fn end_commit(&self, partition: i32, position: u64) {
        self.on(partition, |page| {
            assert!(
                position >= page.committed,
                "a commit of partition {partition} went back from {} to {position}",
                page.committed
            );
            page.committed = position;
        });
    }

    /// A member learns how far the group has come.
    pub(super) fn found_commit(&self, partition: i32, position: u64) {
        self.on(partition, |page| {
            assert!(
                (page.committed..=page.commit_max).contains(&position),
                "the commit of partition {partition} is {position}; {} was acknowledged and at most {} asked for",
                page.committed,
                page.commit_max
            );
        });
    }

    /// Whether the group was handed everything that was acknowledged.
    pub(super) fn is_processed(&self) -> bool {
        let pages = self.pages.borrow();
        pages.values().all(|page| {
            let mut offsets = page.promised.values();
            offsets.all(|offset| page.processed.contains(offset) || *offset < page.deleted)
        })
    }

    fn on<T>(&self, partition: i32, what: impl FnOnce(&mut Page) -> T) -> T {
        what(self.pages.borrow_mut().entry(partition).or_default())
    }

    /// Compares a whole partition, as it is read in the end, with what was promised and seen.
    pub(super) fn close(&self, partition: i32, log: &[(u64, Sent)]) {
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(partition).or_default();
        let by_offset: BTreeMap<u64, Sent> = log.iter().copied().collect();
        assert_eq!(
            by_offset.len(),
            log.len(),
            "an offset of partition {partition} comes twice"
        );
        for (expected, (offset, record)) in (page.deleted..).zip(log) {
            assert_eq!(
                expected, *offset,
                "before {record:?} there is a hole in partition {partition}"
            );
        }
        for (offset, record) in page.seen.range(page.deleted..) {
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
        for (record, offset) in page.promised.iter().filter(|(_, offset)| **offset >= page.deleted) {
            let place = places.get(record);
            assert!(
                place.is_some_and(|places| places.contains(offset)),
                "{record:?} was acknowledged at offset {offset} of partition {partition}, and is at {place:?}"
            );
        }
        check_order(partition, log);
        self.world.tell(
            None,
            format!("partition {partition} holds {} records as it should", log.len()),
        );
    }

    /// Records that were acknowledged.
    pub(super) fn promised(&self) -> usize {
        self.pages.borrow().values().map(|page| page.promised.len()).sum()
    }
}

/// The records of each producer stand in the order in which they were sent: of an idempotent one each once and none missing, of
/// another the first of each.
fn check_order(partition: i32, log: &[(u64, Sent)]) {
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let mut known: BTreeSet<Sent> = BTreeSet::new();
    for (offset, record) in log {
        let is_new = known.insert(*record);
        assert!(
            is_new || !record.is_idempotent,
            "{record:?} is twice in partition {partition}, again at {offset}"
        );
        if is_new {
            let expected = next.entry(record.producer).or_default();
            assert_eq!(
                *expected, record.number,
                "partition {partition} at {offset}: {record:?} is out of order"
            );
            *expected += 1;
        }
    }
}
