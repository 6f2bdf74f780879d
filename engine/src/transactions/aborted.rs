//! The aborted transactions whose markers one segment holds: in memory while the segment is in use, then in a side file.
//!
//! The file (`.txnindex`) is there only if there are any: "HWTX", version, base offset, count, the entries (producer, first offset,
//! offset of the marker) in the order of the markers, CRC-32C; big endian. The checkpoint knows the count. Like the index it never
//! decides anything: a missing or damaged one is made of the log again.

use std::cell::{Cell, RefCell};

use bytes::{Buf, BufMut};
use headwater_protocol::id::{Offset, ProducerId};

use super::Aborted;

/// Extension of the side file.
pub(crate) const EXTENSION: &str = "txnindex";

const MAGIC: u32 = 0x4857_5458;
const VERSION: u32 = 1;
const HEADER_LEN: usize = 20;
const ENTRY_LEN: usize = 24;
const CRC_LEN: usize = 4;

/// What the checkpoint says where the count is not known.
const UNKNOWN: i64 = -1;

/// What a segment knows of transactions.
#[derive(Debug)]
pub(crate) struct SegmentTransactions {
    /// In the order of their markers. `None`: in the side file, or to be found in the log.
    entries: RefCell<Option<Vec<Aborted>>>,
    /// How many there are when they are not in memory, if that is known.
    count: Cell<Option<u32>>,
    /// They are all in the side file.
    pub(crate) is_stored: Cell<bool>,
    /// First offset of the oldest transaction that was open where the segment begins.
    pub(crate) open_since: Cell<Option<Offset>>,
    /// There is a batch of a transaction in it, or a marker.
    pub(crate) has_any: Cell<bool>,
}

impl SegmentTransactions {
    /// Of an empty segment.
    pub(crate) fn new() -> SegmentTransactions {
        SegmentTransactions {
            entries: RefCell::new(Some(Vec::new())),
            count: Cell::new(None),
            is_stored: Cell::new(false),
            open_since: Cell::new(None),
            has_any: Cell::new(false),
        }
    }

    /// Of which the checkpoint says how many there are. They are read when somebody wants them.
    pub(crate) fn count_is(&self, stored: i64) {
        self.count.set(u32::try_from(stored).ok());
        *self.entries.borrow_mut() = (stored == 0).then(Vec::new);
        self.is_stored.set(false);
    }

    /// What a checkpoint says of how many have ended before `end`.
    pub(crate) fn count_to_store(&self, end: Offset) -> i64 {
        let ended = |entries: &Vec<Aborted>| entries.partition_point(|entry| entry.last_offset < end) as i64;
        let entries = self.entries.borrow();
        let known = || self.count.get().map_or(UNKNOWN, i64::from);
        entries.as_ref().map_or_else(known, ended)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.borrow().as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether they are in memory, and not in the side file.
    pub(crate) fn needs_storing(&self) -> bool {
        let entries = self.entries.borrow();
        !self.is_stored.get() && entries.as_ref().is_some_and(|entries| !entries.is_empty())
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.entries.borrow().is_some()
    }

    /// Those that were found or read.
    pub(crate) fn put(&self, entries: Vec<Aborted>, is_stored: bool) {
        *self.entries.borrow_mut() = Some(entries);
        self.is_stored.set(is_stored);
    }

    /// One has ended.
    pub(crate) fn add(&self, aborted: Aborted) {
        let mut entries = self.entries.borrow_mut();
        let entries = entries
            .as_mut()
            .expect("a segment that takes appends has them in memory");
        entries.push(aborted);
        self.is_stored.set(false);
    }

    /// The segment ends at `end` from now on.
    pub(crate) fn truncate(&self, end: Offset) {
        if let Some(entries) = self.entries.borrow_mut().as_mut() {
            entries.retain(|entry| entry.last_offset < end);
        }
        self.is_stored.set(false);
    }

    /// They are in the side file, and are read again when somebody wants them.
    pub(crate) fn forget_stored(&self) {
        let mut entries = self.entries.borrow_mut();
        if self.is_stored.get()
            && let Some(known) = entries.take_if(|entries| !entries.is_empty())
        {
            self.count.set(u32::try_from(known.len()).ok());
        }
    }

    /// Those, in memory, that have something from `from` up to `to`.
    pub(crate) fn overlapping(&self, from: Offset, to: Offset, out: &mut Vec<Aborted>) {
        let entries = self.entries.borrow();
        let entries = entries.iter().flatten();
        out.extend(entries.filter(|entry| entry.last_offset >= from && entry.first_offset < to));
    }

    /// Bytes of memory held.
    pub(crate) fn size(&self) -> usize {
        let entries = self.entries.borrow();
        entries.as_ref().map_or(0, Vec::capacity) * size_of::<Aborted>()
    }

    /// Content of the side file of those that have ended before `end`; `None` if they are not in memory.
    pub(crate) fn encode(&self, base_offset: Offset, end: Offset) -> Option<Vec<u8>> {
        let entries = self.entries.borrow();
        let entries = entries.as_ref()?;
        let entries = &entries[..entries.partition_point(|entry| entry.last_offset < end)];
        let mut out = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN + CRC_LEN);
        out.put_u32(MAGIC);
        out.put_u32(VERSION);
        out.put_u64(base_offset.get());
        out.put_u32(u32::try_from(entries.len()).ok()?);
        for entry in entries {
            out.put_i64(entry.producer_id.get());
            out.put_u64(entry.first_offset.get());
            out.put_u64(entry.last_offset.get());
        }
        out.put_u32(crc32c::crc32c(&out));
        Some(out)
    }

    /// Reads the side file of a segment that ends at `end`, if it is whole and has as many as are known to be there. It may have been
    /// written when there were more.
    pub(crate) fn decode(&self, base_offset: Offset, end: Offset, file: &[u8]) -> Option<Vec<Aborted>> {
        let (body, crc) = file.split_last_chunk::<CRC_LEN>()?;
        if u32::from_be_bytes(*crc) != crc32c::crc32c(body) || body.len() < HEADER_LEN {
            return None;
        }
        let mut rest = body;
        let head = (rest.get_u32(), rest.get_u32(), rest.get_u64());
        let count = rest.get_u32() as usize;
        if head != (MAGIC, VERSION, base_offset.get()) || rest.len() != count.checked_mul(ENTRY_LEN)? {
            return None;
        }
        let mut entries: Vec<Aborted> = Vec::with_capacity(count);
        while rest.has_remaining() {
            let producer_id = ProducerId::new(rest.get_i64());
            let mut offset = || Offset::try_from(rest.get_i64()).ok();
            let (first_offset, last_offset) = (offset()?, offset()?);
            let follows = entries.last().is_none_or(|last| last.last_offset < last_offset);
            if !follows || first_offset >= last_offset {
                return None;
            }
            entries.push(Aborted {
                producer_id,
                first_offset,
                last_offset,
            });
        }
        entries.retain(|entry| entry.last_offset < end);
        let is_right = |known: u32| entries.len() == known as usize;
        self.count.get().is_some_and(is_right).then_some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(producer: i64, first: u64, last: u64) -> Aborted {
        Aborted {
            producer_id: ProducerId::new(producer),
            first_offset: Offset::new(first),
            last_offset: Offset::new(last),
        }
    }

    #[test]
    fn a_side_file_reads_back_and_every_flipped_bit_is_noticed() {
        let (base, end) = (Offset::new(10), Offset::new(90));
        let segment = SegmentTransactions::new();
        let entries = vec![aborted(7, 3, 12), aborted(8, 11, 15), aborted(7, 40, 80)];
        for entry in &entries {
            segment.add(*entry);
        }
        let file = segment.encode(base, end).unwrap();
        segment.is_stored.set(true);
        segment.forget_stored();
        assert!(!segment.is_loaded());
        assert_eq!(segment.decode(base, end, &file), Some(entries));
        assert_eq!(segment.decode(Offset::new(11), end, &file), None, "of another segment");
        assert_eq!(segment.decode(base, Offset::new(80), &file), None, "one is missing");
        for at in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_eq!(segment.decode(base, end, &damaged), None, "bit {at}");
        }
        for length in 0..file.len() {
            assert_eq!(segment.decode(base, end, &file[..length]), None, "{length} bytes");
        }
    }
}
