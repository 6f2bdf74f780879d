//! What the logs of one core share: memory, and what they have to do and have done.

use std::{cell::Cell, rc::Rc};

use crate::{cold::ColdMemory, seldom::Seldom, tail::TailMemory, unsealed::Unsealed};

/// The budgets of one core. Clones are the same.
#[derive(Debug, Clone)]
pub struct Memory {
    /// What is not yet on disk, and the most recent records.
    pub tail: Rc<TailMemory>,
    /// Older records, on their way from disk to consumers.
    pub cold: Rc<ColdMemory>,
    /// Segments that wait to be sealed.
    pub unsealed: Rc<Unsealed>,
    /// What has become of indexes.
    pub indexes: Rc<IndexCounts>,
}

/// Indexes that could not be read or written. No record depends on them.
#[derive(Debug, Default)]
pub struct IndexCounts {
    /// Made anew from their segments: the files were missing or damaged, or could not be read.
    pub rebuilt: Cell<u64>,
    /// Not written, and tried again later.
    pub not_written: Cell<u64>,
    /// Whether to say so: where the disk takes no writes, that may be at each fetch.
    pub(crate) said_rebuilt: Seldom,
    pub(crate) said_not_written: Seldom,
}

impl IndexCounts {
    pub(crate) fn one_rebuilt(&self) {
        self.rebuilt.set(self.rebuilt.get() + 1);
    }

    pub(crate) fn one_not_written(&self) {
        self.not_written.set(self.not_written.get() + 1);
    }
}

impl Memory {
    /// Budgets of so many bytes.
    pub fn new(tail: Rc<TailMemory>, cold: ColdMemory) -> Memory {
        Memory {
            tail,
            cold: Rc::new(cold),
            unsealed: Rc::default(),
            indexes: Rc::default(),
        }
    }

    /// Maps all of it now instead of when it is needed first. Takes as long as the machine needs to find that much.
    pub fn prefault(&self) {
        self.tail.prefault();
        self.cold.prefault();
    }

    /// Whether nothing more should be appended for now.
    pub fn is_spent(&self) -> bool {
        self.tail.is_spent() || self.unsealed.is_spent()
    }

    /// Resolves once there is room for more to be appended.
    pub async fn room(&self) {
        while self.is_spent() {
            self.tail.room().await;
            self.unsealed.room().await;
        }
    }
}

impl From<Rc<TailMemory>> for Memory {
    /// None for reading past the page cache.
    fn from(tail: Rc<TailMemory>) -> Memory {
        Memory::new(tail, ColdMemory::new(0))
    }
}
