//! Sparse indexes of one segment: from offset to file position, and from timestamp to offset.
//!
//! In memory for the active segment, in two side files (`.index`, `.timeindex`) for the others. They are a convenience
//! and never decide what is in the log: a missing or damaged side file is rebuilt from the segment. Every entry of the
//! offset index is the start of a batch, so that fetched ranges can be cut at whole batches without reading the log.

use bytes::{Buf, BufMut};
use headwater_protocol::id::{Offset, Timestamp};

/// "HWIX", then the format version.
const MAGIC: u32 = 0x4857_4958;
const VERSION: u32 = 1;
const HEADER_LEN: usize = 24;
const OFFSET_ENTRY_LEN: usize = 8;
const TIME_ENTRY_LEN: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetEntry {
    /// First offset of the batch, relative to the segment's base offset.
    relative: u32,
    position: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeEntry {
    /// Largest timestamp of the segment up to and including the batch.
    timestamp: i64,
    /// First offset of the batch, relative to the segment's base offset.
    relative: u32,
}

/// Why the bytes of a side file are not an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the index file is damaged: {0}")]
pub(crate) struct IndexDamage(&'static str);

/// Offset and time index of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    base_offset: Offset,
    interval_bytes: u32,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
}

impl Index {
    /// An empty index that takes one entry for about every `interval_bytes` of batches.
    pub(crate) fn new(base_offset: Offset, interval_bytes: u32) -> Index {
        Index {
            base_offset,
            interval_bytes,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    /// Notes a batch that begins at `position`. `max_timestamp` is the largest of the segment so far, this batch included.
    pub(crate) fn add(&mut self, offset: Offset, position: u64, max_timestamp: Timestamp) {
        let relative = offset.get().saturating_sub(self.base_offset.get());
        let (Ok(relative), Ok(position)) = (u32::try_from(relative), u32::try_from(position)) else {
            return; // Beyond the range of an entry; the batch is found by walking from the entry before.
        };
        let due = self
            .offsets
            .last()
            .is_none_or(|last| position - last.position >= self.interval_bytes);
        if !due {
            return;
        }
        self.offsets.push(OffsetEntry { relative, position });
        let timestamp = max_timestamp.get();
        if self.times.last().is_none_or(|last| timestamp > last.timestamp) {
            self.times.push(TimeEntry { timestamp, relative });
        }
    }

    /// Start and first offset of the last indexed batch at or below `offset`; `None` if there is none.
    pub(crate) fn floor(&self, offset: Offset) -> Option<(u64, Offset)> {
        let relative = offset.get().saturating_sub(self.base_offset.get());
        let after = self
            .offsets
            .partition_point(|entry| u64::from(entry.relative) <= relative);
        Some(self.place_of(after.checked_sub(1)?))
    }

    fn place_of(&self, entry: usize) -> (u64, Offset) {
        let OffsetEntry { relative, position } = self.offsets[entry];
        (u64::from(position), self.base_offset + u64::from(relative))
    }

    /// Start and first offset of the last indexed batch at or below `position`: the furthest known place to cut a range.
    pub(crate) fn boundary(&self, position: u64) -> (u64, Offset) {
        let after = self
            .offsets
            .partition_point(|entry| u64::from(entry.position) <= position);
        let entry = after.checked_sub(1);
        entry.map_or((0, self.base_offset), |entry| self.place_of(entry))
    }

    /// Offset of the first indexed batch that begins after `position`.
    pub(crate) fn offset_after(&self, position: u64) -> Option<Offset> {
        let after = self
            .offsets
            .partition_point(|entry| u64::from(entry.position) <= position);
        let entry = self.offsets.get(after)?;
        Some(self.base_offset + u64::from(entry.relative))
    }

    /// Start and first offset of the last indexed batch from which a walk finds the first record that is as late as `timestamp`;
    /// `None` if it has to begin with the segment.
    pub(crate) fn before_timestamp(&self, timestamp: Timestamp) -> Option<(u64, Offset)> {
        let at = self.times.partition_point(|entry| entry.timestamp < timestamp.get());
        // Up to the batch of this entry, itself not included, no indexed one is as late.
        let late = self.times.get(at).map_or(self.offsets.len(), |late| {
            self.offsets.partition_point(|entry| entry.relative < late.relative)
        });
        Some(self.place_of(late.checked_sub(1)?))
    }

    /// Forgets every batch at or after `position`.
    pub(crate) fn truncate(&mut self, position: u64) {
        self.offsets.retain(|entry| u64::from(entry.position) < position);
        let last = self.offsets.last().map(|entry| entry.relative);
        self.times
            .retain(|entry| last.is_some_and(|last| entry.relative <= last));
    }

    /// Bytes of memory held.
    pub(crate) fn size(&self) -> usize {
        self.offsets.capacity() * size_of::<OffsetEntry>() + self.times.capacity() * size_of::<TimeEntry>()
    }

    /// Content of the `.index` file of a segment of `segment_size` bytes: header, entries, CRC-32C; big endian.
    pub(crate) fn encode_offsets(&self, segment_size: u64) -> Vec<u8> {
        let mut out = header(self.base_offset, segment_size, self.offsets.len() * OFFSET_ENTRY_LEN);
        for entry in &self.offsets {
            out.put_u32(entry.relative);
            out.put_u32(entry.position);
        }
        seal(out)
    }

    /// Content of the `.timeindex` file.
    pub(crate) fn encode_times(&self, segment_size: u64) -> Vec<u8> {
        let mut out = header(self.base_offset, segment_size, self.times.len() * TIME_ENTRY_LEN);
        for entry in &self.times {
            out.put_i64(entry.timestamp);
            out.put_u32(entry.relative);
        }
        seal(out)
    }

    /// Reads both side files of a segment, as of `segment_size`. They may have been written when it was longer.
    pub(crate) fn decode(
        base_offset: Offset,
        segment_size: u64,
        interval_bytes: u32,
        offset_file: &[u8],
        time_file: &[u8],
    ) -> Result<Index, IndexDamage> {
        let mut index = Index::new(base_offset, interval_bytes);
        let mut entries = open(base_offset, segment_size, OFFSET_ENTRY_LEN, offset_file)?;
        while entries.has_remaining() {
            let entry = OffsetEntry {
                relative: entries.get_u32(),
                position: entries.get_u32(),
            };
            let grows = index
                .offsets
                .last()
                .is_none_or(|last| last.relative < entry.relative && last.position < entry.position);
            if !grows {
                return Err(IndexDamage("its offsets are not in order"));
            }
            index.offsets.push(entry);
        }
        let mut entries = open(base_offset, segment_size, TIME_ENTRY_LEN, time_file)?;
        while entries.has_remaining() {
            let entry = TimeEntry {
                timestamp: entries.get_i64(),
                relative: entries.get_u32(),
            };
            if index
                .times
                .last()
                .is_some_and(|last| last.timestamp >= entry.timestamp || last.relative >= entry.relative)
            {
                return Err(IndexDamage("its timestamps are not in order"));
            }
            index.times.push(entry);
        }
        index.truncate(segment_size);
        Ok(index)
    }
}

fn header(base_offset: Offset, segment_size: u64, entries_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + entries_len + 4);
    out.put_u32(MAGIC);
    out.put_u32(VERSION);
    out.put_u64(base_offset.get());
    out.put_u64(segment_size);
    out
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

/// Checks everything around the entries, and returns them.
fn open(base_offset: Offset, segment_size: u64, entry_len: usize, file: &[u8]) -> Result<&[u8], IndexDamage> {
    let body_len = file.len().checked_sub(4).ok_or(IndexDamage("it is too short"))?;
    let (body, mut crc) = file.split_at(body_len);
    if crc32c::crc32c(body) != crc.get_u32() {
        return Err(IndexDamage("its checksum is wrong"));
    }
    let mut rest = body;
    if rest.remaining() < HEADER_LEN || rest.get_u32() != MAGIC || rest.get_u32() != VERSION {
        return Err(IndexDamage("it has another format"));
    }
    if rest.get_u64() != base_offset.get() {
        return Err(IndexDamage("it belongs to another segment"));
    }
    if rest.get_u64() < segment_size {
        return Err(IndexDamage("it does not reach the end of the segment"));
    }
    if !rest.remaining().is_multiple_of(entry_len) {
        return Err(IndexDamage("its last entry is not whole"));
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Index {
        let mut index = Index::new(Offset::new(100), 4096);
        for batch in 0..50_u64 {
            index.add(
                Offset::new(100 + batch * 3),
                batch * 1000,
                Timestamp::new(7_000 + batch.cast_signed()),
            );
        }
        index
    }

    #[test]
    fn floor_and_boundary_are_starts_of_batches_at_or_below() {
        let index = example();
        let at = |position, offset| Some((position, Offset::new(offset)));
        assert_eq!(index.floor(Offset::new(100)), at(0, 100));
        assert_eq!(index.floor(Offset::new(114)), at(0, 100));
        assert_eq!(index.floor(Offset::new(115)), at(5_000, 115));
        assert_eq!(index.floor(Offset::new(10_000)), at(45_000, 235));
        assert_eq!(Index::new(Offset::new(100), 4096).floor(Offset::new(100)), None);
        assert_eq!(index.boundary(4_999), (0, Offset::new(100)));
        assert_eq!(index.boundary(9_999), (5_000, Offset::new(115)));
    }

    #[test]
    fn a_walk_from_before_timestamp_cannot_miss_the_first_record_that_late() {
        let index = example();
        assert_eq!(index.before_timestamp(Timestamp::new(0)), None);
        // Entries lie at batches 0, 5, 10, …: batch 5 is the first with 7005, so the walk must start before it.
        assert_eq!(
            index.before_timestamp(Timestamp::new(7_005)),
            Some((0, Offset::new(100)))
        );
        assert_eq!(
            index.before_timestamp(Timestamp::new(7_006)),
            Some((5_000, Offset::new(115)))
        );
    }

    #[test]
    fn a_walk_by_time_begins_right_before_the_batch_even_where_time_stands_still() {
        let mut index = Index::new(Offset::new(100), 4096);
        for batch in 0..50_u64 {
            let timestamp = if batch < 40 { 7_000 } else { 8_000 };
            index.add(Offset::new(100 + batch), batch * 4096, Timestamp::new(timestamp));
        }
        let walk = index.before_timestamp(Timestamp::new(7_500));
        assert_eq!(walk, Some((39 * 4096, Offset::new(139))));
    }

    #[test]
    fn side_files_read_back_and_every_flipped_bit_is_noticed() {
        let index = example();
        let (offsets, times) = (index.encode_offsets(50_000), index.encode_times(50_000));
        let decode = |offsets: &[u8], times: &[u8]| Index::decode(Offset::new(100), 50_000, 4096, offsets, times);
        assert_eq!(decode(&offsets, &times).as_ref(), Ok(&index));
        for at in 0..offsets.len() * 8 {
            let mut damaged = offsets.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged, &times).is_err(), "bit {at}");
        }
        assert!(decode(&[], &times).is_err());
        assert!(
            Index::decode(Offset::new(100), 50_001, 4096, &offsets, &times).is_err(),
            "of another segment"
        );
    }

    #[test]
    fn truncation_forgets_later_batches_only() {
        let mut index = example();
        index.truncate(10_000);
        assert_eq!(index.boundary(u64::MAX).0, 5_000);
        assert_eq!(
            index.before_timestamp(Timestamp::new(i64::MAX)),
            Some((5_000, Offset::new(115)))
        );
    }
}
