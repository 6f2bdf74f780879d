//! Memory for records: huge pages, split into blocks of powers of two as these are wanted.
//!
//! Partitions by the thousand keep a few blocks each, of all sizes and for different times. A general allocator needs 1.4
//! times their sum for that. Here a block that is given back becomes one with its neighbour of the same size, up to the
//! whole huge page again (the buddy system, Knuth, TAOCP 1, 2.5), and the lowest address is handed out first, so that the
//! other end comes free. Owned by one core.

use std::{
    alloc::{Layout, handle_alloc_error},
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ptr::{self, NonNull},
    rc::Rc,
};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::block::{BLOCK_SIZE, BlockBuffer};

/// Size in bytes of the largest block: a huge page, so that its first use costs one page fault and not 512.
pub const REGION_SIZE: usize = 2 << 20;

/// Sizes that there are, from [`BLOCK_SIZE`] to [`REGION_SIZE`].
const ORDERS: usize = (REGION_SIZE / BLOCK_SIZE).ilog2() as usize + 1;

/// Where [`BlockBuffer`]s of one owner come from, and go back to. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct BlockPool {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// So many bytes stay mapped when they are free.
    kept: usize,
    mapped: Cell<usize>,
    /// Free blocks by order: the size of those at `i` is `BLOCK_SIZE << i`.
    free: RefCell<[BTreeSet<NonNull<u8>>; ORDERS]>,
    /// The addresses of the next regions, and how many they are for.
    reserved: Cell<(NonNull<u8>, usize)>,
    /// Regions that nothing which came back has filled: the machine may not have found their pages yet.
    untouched: RefCell<BTreeSet<NonNull<u8>>>,
}

impl BlockPool {
    /// A pool without memory. What comes free beyond `kept` bytes goes back to the machine.
    pub fn new(kept: usize) -> BlockPool {
        BlockPool {
            inner: Rc::new(Inner {
                kept,
                mapped: Cell::new(0),
                free: RefCell::default(),
                reserved: Cell::new((NonNull::dangling(), 0)),
                untouched: RefCell::default(),
            }),
        }
    }

    /// Bytes that the pool has of the machine.
    pub fn mapped(&self) -> usize {
        self.inner.mapped.get()
    }

    /// Whether that much is free in one piece.
    pub fn has(&self, capacity: usize) -> bool {
        self.inner.free.borrow()[order_of(capacity)..]
            .iter()
            .any(|free| !free.is_empty())
    }

    /// An empty buffer of `capacity` bytes, a power of two from [`BLOCK_SIZE`] to [`REGION_SIZE`], if that much is free in
    /// one piece.
    pub fn take(&self, capacity: usize) -> Option<BlockBuffer> {
        let order = order_of(capacity);
        let mut free = self.inner.free.borrow_mut();
        let mut from = (order..ORDERS).find(|&order| !free[order].is_empty())?;
        let memory = free[from].pop_first()?;
        while from > order {
            from -= 1;
            free[from].insert(buddy(memory, from));
        }
        Some(BlockBuffer::of_pool(memory, capacity, self.clone()))
    }

    /// Gets one region more from the machine, whose pages are mapped when they are touched.
    pub fn grow(&self) {
        let region = self.next_region();
        self.inner.untouched.borrow_mut().insert(region);
        self.add(region);
    }

    /// Gets regions until there would be more than `limit` bytes, and maps their pages now. Takes as long as the machine needs to
    /// find that much memory.
    pub fn prefault(&self, limit: usize) {
        while self.mapped() + REGION_SIZE <= limit {
            let region = self.next_region();
            // SAFETY: the range is the mapping, and mapping its pages does not change what they hold.
            let populated = unsafe { mm::madvise(region.as_ptr().cast(), REGION_SIZE, Advice::LinuxPopulateWrite) };
            // A kernel that cannot (before 5.14) maps them when they are filled.
            if let Err(error) = populated {
                tracing::debug!(%error, "memory for records is not mapped ahead");
            }
            self.add(region);
        }
    }

    fn add(&self, region: NonNull<u8>) {
        self.inner.mapped.set(self.mapped() + REGION_SIZE);
        self.inner.free.borrow_mut()[ORDERS - 1].insert(region);
    }

    /// The addresses of a region. Those of all that will be kept are got at once: to get some, a thread waits until the machine
    /// has found the memory that another one touches.
    fn next_region(&self) -> NonNull<u8> {
        let (region, count) = match self.inner.reserved.get() {
            (_, 0) => {
                let wanted = (self.inner.kept.saturating_sub(self.mapped()) / REGION_SIZE).max(1);
                let all = map(wanted).map(|first| (first, wanted));
                // A machine may refuse to promise that much.
                all.or_else(|| map(1).map(|only| (only, 1)))
                    .unwrap_or_else(|| handle_alloc_error(Layout::new::<[u8; REGION_SIZE]>()))
            }
            reserved => reserved,
        };
        // SAFETY: inside the mapping, or at its end.
        let next = unsafe { region.add(REGION_SIZE) };
        self.inner.reserved.set((next, count - 1));
        region
    }

    /// Whether the first use of this block may have to wait until the machine has found and zeroed a huge page.
    pub(super) fn is_untouched(&self, block: NonNull<u8>) -> bool {
        self.inner.untouched.borrow().contains(&region_of(block))
    }

    /// Takes a buffer's memory back. `filled`: some of it was used.
    pub(super) fn give_back(&self, mut memory: NonNull<u8>, capacity: usize, filled: bool) {
        let mut order = order_of(capacity);
        if filled {
            self.inner.untouched.borrow_mut().remove(&region_of(memory));
        }
        let mut free = self.inner.free.borrow_mut();
        while order < ORDERS - 1 && free[order].remove(&buddy(memory, order)) {
            memory = memory.min(buddy(memory, order));
            order += 1;
        }
        if order == ORDERS - 1 && self.mapped() > self.inner.kept {
            self.inner.mapped.set(self.mapped() - REGION_SIZE);
            self.inner.untouched.borrow_mut().remove(&memory);
            unmap(memory, 1);
        } else {
            free[order].insert(memory);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Buffers hold the pool, so there are none, and all regions are whole.
        for region in &self.free.get_mut()[ORDERS - 1] {
            unmap(*region, 1);
        }
        let (region, count) = self.reserved.get();
        if count > 0 {
            unmap(region, count);
        }
    }
}

fn order_of(capacity: usize) -> usize {
    assert!(
        capacity.is_power_of_two() && (BLOCK_SIZE..=REGION_SIZE).contains(&capacity),
        "there are no blocks of {capacity} bytes"
    );
    (capacity / BLOCK_SIZE).ilog2() as usize
}

/// The region that a block is part of.
fn region_of(block: NonNull<u8>) -> NonNull<u8> {
    let region = block.as_ptr().map_addr(|address| address / REGION_SIZE * REGION_SIZE);
    NonNull::new(region).expect("nothing is mapped at address 0")
}

/// The other half of the next larger block.
fn buddy(block: NonNull<u8>, order: usize) -> NonNull<u8> {
    let size = BLOCK_SIZE << order;
    let other = block.as_ptr().map_addr(|address| address ^ size);
    NonNull::new(other).expect("nothing is mapped at address 0")
}

/// Gets the addresses of `count` regions in a row, aligned to their size. They are without memory until they are touched.
fn map(count: usize) -> Option<NonNull<u8>> {
    let size = count * REGION_SIZE;
    let (length, access) = (size + REGION_SIZE, ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped =
        unsafe { mm::mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE | MapFlags::NORESERVE) };
    let mapped: *mut u8 = mapped.ok()?.cast();
    let before = mapped.align_offset(REGION_SIZE);
    let first = mapped.wrapping_add(before);
    let ends = [(mapped, before), (first.wrapping_add(size), REGION_SIZE - before)];
    for (end, length) in ends.into_iter().filter(|(_, length)| *length > 0) {
        // SAFETY: part of the new mapping, to which nothing refers.
        let unmapped = unsafe { mm::munmap(end.cast(), length) };
        debug_assert_eq!(unmapped, Ok(()));
    }
    // SAFETY: the range is mapped, and the advice does not change what it holds.
    let advised = unsafe { mm::madvise(first.cast(), size, Advice::LinuxHugepage) };
    // A kernel without huge pages only maps the memory in smaller steps.
    if let Err(error) = advised {
        tracing::debug!(%error, "no huge pages for records in memory");
    }
    NonNull::new(first)
}

/// Gives `count` regions in a row back to the machine.
fn unmap(first: NonNull<u8>, count: usize) {
    // SAFETY: they were mapped by `map`, and are free as a whole.
    let unmapped = unsafe { mm::munmap(first.as_ptr().cast(), count * REGION_SIZE) };
    debug_assert_eq!(unmapped, Ok(()));
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    fn range(buffer: &BlockBuffer) -> Range<usize> {
        let start = buffer.bytes().as_ptr().addr();
        start..start + buffer.capacity()
    }

    proptest! {
        #[test]
        fn buffers_never_overlap_and_what_comes_back_becomes_whole_again(
            steps in prop::collection::vec((any::<bool>(), 0..ORDERS, any::<prop::sample::Index>()), 1..300),
        ) {
            let pool = BlockPool::new(2 * REGION_SIZE);
            let mut held: Vec<BlockBuffer> = Vec::new();
            for (take, order, which) in steps {
                if take || held.is_empty() {
                    let capacity = BLOCK_SIZE << order;
                    let buffer = pool.take(capacity).unwrap_or_else(|| {
                        pool.grow();
                        pool.take(capacity).unwrap()
                    });
                    let new = range(&buffer);
                    prop_assert!(new.start.is_multiple_of(capacity));
                    prop_assert!(held.iter().map(range).all(|old| new.end <= old.start || old.end <= new.start));
                    buffer.append(&[held.len() as u8; 1]);
                    held.push(buffer);
                } else {
                    held.swap_remove(which.index(held.len()));
                }
                let used: usize = held.iter().map(BlockBuffer::capacity).sum();
                prop_assert!(used <= pool.mapped());
            }
            held.clear();
            prop_assert!(pool.mapped() <= 2 * REGION_SIZE);
            // All that is left is whole.
            let whole: Vec<_> = std::iter::from_fn(|| pool.take(REGION_SIZE)).collect();
            prop_assert_eq!(whole.len() * REGION_SIZE, pool.mapped());
        }
    }

    #[test]
    fn a_region_is_untouched_until_something_in_it_was_filled() {
        let pool = BlockPool::new(4 * REGION_SIZE);
        pool.prefault(REGION_SIZE);
        let mapped = pool.take(REGION_SIZE).unwrap();
        assert!(!mapped.is_untouched());
        pool.grow();
        let (first, second) = (pool.take(BLOCK_SIZE).unwrap(), pool.take(BLOCK_SIZE).unwrap());
        drop(first);
        assert!(second.is_untouched());
        second.append(&[1]);
        drop(second);
        pool.grow();
        let touched = pool.take(REGION_SIZE).unwrap();
        let untouched = pool.take(REGION_SIZE).unwrap();
        assert!(!touched.is_untouched() && untouched.is_untouched());
        assert!(!BlockBuffer::new(BLOCK_SIZE).is_untouched());
    }

    #[test]
    fn beyond_what_it_keeps_a_pool_takes_region_by_region_and_gives_them_back() {
        let pool = BlockPool::new(2 * REGION_SIZE);
        for regions in [5, 3] {
            while pool.mapped() < regions * REGION_SIZE {
                pool.grow();
            }
            let buffers: Vec<_> = (0..regions).map(|_| pool.take(REGION_SIZE).unwrap()).collect();
            for buffer in &buffers {
                buffer.append(&vec![1; REGION_SIZE]);
            }
            drop(buffers);
            assert_eq!(pool.mapped(), 2 * REGION_SIZE);
        }
    }

    #[test]
    fn a_buffer_outlives_the_pool_that_it_came_from() {
        let pool = BlockPool::new(0);
        pool.prefault(REGION_SIZE);
        let buffer = pool.take(BLOCK_SIZE).unwrap();
        drop(pool);
        buffer.append(&[7; BLOCK_SIZE]);
        assert_eq!(buffer.bytes(), [7; BLOCK_SIZE]);
    }
}
