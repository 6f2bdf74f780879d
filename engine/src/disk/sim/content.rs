//! Bytes of a simulated file: sparse blocks and a size, cheap to copy (blocks are shared until one side changes them).
//!
//! Knows nothing of what is stable and what is not; that is `file`'s.

use std::{collections::BTreeMap, ops::Range, rc::Rc};

use crate::disk::BLOCK_SIZE;

/// A block of zeros, which takes no memory.
const ZEROS: &[u8] = &[0; BLOCK_SIZE];

/// What a file holds. Blocks that are absent, and bytes between the last block and `size`, are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    blocks: BTreeMap<u64, Rc<[u8]>>,
    size: u64,
}

impl Content {
    /// A file that holds exactly `bytes`.
    pub fn of(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `bytes` at `position`, extending the file if they go past its end.
    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        for piece in pieces(position, bytes.len()) {
            let bytes = &bytes[piece.outside];
            if bytes == ZEROS {
                self.blocks.remove(&piece.block);
            } else if bytes.len() == BLOCK_SIZE {
                self.blocks.insert(piece.block, Rc::from(bytes));
            } else {
                let block = self.blocks.entry(piece.block).or_insert_with(|| Rc::from(ZEROS));
                Rc::make_mut(block)[piece.inside].copy_from_slice(bytes);
            }
        }
        self.extend(position + bytes.len() as u64);
    }

    /// Up to `length` bytes at `position`; fewer only at the end of the file.
    pub fn read(&self, position: u64, length: usize) -> Vec<u8> {
        let length = self.size.saturating_sub(position).min(length as u64) as usize;
        let mut bytes = vec![0; length];
        for piece in pieces(position, length) {
            if let Some(block) = self.blocks.get(&piece.block) {
                bytes[piece.outside].copy_from_slice(&block[piece.inside]);
            }
        }
        bytes
    }

    /// Makes the file at least `size` long.
    pub fn extend(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// Sets the size. What is cut reads as zeros if the file grows again.
    pub fn truncate(&mut self, size: u64) {
        self.size = size;
        self.blocks.retain(|block, _| block * (BLOCK_SIZE as u64) < size);
        let inside = (size % BLOCK_SIZE as u64) as usize;
        if inside != 0
            && let Some(block) = self.blocks.get_mut(&(size / BLOCK_SIZE as u64))
        {
            Rc::make_mut(block)[inside..].fill(0);
        }
    }
}

/// The part of a range that lies in one block.
struct Piece {
    block: u64,
    /// Bytes of the block.
    inside: Range<usize>,
    /// The same bytes, counted from the start of the whole range.
    outside: Range<usize>,
}

fn pieces(position: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = position + done as u64;
        let start = (at % BLOCK_SIZE as u64) as usize;
        let count = (BLOCK_SIZE - start).min(length - done);
        let piece = Piece {
            block: at / BLOCK_SIZE as u64,
            inside: start..start + count,
            outside: done..done + count,
        };
        done += count;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_written_and_zeros_elsewhere() {
        let mut content = Content::default();
        content.write(5000, &[7; 5000]);
        assert_eq!(content.size(), 10_000);
        let bytes = content.read(0, 20_000);
        assert_eq!(bytes.len(), 10_000);
        assert!(bytes[..5000].iter().all(|byte| *byte == 0));
        assert!(bytes[5000..].iter().all(|byte| *byte == 7));
        assert!(content.read(10_000, 1).is_empty());
    }

    #[test]
    fn what_was_cut_does_not_come_back_when_the_file_grows() {
        let mut content = Content::of(&[7; 10_000]);
        let copy = content.clone();
        content.truncate(4100);
        content.extend(10_000);
        let bytes = content.read(0, 10_000);
        assert!(bytes[..4100].iter().all(|byte| *byte == 7));
        assert!(bytes[4100..].iter().all(|byte| *byte == 0));
        assert_eq!(copy.read(0, 10_000), vec![7; 10_000], "a copy is a copy");
    }
}
