//! Memory for direct I/O: buffers aligned to the block size, filled from the front while earlier bytes are on their way
//! to disk and to consumers.
//!
//! Owned by one core (not `Send`). Invariant: bytes below [`filled`](BlockBuffer::filled) never change again, so that a
//! slice of them may be read by the kernel or by a consumer for as long as it is held.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::Cell,
    fmt,
    ops::{Deref, Range},
    ptr::NonNull,
    rc::Rc,
};

use super::{copy, pool::BlockPool};

/// Unit of direct I/O in bytes, and the alignment of memory, positions and lengths.
pub const BLOCK_SIZE: usize = 4096;

/// Fixed-size, block-aligned memory that is filled once, from the front.
pub struct BlockBuffer {
    memory: NonNull<u8>,
    capacity: usize,
    filled: Cell<usize>,
    /// Whose memory it is, if it is not the allocator's.
    pool: Option<BlockPool>,
}

impl fmt::Debug for BlockBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockBuffer")
            .field("capacity", &self.capacity)
            .field("filled", &self.filled.get())
            .finish_non_exhaustive()
    }
}

impl BlockBuffer {
    /// Allocates `capacity` bytes, a positive multiple of [`BLOCK_SIZE`].
    pub fn new(capacity: usize) -> BlockBuffer {
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is positive, as `layout` asserts.
        let memory = NonNull::new(unsafe { alloc(layout) });
        BlockBuffer {
            memory: memory.unwrap_or_else(|| handle_alloc_error(layout)),
            capacity,
            filled: Cell::new(0),
            pool: None,
        }
    }

    /// A buffer over `capacity` bytes that were the pool's and go back to it.
    pub(super) fn of_pool(memory: NonNull<u8>, capacity: usize, pool: BlockPool) -> BlockBuffer {
        BlockBuffer {
            memory,
            capacity,
            filled: Cell::new(0),
            pool: Some(pool),
        }
    }

    fn layout(capacity: usize) -> Layout {
        assert!(
            capacity > 0 && capacity.is_multiple_of(BLOCK_SIZE),
            "capacity {capacity} is not whole blocks"
        );
        Layout::from_size_align(capacity, BLOCK_SIZE).expect("a buffer is far smaller than isize::MAX")
    }

    /// Size in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes filled so far.
    pub fn filled(&self) -> usize {
        self.filled.get()
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity - self.filled.get()
    }

    /// Forgets the content, so that the memory can be filled anew. Needs the only reference: nobody reads it any more.
    pub fn reset(&mut self) {
        self.filled.set(0);
    }

    /// Appends as many bytes as fit, and returns how many that were.
    pub fn append(&self, bytes: &[u8]) -> usize {
        let at = self.filled.get();
        let count = bytes.len().min(self.capacity - at);
        // SAFETY: `[at, at + count)` is inside the allocation; no slice covers it, because slices end at `filled` (or
        // are read by the kernel only); the source is a Rust slice and cannot overlap memory that nobody borrows.
        unsafe { copy::fill(self.memory.as_ptr().add(at), bytes.as_ptr(), count) };
        self.filled.set(at + count);
        count
    }

    /// Where the next bytes go, for a disk that fills the buffer itself.
    pub(super) fn spare(&self) -> *mut u8 {
        // SAFETY: `filled` is inside the allocation, or at its end.
        unsafe { self.memory.as_ptr().add(self.filled.get()) }
    }

    /// Whether to fill it may take long, because the machine has yet to find the memory.
    pub(super) fn is_untouched(&self) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.is_untouched(self.memory))
    }

    /// Counts bytes that were filled at [`spare`](Self::spare).
    ///
    /// # Safety
    /// So many bytes there were initialised, and nobody writes them any more.
    pub(super) unsafe fn assume_filled(&self, count: usize) {
        assert!(count <= self.room(), "{count} bytes in {}", self.room());
        self.filled.set(self.filled.get() + count);
    }

    /// The filled bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: bytes below `filled` are initialised and never change while a reference to the buffer exists.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.filled.get()) }
    }

    /// The whole blocks that hold the bytes `[from, to)`, for a write. What follows `filled` in the last block is zeroed
    /// first, so that no old memory reaches the disk.
    pub fn blocks(self: &Rc<Self>, from: usize, to: usize) -> BlockSlice {
        let filled = self.filled.get();
        assert!(
            from < to && to <= filled,
            "blocks {from}..{to} of {filled} filled bytes"
        );
        let start = from / BLOCK_SIZE * BLOCK_SIZE;
        let end = to.next_multiple_of(BLOCK_SIZE);
        if end > filled {
            // SAFETY: `[filled, end)` is inside the allocation, whose capacity is whole blocks, and not part of any slice.
            unsafe { self.memory.as_ptr().add(filled).write_bytes(0, end - filled) };
        }
        BlockSlice {
            buffer: Rc::clone(self),
            start,
            length: end - start,
        }
    }
}

impl Drop for BlockBuffer {
    fn drop(&mut self) {
        match &self.pool {
            Some(pool) => pool.give_back(self.memory, self.capacity, self.filled.get() > 0),
            // SAFETY: allocated in `new` with the same layout, and freed only here.
            None => unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) },
        }
    }
}

/// Whole blocks of a [`BlockBuffer`], kept alive for as long as an operation needs them.
#[derive(Debug, Clone)]
pub struct BlockSlice {
    buffer: Rc<BlockBuffer>,
    start: usize,
    length: usize,
}

impl BlockSlice {
    /// Start of the memory, aligned to [`BLOCK_SIZE`]. Bytes past what was filled may still be filled while the kernel
    /// reads them; they are beyond every offset that this write makes durable.
    pub fn as_ptr(&self) -> *const u8 {
        // SAFETY: `start` is inside the allocation.
        unsafe { self.buffer.memory.as_ptr().add(self.start) }
    }

    /// Length in bytes, a positive multiple of [`BLOCK_SIZE`].
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never true: a slice has at least one block.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A copy of the blocks as they are now, for disks that are not the kernel's.
    pub fn to_vec(&self) -> Vec<u8> {
        // SAFETY: inside the allocation and initialised: filled, or zeroed by `blocks`. The buffer belongs to this
        // thread, so nothing is filled during the copy.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.length) }.to_vec()
    }
}

/// Filled bytes of a [`BlockBuffer`], held for as long as they are being sent.
#[derive(Debug, Clone)]
pub struct HeldBytes {
    buffer: Rc<BlockBuffer>,
    range: Range<usize>,
}

impl HeldBytes {
    /// The part of the range that is filled, or `None` if none of it is.
    pub(crate) fn new(buffer: Rc<BlockBuffer>, range: Range<usize>) -> Option<HeldBytes> {
        let range = range.start..range.end.min(buffer.filled());
        (!range.is_empty()).then_some(HeldBytes { buffer, range })
    }

    /// As many of them, or all there are; `None` if that is nothing.
    pub(crate) fn first(self, count: usize) -> Option<HeldBytes> {
        let end = self.range.end.min(self.range.start.saturating_add(count));
        HeldBytes::new(self.buffer, self.range.start..end)
    }
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer.bytes()[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_padded_with_zeros_and_keep_what_was_filled() {
        let mut buffer = BlockBuffer::new(2 * BLOCK_SIZE);
        assert_eq!(buffer.append(&[7; 3 * BLOCK_SIZE]), 2 * BLOCK_SIZE);
        buffer.reset();
        buffer.append(&[1; 10]);
        let buffer = Rc::new(buffer);
        let slice = buffer.blocks(4, 10);
        assert_eq!(slice.len(), BLOCK_SIZE);
        assert_eq!(slice.as_ptr() as usize % BLOCK_SIZE, 0);
        let written = slice.to_vec();
        assert_eq!(&written[..10], &[1; 10]);
        assert!(
            written[10..].iter().all(|byte| *byte == 0),
            "memory of an earlier use reaches the disk"
        );
        assert_eq!(buffer.append(&[2; BLOCK_SIZE]), BLOCK_SIZE);
        assert_eq!(&buffer.bytes()[..11], &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn blocks_of_a_range_start_at_its_first_block() {
        let buffer = Rc::new(BlockBuffer::new(4 * BLOCK_SIZE));
        buffer.append(&vec![3; 3 * BLOCK_SIZE + 1]);
        let slice = buffer.blocks(BLOCK_SIZE + 5, 2 * BLOCK_SIZE);
        assert_eq!(
            (slice.as_ptr() as usize - buffer.bytes().as_ptr() as usize, slice.len()),
            (BLOCK_SIZE, BLOCK_SIZE)
        );
        assert_eq!(buffer.blocks(0, 3 * BLOCK_SIZE + 1).len(), 4 * BLOCK_SIZE);
    }
}
