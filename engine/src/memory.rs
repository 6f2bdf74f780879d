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

impl From<Rc<TailMemory>> for Memory {
    /// None for reading past the page cache.
    fn from(tail: Rc<TailMemory>) -> Memory {
        let cold = Rc::new(ColdMemory::new(0));
        Memory { tail, cold }
    }
}
