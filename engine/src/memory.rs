//! The memory that the logs of one core share.

use std::rc::Rc;

use crate::{cold::ColdMemory, tail::TailMemory};

/// The budgets of one core. Clones are the same.
#[derive(Debug, Clone)]
pub struct Memory {
    /// What is not yet on disk, and the most recent records.
    pub tail: Rc<TailMemory>,
    /// Older records, on their way from disk to consumers.
    pub cold: Rc<ColdMemory>,
}

impl Memory {
    /// Maps all of it now instead of when it is needed first. Takes as long as the machine needs to find that much.
    pub fn prefault(&self) {
        self.tail.prefault();
        self.cold.prefault();
    }
}

impl From<Rc<TailMemory>> for Memory {
    /// None for reading past the page cache.
    fn from(tail: Rc<TailMemory>) -> Memory {
        let cold = Rc::new(ColdMemory::new(0));
        Memory { tail, cold }
    }
}
