//! What the bare program does next: positions in one endless stream of bytes, and no I/O.
//!
//! ```text
//! pushed <= durable <= written <= begun <= received
//! ```
//! The stream lies in a ring of memory and, over and over, in one prepared file; a position says where in both. Full writes go
//! out several at a time. A partial one goes out only when nothing else is under way, and the last block is never written by
//! two writes at once. One flush at a time covers the writes that had completed when it began.

use std::collections::VecDeque;
use std::ops::Range;

/// The sizes that decide.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The memory; a multiple of a write.
    pub memory_bytes: u64,
    /// The file; a multiple of a write.
    pub file_bytes: u64,
    /// Of a full write.
    pub write_bytes: u64,
    /// Writes at once.
    pub writes_in_flight_max: usize,
    /// A flush begins when so much is written and not covered by one, or no write is under way.
    pub flush_uncovered_bytes: u64,
    /// A lone write up to this size is made durable by itself.
    pub single_write_bytes_max: u64,
    /// Of positions, lengths and memory in direct I/O.
    pub alignment: u64,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// In the order of their beginnings, from 0.
    pub number: u64,
    /// What to write: whole blocks.
    pub blocks: Range<u64>,
    /// The end of what counts: the rest of the last block is written again.
    pub end: u64,
    /// By itself, without a flush.
    pub durable: bool,
}

#[derive(Debug)]
struct Begun {
    end: u64,
    durable: bool,
    done: bool,
}

/// How far everything is.
#[derive(Debug)]
pub struct Stream {
    layout: Layout,
    received: u64,
    begun: u64,
    written: u64,
    durable: u64,
    /// `None` if nothing is pushed.
    pushed: Option<u64>,
    writes: VecDeque<Begun>,
    /// The number of the first of them.
    first: u64,
    /// What the flush that is under way covers.
    flushing: Option<u64>,
}

impl Stream {
    /// At the beginning. `push`: what is durable is kept until it was pushed too.
    pub fn new(layout: Layout, push: bool) -> Self {
        assert!(layout.memory_bytes.is_multiple_of(layout.write_bytes));
        assert!(layout.file_bytes.is_multiple_of(layout.write_bytes));
        assert!(layout.write_bytes.is_multiple_of(layout.alignment));
        Self {
            layout,
            received: 0,
            begun: 0,
            written: 0,
            durable: 0,
            pushed: push.then_some(0),
            writes: VecDeque::new(),
            first: 0,
            flushing: None,
        }
    }

    /// The end of what is there.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The end of what is on stable storage.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether everything that was received is durable, and pushed.
    pub fn is_settled(&self) -> bool {
        self.durable == self.received && self.pushed.is_none_or(|pushed| pushed == self.durable)
    }

    /// Where to receive, in one piece of memory; empty if there is no room.
    pub fn room(&self) -> Range<u64> {
        // The block that is not full is written again, from its beginning.
        let kept = self.pushed.map_or(self.durable, |pushed| pushed.min(self.durable));
        let end = self.down(kept) + self.layout.memory_bytes;
        let wrap = (self.received / self.layout.memory_bytes + 1) * self.layout.memory_bytes;
        self.received..end.min(wrap)
    }

    /// So much was received.
    pub fn on_received(&mut self, bytes: u64) {
        assert!(bytes <= self.room().end - self.received, "only into the room");
        self.received += bytes;
    }

    /// The next write, which counts as begun.
    pub fn begin_write(&mut self) -> Option<Write> {
        let under_way = self.writes.iter().filter(|write| !write.done).count();
        if under_way >= self.layout.writes_in_flight_max || self.received == self.begun {
            return None;
        }
        let block_is_shared = !self.begun.is_multiple_of(self.layout.alignment);
        if block_is_shared && self.writes.back().is_some_and(|write| !write.done) {
            return None;
        }
        let full = (self.begun / self.layout.write_bytes + 1) * self.layout.write_bytes;
        let idle = under_way == 0 && self.flushing.is_none();
        let end = match self.received {
            received if received >= full => full,
            received if idle => received,
            _ => return None,
        };
        let alone = idle && self.begun == self.durable && end < full;
        let write = Write {
            number: self.first + self.writes.len() as u64,
            blocks: self.down(self.begun)..end.next_multiple_of(self.layout.alignment),
            end,
            durable: alone && end - self.begun <= self.layout.single_write_bytes_max,
        };
        self.writes.push_back(Begun {
            end,
            durable: write.durable,
            done: false,
        });
        self.begun = end;
        Some(write)
    }

    /// A write has completed.
    pub fn on_written(&mut self, number: u64) {
        let write = &mut self.writes[(number - self.first) as usize];
        write.done = true;
        while let Some(write) = self.writes.pop_front_if(|write| write.done) {
            self.first += 1;
            self.written = write.end;
            if write.durable {
                // It began when everything before it was durable.
                self.durable = write.end;
            }
        }
        assert!(self.durable <= self.written && self.written <= self.begun && self.begun <= self.received);
    }

    /// Whether to flush now, which counts as begun.
    pub fn begin_flush(&mut self) -> bool {
        let uncovered = self.written - self.durable;
        let quiet = self.writes.iter().all(|write| write.done);
        let now = self.flushing.is_none() && uncovered > 0 && (quiet || uncovered >= self.layout.flush_uncovered_bytes);
        if now {
            self.flushing = Some(self.written);
        }
        now
    }

    /// The flush has completed.
    pub fn on_flushed(&mut self) {
        let covered = self.flushing.take().expect("a flush was begun");
        assert!(self.durable <= covered && covered <= self.written);
        self.durable = covered;
    }

    /// What to push next, in one piece of memory; empty if there is nothing.
    pub fn to_push(&self) -> Range<u64> {
        let Some(pushed) = self.pushed else { return 0..0 };
        let wrap = (pushed / self.layout.memory_bytes + 1) * self.layout.memory_bytes;
        pushed..self.durable.min(wrap)
    }

    /// So much was pushed.
    pub fn on_pushed(&mut self, bytes: u64) {
        let pushed = self.pushed.as_mut().expect("something was pushed");
        *pushed += bytes;
        assert!(*pushed <= self.durable, "only what is durable is pushed");
    }

    /// Where positions lie in memory; they are all in one piece.
    pub fn memory(&self, positions: &Range<u64>) -> Range<usize> {
        let start = (positions.start % self.layout.memory_bytes) as usize;
        start..start + (positions.end - positions.start) as usize
    }

    /// Where a position lies in the file.
    pub fn in_file(&self, position: u64) -> u64 {
        position % self.layout.file_bytes
    }

    fn down(&self, position: u64) -> u64 {
        position - position % self.layout.alignment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    fn stream(push: bool) -> Stream {
        let layout = Layout {
            memory_bytes: 64 * BLOCK,
            file_bytes: 32 * BLOCK,
            write_bytes: 8 * BLOCK,
            writes_in_flight_max: 2,
            flush_uncovered_bytes: 16 * BLOCK,
            single_write_bytes_max: BLOCK,
            alignment: BLOCK,
        };
        Stream::new(layout, push)
    }

    #[test]
    fn a_lone_small_write_makes_itself_durable_and_a_larger_one_is_flushed() {
        let mut stream = stream(false);
        stream.on_received(100);
        let write = stream.begin_write().unwrap();
        assert_eq!((write.blocks, write.end, write.durable), (0..BLOCK, 100, true));
        stream.on_received(2 * BLOCK);
        // Its last block is being written, so nothing else may touch it.
        assert_eq!(stream.begin_write(), None);
        assert!(!stream.begin_flush());
        assert_eq!(stream.durable(), 0);
        stream.on_written(0);
        assert_eq!(stream.durable(), 100);
        let write = stream.begin_write().unwrap();
        assert_eq!((write.blocks, write.durable), (0..3 * BLOCK, false));
        stream.on_written(1);
        assert_eq!(stream.durable(), 100);
        assert!(stream.begin_flush());
        stream.on_flushed();
        assert!(stream.is_settled());
    }

    #[test]
    fn a_block_is_never_written_by_two_writes_at_once() {
        let mut stream = stream(false);
        stream.on_received(BLOCK + 1);
        assert_eq!(stream.begin_write().unwrap().blocks, 0..2 * BLOCK);
        stream.on_received(8 * BLOCK);
        assert_eq!(
            stream.begin_write(),
            None,
            "a full write is there, and its first block is being written"
        );
        stream.on_written(0);
        assert_eq!(stream.begin_write().unwrap().blocks, BLOCK..8 * BLOCK);
    }

    #[test]
    fn a_flush_covers_what_was_written_in_one_piece_when_it_began_and_nothing_else() {
        let mut stream = stream(false);
        stream.on_received(24 * BLOCK);
        assert_eq!(stream.begin_write().unwrap().blocks, 0..8 * BLOCK);
        assert_eq!(stream.begin_write().unwrap().blocks, 8 * BLOCK..16 * BLOCK);
        assert_eq!(stream.begin_write(), None, "two are under way");
        stream.on_written(1);
        assert!(!stream.begin_flush(), "there is a hole");
        stream.on_written(0);
        assert_eq!(stream.begin_write().unwrap().end, 24 * BLOCK);
        assert!(stream.begin_flush());
        stream.on_written(2);
        assert!(!stream.begin_flush(), "one at a time");
        stream.on_flushed();
        assert_eq!(stream.durable(), 16 * BLOCK);
        assert!(stream.begin_flush());
        stream.on_flushed();
        assert!(stream.is_settled());
    }

    #[test]
    fn memory_is_used_again_only_when_it_is_durable_and_pushed() {
        let mut stream = stream(true);
        stream.on_received(64 * BLOCK);
        assert!(stream.room().is_empty());
        while let Some(write) = stream.begin_write() {
            stream.on_written(write.number);
        }
        assert!(stream.begin_flush());
        assert!(stream.to_push().is_empty(), "nothing is durable");
        stream.on_flushed();
        assert!(stream.room().is_empty(), "nothing is pushed");
        assert_eq!(stream.to_push(), 0..64 * BLOCK);
        stream.on_pushed(BLOCK + 1);
        assert_eq!(stream.room(), 64 * BLOCK..65 * BLOCK);
        assert_eq!(stream.memory(&stream.room()), 0..BLOCK as usize);
        assert_eq!(stream.in_file(33 * BLOCK), BLOCK);
    }
}
