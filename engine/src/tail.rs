//! The tail buffer: the newest bytes of a segment, in aligned chunks that serve the disk and the consumers alike.
//!
//! A [`Tail`] belongs to one segment; the chunks of all segments of a core share one [`TailMemory`], which is the core's
//! budget. A chunk that is full and durable is only a cache: the oldest of those give way when the budget is spent, and one
//! that is durable and not full shrinks to its last block, which later appends go on filling. What is not yet durable is
//! never given up, so the budget may be overshot by what is on its way to disk; [`TailMemory::room`]
//! is how the server stops reading sockets until it is not.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::{Rc, Weak},
};

use crate::{
    disk::{BLOCK_SIZE, BlockBuffer, BlockPool, BlockSlice, HeldBytes, REGION_SIZE},
    signal::Signal,
};

/// Size in bytes of a chunk of a busy partition: a huge page. Idle partitions hold one block; in between, chunks double.
pub(crate) const CHUNK_SIZE_MAX: usize = REGION_SIZE;

/// A core's budget for tail buffers, in bytes.
#[derive(Debug)]
pub struct TailMemory {
    limit: usize,
    used: Cell<usize>,
    /// Keeps within the budget what chunks give back: its pages are mapped already, and a page that is touched for the first
    /// time costs more than everything else that is done with it.
    pool: BlockPool,
    /// Chunks that may give way, by their turns: the oldest first. A chunk takes itself out when it is dropped.
    evictable: RefCell<BTreeMap<u64, Weak<Chunk>>>,
    next_turn: Cell<u64>,
    freed: Signal,
}

impl TailMemory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Rc<TailMemory> {
        Rc::new(TailMemory {
            limit,
            used: Cell::new(0),
            pool: BlockPool::new(limit.next_multiple_of(REGION_SIZE)),
            evictable: RefCell::default(),
            next_turn: Cell::new(0),
            freed: Signal::default(),
        })
    }

    /// Maps the whole budget now, so that no page is touched for the first time while records wait.
    pub(crate) fn prefault(&self) {
        self.pool.prefault(self.limit);
    }

    /// The budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that chunks hold now.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Whether what is not yet durable has spent the budget.
    pub fn is_spent(&self) -> bool {
        self.used.get() > self.limit && self.evict(0)
    }

    /// Resolves once the budget is not spent.
    pub async fn room(&self) {
        self.freed.until(|| !self.is_spent()).await;
    }

    /// Gives up the oldest durable chunks until `wanted` more bytes fit; returns whether they still do not.
    fn evict(&self, wanted: usize) -> bool {
        while self.used.get() + wanted > self.limit {
            if !self.evict_oldest() {
                return true;
            }
        }
        false
    }

    /// Gives up the oldest durable chunk; false if there is none.
    fn evict_oldest(&self) -> bool {
        let Some((_, oldest)) = self.evictable.borrow_mut().pop_first() else {
            return false;
        };
        if let Some(chunk) = oldest.upgrade() {
            chunk.give_way();
        }
        true
    }

    fn allocate(&self, capacity: usize) -> BlockBuffer {
        self.evict(capacity);
        // There may be enough, but in pieces: more gives way, until some become whole.
        while self.pool.mapped() >= self.limit && !self.pool.has(capacity) && self.evict_oldest() {}
        self.allocate_at_once(capacity)
    }

    /// Lets nothing give way, but takes more than the budget if it must.
    fn allocate_at_once(&self, capacity: usize) -> BlockBuffer {
        self.used.set(self.used.get() + capacity);
        loop {
            if let Some(buffer) = self.pool.take(capacity) {
                return buffer;
            }
            self.pool.grow();
        }
    }

    fn give_back(&self, capacity: usize) {
        self.used.set(self.used.get() - capacity);
        self.freed.notify();
    }

    /// What became durable may now be evicted, so those who wait for room should look again.
    fn became_evictable(&self, chunk: &Rc<Chunk>) {
        if chunk.turn.get().is_some() {
            return;
        }
        let turn = self.next_turn.replace(self.next_turn.get() + 1);
        chunk.turn.set(Some(turn));
        self.evictable.borrow_mut().insert(turn, Rc::downgrade(chunk));
        if self.used.get() > self.limit {
            self.freed.notify();
        }
    }
}

/// A stretch of a segment in memory. Its buffer is gone once it was evicted.
#[derive(Debug)]
struct Chunk {
    memory: Rc<TailMemory>,
    position: Cell<u64>,
    capacity: Cell<usize>,
    buffer: RefCell<Option<Rc<BlockBuffer>>>,
    /// Bytes from its start that are durable.
    durable: Cell<usize>,
    /// Nothing will be appended to it, and all of it is durable.
    complete: Cell<bool>,
    /// Among those that may give way.
    turn: Cell<Option<u64>>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.position.get() + self.capacity.get() as u64
    }

    /// Gives up what can be read from disk; if it takes appends, all but the last partial block.
    fn give_way(&self) {
        self.turn.set(None);
        let Some(buffer) = self.buffer() else { return };
        let filled = buffer.filled();
        let kept = filled % BLOCK_SIZE;
        if self.complete.get() || (kept == 0 && filled == self.durable.get()) {
            // At the end of a block the next append begins a chunk of its own.
            self.complete.set(true);
            drop(buffer);
            self.release();
        } else if filled == self.durable.get() && self.capacity.get() > BLOCK_SIZE {
            let last_block = buffer.bytes()[filled - kept..].to_vec();
            drop(buffer);
            self.release();
            let buffer = self.memory.allocate_at_once(BLOCK_SIZE);
            buffer.append(&last_block);
            self.position.set(self.position.get() + (filled - kept) as u64);
            self.capacity.set(BLOCK_SIZE);
            self.durable.set(kept);
            *self.buffer.borrow_mut() = Some(Rc::new(buffer));
        }
        // Otherwise some of it is not durable; it is listed again when it is.
    }

    fn buffer(&self) -> Option<Rc<BlockBuffer>> {
        self.buffer.borrow().clone()
    }

    fn release(&self) {
        // A consumer or a write may hold the buffer for longer.
        let buffer = self.buffer.borrow_mut().take();
        if let Some(capacity) = buffer.map(|buffer| buffer.capacity()) {
            self.memory.give_back(capacity);
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.release();
        if let Some(turn) = self.turn.get() {
            self.memory.evictable.borrow_mut().remove(&turn);
        }
    }
}

/// The newest bytes of one segment.
#[derive(Debug)]
pub(crate) struct Tail {
    memory: Rc<TailMemory>,
    chunks: VecDeque<Rc<Chunk>>,
}

impl Tail {
    pub(crate) fn new(memory: Rc<TailMemory>) -> Tail {
        Tail {
            memory,
            chunks: VecDeque::new(),
        }
    }

    /// Appends a batch's header and records at file position `end`, the end of what was appended before.
    pub(crate) fn append(&mut self, mut end: u64, header: &[u8], records: &[u8]) {
        let mut wanted = header.len() + records.len();
        for mut bytes in [header, records] {
            while !bytes.is_empty() {
                let last = self.chunks.back().filter(|chunk| chunk.end() > end);
                let buffer = last
                    .and_then(|chunk| chunk.buffer())
                    .unwrap_or_else(|| self.add_chunk(end, wanted));
                let count = buffer.append(bytes);
                end += count as u64;
                wanted -= count;
                bytes = &bytes[count..];
            }
        }
    }

    fn add_chunk(&mut self, position: u64, wanted: usize) -> Rc<BlockBuffer> {
        assert!(
            position.is_multiple_of(BLOCK_SIZE as u64),
            "a chunk begins at a block, not at {position}"
        );
        while self.chunks.front().is_some_and(|chunk| chunk.buffer.borrow().is_none()) {
            self.chunks.pop_front();
        }
        let grown = self.chunks.back().map_or(BLOCK_SIZE, |last| last.capacity.get() * 2);
        let capacity = grown.max(wanted.next_power_of_two()).min(CHUNK_SIZE_MAX);
        self.push_chunk(position, capacity)
    }

    fn push_chunk(&mut self, position: u64, capacity: usize) -> Rc<BlockBuffer> {
        let buffer = Rc::new(self.memory.allocate(capacity));
        self.chunks.push_back(Rc::new(Chunk {
            memory: Rc::clone(&self.memory),
            position: Cell::new(position),
            capacity: Cell::new(capacity),
            buffer: RefCell::new(Some(Rc::clone(&buffer))),
            durable: Cell::new(0),
            complete: Cell::new(false),
            turn: Cell::new(None),
        }));
        buffer
    }

    /// Starts over with the last partial block of the file, which later appends go on filling. `block` begins at the
    /// block boundary below the end of the file, and is empty when the file ends at one.
    pub(crate) fn restart(&mut self, position: u64, block: &[u8]) {
        self.chunks.clear();
        if !block.is_empty() {
            self.push_chunk(position, BLOCK_SIZE).append(block);
        }
    }

    /// Drops everything at and after `end`, and keeps what lies before, which is not all on disk.
    pub(crate) fn truncate(&mut self, end: u64) {
        while let Some(last) = self.chunks.pop_back() {
            if last.position.get() >= end {
                continue;
            }
            let kept = (end - last.position.get()) as usize;
            let filled = last.buffer().filter(|buffer| buffer.filled() > kept);
            let Some(filled) = filled else {
                self.chunks.push_back(last);
                return;
            };
            // What was filled never changes, as long as somebody may look at it.
            let again = self.push_chunk(last.position.get(), last.capacity.get());
            again.append(&filled.bytes()[..kept]);
            let chunk = self.chunks.back().expect("pushed just now");
            chunk.durable.set(last.durable.get().min(kept));
            return;
        }
    }

    /// Frees all but the last partial block; for a partition that has fallen idle with everything durable.
    pub(crate) fn shrink(&mut self, end: u64) {
        let start = end / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let block = self.slice(start, end).map(|slice| slice.to_vec());
        if start == end {
            self.chunks.clear();
        } else if let Some(block) = block {
            self.restart(start, &block);
        }
    }

    /// Bytes of memory held.
    pub(crate) fn size(&self) -> usize {
        self.chunks
            .iter()
            .filter(|chunk| chunk.buffer.borrow().is_some())
            .map(|chunk| chunk.capacity.get())
            .sum()
    }

    /// End of the chunk that holds `position`, which is not yet durable.
    pub(crate) fn chunk_end(&self, position: u64) -> Option<u64> {
        self.find(position).map(|chunk| chunk.end())
    }

    /// The blocks to write for `[from, to)`, within one chunk.
    pub(crate) fn blocks(&self, from: u64, to: u64) -> BlockSlice {
        let chunk = self.find(from).expect("what is not durable stays in memory");
        let buffer = chunk.buffer().expect("what is not durable is never evicted");
        buffer.blocks(
            (from - chunk.position.get()) as usize,
            (to - chunk.position.get()) as usize,
        )
    }

    /// The bytes from `position` on, up to `end` or the end of the chunk; `None` if they are not in memory.
    pub(crate) fn slice(&self, position: u64, end: u64) -> Option<HeldBytes> {
        let chunk = self.find(position)?;
        let buffer = chunk.buffer()?;
        let start = (position - chunk.position.get()) as usize;
        let end = buffer.filled().min((end.saturating_sub(chunk.position.get())) as usize);
        HeldBytes::new(buffer, start..end)
    }

    /// Everything below `position` is durable and may give way. `sealed`: the segment is wholly durable and takes no more
    /// appends.
    pub(crate) fn made_durable(&self, position: u64, sealed: bool) {
        let known = self.chunks.partition_point(|chunk| chunk.complete.get());
        for chunk in self.chunks.iter().skip(known) {
            let durable = position
                .saturating_sub(chunk.position.get())
                .min(chunk.capacity.get() as u64);
            if durable == 0 {
                break;
            }
            chunk.durable.set(durable as usize);
            chunk.complete.set(sealed || position >= chunk.end());
            self.memory.became_evictable(chunk);
        }
    }

    fn find(&self, position: u64) -> Option<&Rc<Chunk>> {
        let after = self.chunks.partition_point(|chunk| chunk.position.get() <= position);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        (position < chunk.end()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn partitions_with_batches_of_all_sizes_need_no_more_of_the_machine_than_the_budget() {
        let mut random = StdRng::seed_from_u64(1);
        let memory = TailMemory::new(32 << 20);
        let mut tails: Vec<_> = (0..500).map(|_| (Tail::new(Rc::clone(&memory)), 0)).collect();
        for _ in 0..20_000 {
            let partition = random.random_range(0..tails.len());
            let (tail, end) = &mut tails[partition];
            let records = vec![1; random.random_range(1..60_000)];
            tail.append(*end, &[2; 61], &records);
            *end += 61 + records.len() as u64;
            tail.made_durable(*end, false);
        }
        assert!(memory.used() > 24 << 20, "{} bytes in use", memory.used());
        assert_eq!(memory.pool.mapped(), 32 << 20);
    }

    #[test]
    fn chunks_that_are_gone_leave_nothing_behind_however_many_there_were() {
        let memory = TailMemory::new(32 << 20);
        let mut idle = Tail::new(Rc::clone(&memory));
        idle.append(0, &[2; 61], &[1; 100]);
        idle.made_durable(161, false);
        let mut end = 0;
        let mut busy = Tail::new(Rc::clone(&memory));
        for _ in 0..10_000 {
            busy.append(end, &[2; 61], &[1; 3 * BLOCK_SIZE]);
            end += 61 + 3 * BLOCK_SIZE as u64;
            busy.made_durable(end, false);
            // As when the partition falls idle, and when its segment is dropped.
            busy.shrink(end);
        }
        let listed = memory.evictable.borrow().len();
        assert!(listed <= 2, "{listed} chunks are listed, of two that are there");
        drop((busy, idle));
        assert!(memory.evictable.borrow().is_empty());
        assert_eq!(memory.used(), 0);
    }
}
