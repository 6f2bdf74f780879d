//! How entries get into the journal: one frame fills while the one before is written.
//!
//! Whoever puts the first entry into a frame writes it, once no other is being written; the others wait for it. There is no task of the
//! journal's own.

use std::{cell::Cell, io, rc::Rc};

use headwater_protocol::id::Offset;

use super::{
    BLOCK, Condition, Journal, State,
    frame::{ENTRY_LEN, FRAME_LEN, FrameHead, entry_head},
};
use crate::{
    disk::{BlockBuffer, Disk, SegmentFile},
    error::LogError,
    owner::Owner,
    signal::Signal,
};

/// Share of the journal that is kept for settling, and for saying what is needed, and the least of it.
const KEPT_SHARE: u64 = 16;
const KEPT_MIN: u64 = 4 * BLOCK;

/// Batches on their way into the journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) owner: Owner,
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) length: usize,
}

/// A frame that is being filled or written, as those wait for it who have entries in it.
#[derive(Debug, Default)]
struct Frame {
    /// Whether it is durable, once that is known.
    outcome: Cell<Option<bool>>,
    settled: Signal,
}

impl Frame {
    fn settle(&self, is_durable: bool) {
        self.outcome.set(Some(is_durable));
        self.settled.notify();
    }
}

/// What the next frame will hold.
#[derive(Debug, Default)]
pub(super) struct Filling {
    frame: Rc<Frame>,
    bytes: Vec<u8>,
    entries: u32,
    /// Whose batches, and the offset after them.
    batches: Vec<(Owner, Offset)>,
}

impl Filling {
    /// Whether it has batches of this partition.
    pub(super) fn has(&self, owner: Owner) -> bool {
        self.batches.iter().any(|(whose, _)| *whose == owner)
    }
}

/// An entry in a frame.
struct Enlisted {
    frame: Rc<Frame>,
    /// Whoever comes first writes it.
    is_first: bool,
}

impl State {
    /// Bytes of the frame that is being filled with one more entry.
    fn bytes_with(&self, length: usize) -> u64 {
        (FRAME_LEN + self.filling.bytes.len() + ENTRY_LEN + length) as u64
    }

    /// An empty buffer of so many bytes.
    fn buffer(&mut self, capacity: u64) -> Rc<BlockBuffer> {
        if let Some(mut spare) = self.spare_buffer.take()
            && let Some(unused) = Rc::get_mut(&mut spare)
        {
            unused.reset();
            return spare;
        }
        Rc::new(BlockBuffer::new(capacity as usize))
    }
}

impl<D: Disk> Journal<D> {
    /// Makes batches durable, which `fill` appends to what it is given. False if the journal cannot: the caller then writes them to
    /// their segment, as they are. Batches of one partition are committed one after the other, in the order of the log.
    ///
    /// If the future is dropped it is not known what has become of them.
    pub(crate) async fn commit(&self, piece: Piece, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Piece {
            owner,
            base,
            next,
            length,
        } = piece;
        if !self.has_room(length).await {
            self.state.borrow_mut().figures.refusals += 1;
            return false;
        }
        let head = entry_head(false, owner, base, next, length);
        let enlisted = self.enlist(length, self.kept(), |filling| {
            filling.bytes.extend_from_slice(&head);
            let before = filling.bytes.len();
            fill(&mut filling.bytes);
            assert_eq!(filling.bytes.len() - before, length, "an entry is as long as was said");
            filling.batches.push((owner, next));
        });
        match enlisted.await {
            Some(enlisted) => self.settled(enlisted).await,
            None => false,
        }
    }

    /// Bytes that are kept for settling, and for saying what is needed.
    fn kept(&self) -> u64 {
        (self.config.size_bytes / KEPT_SHARE).max(KEPT_MIN)
    }

    /// Whether there is room for an entry with so many bytes of batches, now or once it is written down that some frames are not needed any
    /// more.
    async fn has_room(&self, length: usize) -> bool {
        let bytes = |state: &State| state.bytes_with(length).next_multiple_of(BLOCK);
        {
            let state = self.state.borrow();
            if state.space.fits(bytes(&state), self.kept()) {
                return true;
            }
            let oldest = state.holds.oldest().unwrap_or(state.sequence);
            if oldest <= state.first_needed {
                return false;
            }
        }
        let is_written = self.note(Owner::NOBODY).await;
        let state = self.state.borrow();
        is_written && state.space.fits(bytes(&state), self.kept())
    }

    /// Writes that all before of this partition is settled, and with it, as with every frame, what is needed. All of the file may be used.
    pub(super) async fn note(&self, owner: Owner) -> bool {
        let head = entry_head(true, owner, Offset::ZERO, Offset::ZERO, 0);
        let enlisted = self.enlist(0, 0, |filling| filling.bytes.extend_from_slice(&head));
        match enlisted.await {
            Some(enlisted) => self.settled(enlisted).await,
            None => false,
        }
    }

    /// Puts an entry with so many bytes of batches into the frame that is being filled. `None` if there is no room in the journal with so
    /// many bytes left, or if it has failed.
    async fn enlist(&self, length: usize, kept: u64, put: impl FnOnce(&mut Filling)) -> Option<Enlisted> {
        loop {
            let taken = self.taken.wait();
            {
                let mut state = self.state.borrow_mut();
                if !matches!(state.condition, Condition::Works) {
                    return None;
                }
                let bytes = state.bytes_with(length);
                if bytes <= self.config.frame_bytes_max() {
                    if !state.space.fits(bytes.next_multiple_of(BLOCK), kept) {
                        return None;
                    }
                    let is_first = state.filling.entries == 0;
                    put(&mut state.filling);
                    state.filling.entries += 1;
                    let frame = Rc::clone(&state.filling.frame);
                    return Some(Enlisted { frame, is_first });
                }
            }
            // It is full: its writer is waiting for the one before.
            taken.await;
        }
    }

    /// Waits until the frame of an entry is durable, or writes it. False if it cannot be known to be.
    async fn settled(&self, enlisted: Enlisted) -> bool {
        let Enlisted { frame, is_first } = enlisted;
        if is_first {
            let abandoned = FailIfDropped {
                journal: self,
                frame: &frame,
                has_begun: Cell::new(false),
                finished: Cell::new(false),
            };
            self.idle.until(|| !self.state.borrow().is_writing).await;
            abandoned.has_begun.set(true);
            self.write_filling().await;
            abandoned.finished.set(true);
        } else {
            frame.settled.until(|| frame.outcome.get().is_some()).await;
        }
        frame.outcome.get() == Some(true)
    }

    /// Writes the frame that was being filled, and makes it durable. Entries go into another one meanwhile.
    async fn write_filling(&self) {
        let (mut filling, sequence, first_needed, blocks, position) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            if !matches!(state.condition, Condition::Works) {
                // It has failed since: nothing of this was written.
                let filling = std::mem::take(&mut state.filling);
                filling.frame.settle(false);
                self.taken.notify();
                return;
            }
            let next = Filling {
                bytes: std::mem::take(&mut state.spare_bytes),
                ..Filling::default()
            };
            let filling = std::mem::replace(&mut state.filling, next);
            let sequence = state.sequence;
            // A frame without batches says itself that it is not needed.
            let itself = sequence + u64::from(filling.batches.is_empty());
            let first_needed = state.holds.oldest().map_or(itself, |oldest| oldest.min(itself));
            let head = FrameHead {
                generation: self.generation,
                sequence,
                first_needed,
                entries: filling.entries,
            };
            let length = FRAME_LEN + filling.bytes.len();
            let buffer = state.buffer(self.config.frame_bytes_max());
            buffer.append(&head.encode(&filling.bytes));
            buffer.append(&filling.bytes);
            let blocks = buffer.blocks(0, length);
            state.spare_buffer = Some(buffer);
            let position = state.space.place(sequence, blocks.len() as u64);
            for (owner, _) in &filling.batches {
                state.newest.insert(*owner, sequence);
            }
            state.sequence += 1;
            state.is_writing = true;
            (filling, sequence, first_needed, blocks, position)
        };
        self.taken.notify();
        let bytes = blocks.len() as u64;
        let written = self.file.write_durable(blocks, position).await;
        {
            let mut state = self.state.borrow_mut();
            state.is_writing = false;
            if written.is_ok() {
                for (owner, next) in &filling.batches {
                    state.holds.add(*owner, sequence, *next);
                }
                state.first_needed = first_needed;
                state.space.free_before(first_needed);
                state.figures.frames += 1;
                state.figures.entries += u64::from(filling.entries);
                state.figures.bytes += bytes;
            }
            filling.bytes.clear();
            state.spare_bytes = filling.bytes;
        }
        match written {
            Ok(()) => filling.frame.settle(true),
            Err(source) => {
                self.fail(LogError::io("write", &self.path)(source));
                filling.frame.settle(false);
            }
        }
        self.idle.notify();
        self.press();
    }
}

/// Nobody would write a frame whose writer is gone, or know what has become of it.
struct FailIfDropped<'a, D: Disk> {
    journal: &'a Journal<D>,
    frame: &'a Frame,
    has_begun: Cell<bool>,
    finished: Cell<bool>,
}

impl<D: Disk> Drop for FailIfDropped<'_, D> {
    fn drop(&mut self) {
        if !self.finished.get() {
            let source = io::Error::new(io::ErrorKind::Interrupted, "the write was dropped");
            self.journal.fail(LogError::io("write", &self.journal.path)(source));
            if self.has_begun.get() {
                // What may be under way is the last that is written here.
                self.journal.state.borrow_mut().is_writing = false;
            }
            self.frame.settle(false);
            self.journal.idle.notify();
        }
    }
}
