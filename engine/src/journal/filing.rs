//! Which partitions are to be written to their segments, so that the journal has room again.

use std::rc::Rc;

use headwater_protocol::id::Offset;

use super::{Condition, Journal};
use crate::{disk::Disk, owner::Owner};

impl<D: Disk> Journal<D> {
    /// Tells those who file that there is something for them.
    pub(super) fn press(&self) {
        if self.is_pressed() {
            self.pressed.notify();
        }
    }

    fn is_pressed(&self) -> bool {
        let state = self.state.borrow();
        if state.holds.len() == 0 {
            return false;
        }
        let is_failed = !matches!(state.condition, Condition::Works);
        // What is held here is in memory too, where it takes up to twice as much.
        let limit = (state.space.capacity() / 2).min(self.tail.limit() as u64 / 4);
        is_failed || state.held_bytes() > limit || self.tail.is_spent()
    }

    /// The next partition whose batches are to be written to its segments, to be done with [`Log::file`](crate::Log::file): the one that
    /// holds the oldest frame, once the journal is half full, or holds as much as a quarter of what the logs have for tail buffers. Several may wait for it
    /// at once. The partition is not named again before the guard is dropped.
    pub async fn due(self: &Rc<Self>) -> Due<D> {
        loop {
            let pressed = self.pressed.wait();
            if let Some(due) = self.due_now() {
                return due;
            }
            pressed.await;
        }
    }

    /// The same, if there is one now.
    pub fn due_now(self: &Rc<Self>) -> Option<Due<D>> {
        if !self.is_pressed() {
            return None;
        }
        let owner = self.state.borrow_mut().holds.begin_filing()?;
        let journal = Rc::clone(self);
        Some(Due { journal, owner })
    }

    /// All of the partition below this offset is in its segments.
    pub(crate) fn filed(&self, owner: Owner, below: Offset) {
        self.state.borrow_mut().holds.filed(owner, below);
    }
}

/// A partition that is to be filed; nobody else is told to until this is dropped.
#[derive(Debug)]
pub struct Due<D: Disk> {
    journal: Rc<Journal<D>>,
    /// Whose log it is.
    pub owner: Owner,
}

impl<D: Disk> Drop for Due<D> {
    fn drop(&mut self) {
        self.journal.state.borrow_mut().holds.end_filing(self.owner);
        self.journal.press();
    }
}
