//! What stands in a journal's file: its head, and frames of entries. Bytes only, no I/O.
//!
//! ```text
//! block 0   magic 8, generation 16, size of the file 8, CRC-32C 4
//! frame     magic 8, CRC-32C of all that follows 4, length 4, generation 16, sequence 8, first needed 8, entries 4
//! entry     kind 1, topic id 16, partition 4, base offset 8, next offset 8, length 4, and so many bytes of whole batches
//! ```
//! Numbers are big-endian. A frame begins at a block, and its last block is filled up with zeros. The generation is drawn at random
//! when a file begins to be used, so neither bytes of an earlier use nor records that look like a frame are taken for one.

use headwater_protocol::id::{Offset, PartitionIndex, TopicId};

use crate::{disk::BLOCK_SIZE, owner::Owner};

const FILE_MAGIC: &[u8; 8] = b"HWJOURN1";
const FRAME_MAGIC: &[u8; 8] = b"HWFRAME1";

/// Bytes of the file's head.
const HEAD_LEN: usize = 36;
/// Bytes of a frame before its entries.
pub(super) const FRAME_LEN: usize = 52;
/// Bytes of an entry before its batches.
pub(super) const ENTRY_LEN: usize = 41;

/// First byte of a frame that its checksum covers.
const CRC_FROM: usize = 12;

/// Tells one use of a file from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(pub(super) u128);

/// The head of a journal's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHead {
    pub(super) generation: Generation,
    /// Bytes that the file has.
    pub(super) size: u64,
}

impl FileHead {
    pub(super) fn encode(self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..8].copy_from_slice(FILE_MAGIC);
        out[8..24].copy_from_slice(&self.generation.0.to_be_bytes());
        out[24..32].copy_from_slice(&self.size.to_be_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a head; the error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<FileHead, &'static str> {
        let mut fields = Fields(bytes);
        let magic = fields.take::<8>().ok_or("it is shorter than its head")?;
        let (generation, size, crc) = (fields.take::<16>(), fields.take::<8>(), fields.take::<4>());
        let (Some(generation), Some(size), Some(crc)) = (generation, size, crc) else {
            return Err("it is shorter than its head");
        };
        if &magic != FILE_MAGIC {
            return Err("it does not begin as a journal of this version does");
        }
        if u32::from_be_bytes(crc) != crc32c::crc32c(&bytes[..HEAD_LEN - 4]) {
            return Err("the checksum of its head is wrong");
        }
        Ok(FileHead {
            generation: Generation(u128::from_be_bytes(generation)),
            size: u64::from_be_bytes(size),
        })
    }
}

/// What is said of a frame before its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) generation: Generation,
    /// Number of the frame: each has the next one.
    pub(super) sequence: u64,
    /// The oldest frame of which anything was still needed when this one was written; one more than its own number if nothing was.
    pub(super) first_needed: u64,
    pub(super) entries: u32,
}

impl FrameHead {
    /// The head of a frame with these entries.
    pub(super) fn encode(self, entries: &[u8]) -> [u8; FRAME_LEN] {
        let length = u32::try_from(FRAME_LEN + entries.len()).expect("a frame is a few mebibytes at most");
        let mut out = [0; FRAME_LEN];
        out[..8].copy_from_slice(FRAME_MAGIC);
        out[12..16].copy_from_slice(&length.to_be_bytes());
        out[16..32].copy_from_slice(&self.generation.0.to_be_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_be_bytes());
        out[40..48].copy_from_slice(&self.first_needed.to_be_bytes());
        out[48..].copy_from_slice(&self.entries.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out[CRC_FROM..]), entries);
        out[8..12].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

/// A frame as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) head: FrameHead,
    entries: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that begins with the first of these bytes; `None` if there is none of this generation that is whole.
    pub(super) fn read(bytes: &'a [u8], generation: Generation) -> Option<Frame<'a>> {
        let mut fields = Fields(bytes);
        if &fields.take::<8>()? != FRAME_MAGIC {
            return None;
        }
        let crc = u32::from_be_bytes(fields.take()?);
        let length = u32::from_be_bytes(fields.take()?) as usize;
        let head = FrameHead {
            generation: Generation(u128::from_be_bytes(fields.take()?)),
            sequence: u64::from_be_bytes(fields.take()?),
            first_needed: u64::from_be_bytes(fields.take()?),
            entries: u32::from_be_bytes(fields.take()?),
        };
        if head.generation != generation || length < FRAME_LEN || length > bytes.len() {
            return None;
        }
        let is_whole = crc == crc32c::crc32c(&bytes[CRC_FROM..length]);
        is_whole.then_some(Frame {
            head,
            entries: &bytes[FRAME_LEN..length],
        })
    }

    /// Bytes of the file that it takes.
    pub(super) fn size(&self) -> u64 {
        ((FRAME_LEN + self.entries.len()) as u64).next_multiple_of(BLOCK_SIZE as u64)
    }

    /// Its entries, in order; an error if they are not what its head says.
    pub(super) fn entries(&self) -> Result<Vec<Entry<'a>>, &'static str> {
        let mut fields = Fields(self.entries);
        let entries: Option<Vec<_>> = (0..self.head.entries).map(|_| Entry::read(&mut fields)).collect();
        match entries {
            Some(entries) if fields.0.is_empty() => Ok(entries),
            _ => Err("its entries are not what it says"),
        }
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// Whole batches of a partition, from one offset to another.
    Batches {
        owner: Owner,
        base: Offset,
        next: Offset,
        bytes: &'a [u8],
    },
    /// All that stands before of the partition is in its segments, or is to be forgotten.
    Settled { owner: Owner },
}

/// The first bytes of an entry; `length` bytes of batches follow.
pub(super) fn entry_head(is_settled: bool, owner: Owner, base: Offset, next: Offset, length: usize) -> [u8; ENTRY_LEN] {
    let length = u32::try_from(length).expect("an entry is smaller than a frame");
    let mut out = [0; ENTRY_LEN];
    out[0] = u8::from(is_settled);
    out[1..17].copy_from_slice(owner.topic.as_uuid().as_bytes());
    out[17..21].copy_from_slice(&owner.partition.get().to_be_bytes());
    out[21..29].copy_from_slice(&base.get().to_be_bytes());
    out[29..37].copy_from_slice(&next.get().to_be_bytes());
    out[37..].copy_from_slice(&length.to_be_bytes());
    out
}

impl<'a> Entry<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<Entry<'a>> {
        let [kind] = fields.take::<1>()?;
        let owner = Owner {
            topic: TopicId::new(uuid::Uuid::from_bytes(fields.take()?)),
            partition: PartitionIndex::try_from(i32::from_be_bytes(fields.take()?)).ok()?,
        };
        let mut offset = || Offset::try_from(i64::from_be_bytes(fields.take()?)).ok();
        let (base, next) = (offset()?, offset()?);
        let length = u32::from_be_bytes(fields.take()?) as usize;
        let bytes = fields.bytes(length)?;
        match kind {
            0 if base < next && !bytes.is_empty() => Some(Entry::Batches {
                owner,
                base,
                next,
                bytes,
            }),
            1 if bytes.is_empty() => Some(Entry::Settled { owner }),
            _ => None,
        }
    }
}

/// What has not been read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Generation = Generation(7 << 100);

    fn owner(partition: i32) -> Owner {
        Owner {
            topic: TopicId::new(uuid::Uuid::from_u128(3)),
            partition: PartitionIndex::new(partition),
        }
    }

    fn example() -> Vec<u8> {
        let mut entries = entry_head(false, owner(4), Offset::new(10), Offset::new(12), 5).to_vec();
        entries.extend_from_slice(b"batch");
        entries.extend_from_slice(&entry_head(true, owner(9), Offset::ZERO, Offset::ZERO, 0));
        let head = FrameHead {
            generation: GENERATION,
            sequence: 6,
            first_needed: 2,
            entries: 2,
        };
        let mut frame = head.encode(&entries).to_vec();
        frame.extend_from_slice(&entries);
        frame
    }

    #[test]
    fn a_frame_reads_back_and_every_flipped_bit_is_noticed() {
        let mut bytes = example();
        let frame = Frame::read(&bytes, GENERATION).unwrap();
        assert_eq!(
            (frame.head.sequence, frame.head.first_needed, frame.size()),
            (6, 2, 4096)
        );
        let entries = frame.entries().unwrap();
        let batches = Entry::Batches {
            owner: owner(4),
            base: Offset::new(10),
            next: Offset::new(12),
            bytes: b"batch",
        };
        assert_eq!(entries, [batches, Entry::Settled { owner: owner(9) }]);
        assert!(
            Frame::read(&bytes, Generation(8)).is_none(),
            "it is of another use of the file"
        );
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&bytes, GENERATION).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(Frame::read(&bytes[..length], GENERATION).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_is_noticed() {
        let head = FileHead {
            generation: GENERATION,
            size: 1 << 20,
        };
        let mut bytes = head.encode();
        assert_eq!(FileHead::decode(&bytes), Ok(head));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHead::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(FileHead::decode(&bytes[..30]).is_err());
    }
}
