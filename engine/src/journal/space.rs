//! Where frames lie in a file that is written in a circle. Positions alone, no I/O.
//!
//! Places are counted on as if the file had no end. A frame is never split: where it does not fit before the end of the file, the rest of
//! the file is passed over. A place is used again only once the newest *durable* frame says that what lies there is not needed: if
//! the frame that is written over it turns out torn, its predecessor decides what has to be there.

use std::collections::VecDeque;

use crate::disk::BLOCK_SIZE;

/// Bytes of the file before the first frame.
const HEAD: u64 = BLOCK_SIZE as u64;

#[derive(Debug)]
pub(super) struct Space {
    /// Bytes for frames.
    capacity: u64,
    /// Where the next frame begins at the earliest, counted on.
    head: u64,
    /// Frames that have to stay as they are, oldest first: number, and where they begin.
    frames: VecDeque<(u64, u64)>,
}

impl Space {
    /// Of a file of so many bytes.
    pub(super) fn new(size: u64) -> Space {
        Space {
            capacity: size.saturating_sub(HEAD),
            head: 0,
            frames: VecDeque::new(),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Where a frame of so many bytes would begin, counted on.
    fn start(&self, length: u64) -> u64 {
        let at = self.head % self.capacity;
        if at + length > self.capacity {
            self.head + self.capacity - at
        } else {
            self.head
        }
    }

    /// Whether a frame of so many bytes can be written, with so many left after it.
    pub(super) fn fits(&self, length: u64, left: u64) -> bool {
        let tail = self.frames.front().map_or(self.head, |(_, start)| *start);
        length <= self.capacity && self.start(length) + length + left <= tail + self.capacity
    }

    /// A place for the frame with this number: its position in the file.
    pub(super) fn place(&mut self, sequence: u64, length: u64) -> u64 {
        assert!(self.fits(length, 0), "a frame of {length} bytes has no room");
        let start = self.start(length);
        self.frames.push_back((sequence, start));
        self.head = start + length;
        HEAD + start % self.capacity
    }

    /// A durable frame says that nothing before this number is needed.
    pub(super) fn free_before(&mut self, sequence: u64) {
        while self.frames.pop_front_if(|(frame, _)| *frame < sequence).is_some() {}
    }

    /// Bytes from the beginning of this frame, or the next one there is, to the end of the last.
    pub(super) fn used_from(&self, sequence: u64) -> u64 {
        let at = self.frames.partition_point(|(frame, _)| *frame < sequence);
        self.frames.get(at).map_or(0, |(_, start)| self.head - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_SIZE as u64;

    #[test]
    fn a_place_is_used_again_only_after_it_was_freed_and_no_frame_goes_over_the_end() {
        let mut space = Space::new(11 * BLOCK);
        assert_eq!(space.place(0, 4 * BLOCK), BLOCK);
        assert_eq!(space.place(1, 4 * BLOCK), 5 * BLOCK);
        assert!(space.fits(2 * BLOCK, 0) && !space.fits(2 * BLOCK, BLOCK));
        assert!(!space.fits(3 * BLOCK, 0), "the first frame lies there");
        space.free_before(1);
        assert!(space.fits(4 * BLOCK, 0));
        assert!(!space.fits(5 * BLOCK, 0), "two blocks at the end are passed over");
        assert_eq!(space.place(2, 4 * BLOCK), BLOCK);
        assert_eq!(space.used_from(1), 10 * BLOCK);
        assert_eq!(space.used_from(2), 4 * BLOCK);
        assert_eq!(space.used_from(3), 0);
        assert!(!space.fits(BLOCK, 0), "the second frame is still needed");
        space.free_before(9);
        assert!(space.fits(6 * BLOCK, 0));
    }
}
